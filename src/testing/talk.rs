//! A client that asks one thing at a time and keeps the transcript.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::sftp::{Frames, Request, RequestId, Response};

/// One side's packet, as it was on the wire, without its length.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Client(Bytes),
    Server(Bytes),
}

/// A conversation with a server. What is not as the protocol has it panics: this is for tests.
pub(crate) struct Talk<S> {
    stream: S,
    frames: Frames,
    last_id: u32,
    /// All packets so far.
    pub(crate) transcript: Vec<Said>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// Says INIT. The answer is the first that the transcript has of the server.
    pub(crate) async fn begin(stream: S) -> (Self, Response) {
        let frames = Frames::new(1 << 20);
        let mut talk = Self {
            stream,
            frames,
            last_id: 0,
            transcript: Vec::new(),
        };
        talk.say(
            &Request::Init {
                version: 3,
                extensions: Vec::new(),
            },
            RequestId(0),
        )
        .await;
        let (_, version) = talk.hear().await.expect("no answer to INIT");
        (talk, version)
    }

    /// Sends a request and waits for its response.
    pub(crate) async fn ask(&mut self, request: &Request) -> Response {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        self.say(request, id).await;
        let (answered, response) = self
            .hear()
            .await
            .unwrap_or_else(|| panic!("hung up at {request:?}"));
        assert_eq!(answered, id, "the answer to another request");
        response
    }

    /// Sends a request under an id of the caller's choice and does not wait.
    pub(crate) async fn say(&mut self, request: &Request, id: RequestId) {
        let packet = request.encode(id).into_bytes();
        self.stream.write_all(&packet).await.unwrap();
        self.transcript.push(Said::Client(packet.slice(4..)));
    }

    /// The next packet, or `None` if the server hung up.
    pub(crate) async fn hear(&mut self) -> Option<(RequestId, Response)> {
        loop {
            if let Some(frame) = self.frames.next().unwrap() {
                self.transcript.push(Said::Server(frame.clone()));
                return Some(Response::decode(frame).unwrap());
            }
            if self
                .stream
                .read_buf(self.frames.buffer())
                .await
                .unwrap_or(0)
                == 0
            {
                return None;
            }
        }
    }
}
