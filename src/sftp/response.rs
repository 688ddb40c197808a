//! Responses: what a server sends (draft section 7).

use bytes::Bytes;

use super::packet::kind;
use super::wire::{Reader, Writer, length};
use super::{Attrs, Encoded, Malformed, NameEntry, RequestId, StatusCode};

/// Any packet that a server sends. What is not a number is a slice of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The answer to INIT; carries no id.
    Version {
        /// The version that both sides speak from here on.
        version: u32,
        /// Names and data; see [`Extensions`](super::Extensions).
        extensions: Vec<(Bytes, Bytes)>,
    },
    /// The answer to what has no other, and to what failed.
    Status {
        /// How it went.
        code: StatusCode,
        /// For a person; empty from servers of before 2001, which send none.
        message: Bytes,
        /// Of the message (RFC 1766).
        language: Bytes,
    },
    /// An open file or directory: an opaque name of at most 256 bytes.
    Handle(Bytes),
    /// What READ read.
    Data(Bytes),
    /// What READDIR, REALPATH and READLINK found.
    Names(Vec<NameEntry>),
    /// What STAT and its kin found.
    Attrs(Attrs),
    /// EXTENDED_REPLY: read by the type that the request names.
    Extended(Bytes),
}

impl Response {
    /// The frame to send. The data of DATA is handed on without a copy.
    #[must_use]
    pub fn encode(&self, id: RequestId) -> Encoded {
        let start = |kind| Writer::frame(kind).u32(id.0);
        let writer = match self {
            Self::Version {
                version,
                extensions,
            } => Writer::frame(kind::VERSION).u32(*version).pairs(extensions),
            Self::Status {
                code,
                message,
                language,
            } => start(kind::STATUS)
                .u32(code.0)
                .string(message)
                .string(language),
            Self::Handle(handle) => start(kind::HANDLE).string(handle),
            Self::Data(data) => return start(kind::DATA).finish_with(data),
            Self::Names(names) => {
                let writer = start(kind::NAME).u32(length(names.len()));
                names
                    .iter()
                    .fold(writer, |writer, entry| entry.write(writer))
            }
            Self::Attrs(attrs) => attrs.write(start(kind::ATTRS)),
            Self::Extended(data) => start(kind::EXTENDED_REPLY).raw(data),
        };
        writer.finish()
    }

    /// Reads a frame that came without its length. VERSION gets the id 0.
    ///
    /// # Errors
    /// A packet that ends early, or that no server sends.
    pub fn decode(frame: Bytes) -> Result<(RequestId, Self), Malformed> {
        let mut reader = Reader::new(frame);
        let kind = reader.u8()?;
        if kind == kind::VERSION {
            let version = reader.u32()?;
            let extensions = reader.list_to_end(Reader::pair)?;
            return Ok((
                RequestId(0),
                Self::Version {
                    version,
                    extensions,
                },
            ));
        }
        let id = RequestId(reader.u32()?);
        Ok((id, Self::read(kind, reader)?))
    }

    fn read(kind: u8, mut from: Reader) -> Result<Self, Malformed> {
        Ok(match kind {
            kind::STATUS => Self::Status {
                code: StatusCode(from.u32()?),
                message: string_if_any(&mut from)?,
                language: string_if_any(&mut from)?,
            },
            kind::HANDLE => Self::Handle(from.string()?),
            kind::DATA => Self::Data(from.string()?),
            kind::NAME => {
                let count = from.u32()?;
                Self::Names(from.list(count, NameEntry::SIZE_MIN, NameEntry::read)?)
            }
            kind::ATTRS => Self::Attrs(Attrs::read(&mut from)?),
            kind::EXTENDED_REPLY => Self::Extended(from.rest()),
            _ => return Err(Malformed("a packet is of no type that a server sends")),
        })
    }
}

/// STATUS of the first drafts ends after the code.
fn string_if_any(from: &mut Reader) -> Result<Bytes, Malformed> {
    if from.is_empty() {
        return Ok(Bytes::new());
    }
    from.string()
}
