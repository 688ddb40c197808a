//! Every packet with every field, there and back, and the streams they come in.

use super::extensions::name;
use super::*;
use bytes::Bytes;

fn bytes(text: &'static [u8]) -> Bytes {
    Bytes::from_static(text)
}

fn attrs() -> Attrs {
    Attrs {
        size: Some(1 << 40),
        owner: Some((1000, u32::MAX)),
        permissions: Some(0o100_644),
        times: Some((1, 0x9000_0000)),
        extended: vec![(bytes(b"acl@x"), bytes(b"\0\xff"))],
    }
}

/// The frame as [`Frames`] would hand it on.
fn frame(encoded: Encoded) -> Bytes {
    let mut frames = Frames::new(1 << 20);
    frames.buffer().extend_from_slice(&encoded.into_bytes());
    let frame = frames.next().unwrap().unwrap();
    assert_eq!(frames.next(), Ok(None), "more than one frame was encoded");
    frame
}

/// One request of each kind.
pub(super) fn requests() -> Vec<Request> {
    [draft_requests(), extension_requests()].concat()
}

fn draft_requests() -> Vec<Request> {
    let (path, handle) = (bytes(b"/a/\xff b"), bytes(b"\0\0\0\x01"));
    let (from, to) = (path.clone(), bytes(b"c"));
    vec![
        Request::Init {
            version: 3,
            extensions: vec![(bytes(b"name"), bytes(b"data"))],
        },
        Request::Open {
            path: path.clone(),
            flags: OpenFlags::READ | OpenFlags::CREAT,
            attrs: attrs(),
        },
        Request::Close {
            handle: handle.clone(),
        },
        Request::Read {
            handle: handle.clone(),
            offset: u64::MAX,
            len: u32::MAX,
        },
        Request::Write {
            handle: handle.clone(),
            offset: 1 << 33,
            data: bytes(b"payload"),
        },
        Request::Lstat { path: path.clone() },
        Request::Fstat {
            handle: handle.clone(),
        },
        Request::Setstat {
            path: path.clone(),
            attrs: attrs(),
        },
        Request::Fsetstat {
            handle: handle.clone(),
            attrs: Attrs::default(),
        },
        Request::Opendir { path: path.clone() },
        Request::Readdir {
            handle: handle.clone(),
        },
        Request::Remove { path: path.clone() },
        Request::Mkdir {
            path: path.clone(),
            attrs: attrs(),
        },
        Request::Rmdir { path: path.clone() },
        Request::Realpath { path: bytes(b"") },
        Request::Stat { path: path.clone() },
        Request::Rename {
            from: from.clone(),
            to: to.clone(),
        },
        Request::Readlink { path: path.clone() },
        Request::Symlink {
            first: from.clone(),
            second: to.clone(),
        },
    ]
}

fn extension_requests() -> Vec<Request> {
    let (path, handle) = (bytes(b"/a/\xff b"), bytes(b"\0\0\0\x01"));
    let (from, to) = (path.clone(), bytes(b"c"));
    vec![
        Request::PosixRename {
            from: from.clone(),
            to: to.clone(),
        },
        Request::Statvfs { path: path.clone() },
        Request::Fstatvfs {
            handle: handle.clone(),
        },
        Request::Hardlink { from, to },
        Request::Fsync {
            handle: handle.clone(),
        },
        Request::Lsetstat {
            path: path.clone(),
            attrs: attrs(),
        },
        Request::Limits,
        Request::ExpandPath { path },
        Request::CopyData {
            from: handle,
            from_offset: 1,
            len: 2,
            to: bytes(b"h"),
            to_offset: 3,
        },
        Request::HomeDirectory {
            user: bytes(b"ann"),
        },
        Request::UsersGroupsById {
            uids: vec![0, 1000],
            gids: vec![],
        },
        Request::Extended {
            name: bytes(b"check-file"),
            data: bytes(b"\x01\x02"),
        },
    ]
}

/// One response of each kind.
pub(super) fn responses() -> Vec<Response> {
    let entry = |name| NameEntry {
        name,
        longname: bytes(b"-rw-r--r-- 1 a b 0 n"),
        attrs: attrs(),
    };
    vec![
        Response::Version {
            version: 3,
            extensions: vec![(bytes(b"fsync@openssh.com"), bytes(b"1"))],
        },
        Response::Status {
            code: StatusCode::NO_SUCH_FILE,
            message: bytes(b"No such file"),
            language: bytes(b"en"),
        },
        Response::Handle(bytes(b"\0\0\0\x07")),
        Response::Data(bytes(b"some bytes")),
        Response::Names(vec![entry(bytes(b"\xfe")), entry(bytes(b".."))]),
        Response::Names(vec![]),
        Response::Attrs(attrs()),
        Response::Extended(
            Limits {
                packet_max: 1,
                ..Limits::default()
            }
            .encode(),
        ),
    ]
}

#[test]
fn every_request_is_read_as_it_was_written() {
    for request in requests() {
        let id = RequestId(if matches!(request, Request::Init { .. }) {
            0
        } else {
            0xdead_beef
        });
        assert_eq!(
            Request::decode(frame(request.encode(id))),
            Ok((id, request))
        );
    }
}

#[test]
fn every_response_is_read_as_it_was_written() {
    for response in responses() {
        let id = RequestId(if matches!(response, Response::Version { .. }) {
            0
        } else {
            7
        });
        assert_eq!(
            Response::decode(frame(response.encode(id))),
            Ok((id, response))
        );
    }
}

#[test]
fn the_bodies_of_extensions_are_read_as_they_were_written() {
    let limits = Limits {
        packet_max: 1,
        read_max: 2,
        write_max: 3,
        handles_max: u64::MAX,
    };
    assert_eq!(Limits::decode(limits.encode()), Ok(limits));
    let statvfs = Statvfs {
        bsize: 1,
        blocks: 3,
        flag: Statvfs::FLAG_RDONLY,
        namemax: 255,
        ..Statvfs::default()
    };
    assert_eq!(Statvfs::decode(statvfs.encode()), Ok(statvfs));
    let names = UserGroupNames {
        users: vec![bytes(b"root"), bytes(b"")],
        groups: vec![bytes(b"wheel")],
    };
    assert_eq!(UserGroupNames::decode(names.encode()), Ok(names));
}

#[test]
fn the_wire_is_that_of_the_draft() {
    let read = Request::Read {
        handle: bytes(b"hh"),
        offset: 5,
        len: 6,
    };
    let expected = b"\0\0\0\x17\x05\0\0\0\x09\0\0\0\x02hh\0\0\0\0\0\0\0\x05\0\0\0\x06";
    assert_eq!(read.encode(RequestId(9)).into_bytes(), &expected[..]);
    let sync = Request::Fsync {
        handle: bytes(b"h"),
    };
    let expected = b"\0\0\0\x1f\xc8\0\0\0\x01\0\0\0\x11fsync@openssh.com\0\0\0\x01h";
    assert_eq!(sync.encode(RequestId(1)).into_bytes(), &expected[..]);
}

#[test]
fn the_data_of_a_write_is_not_copied() {
    let data = Bytes::from(vec![7; 1000]);
    let encoded = Request::Write {
        handle: bytes(b"h"),
        offset: 0,
        data: data.clone(),
    }
    .encode(RequestId(1));
    assert_eq!(encoded.payload.unwrap().as_ptr(), data.as_ptr());
}

#[test]
fn the_data_of_a_read_is_a_slice_of_its_frame() {
    let frame = frame(Response::Data(bytes(b"0123456789")).encode(RequestId(1)));
    let range = frame.as_ptr_range();
    let Ok((_, Response::Data(data))) = Response::decode(frame) else {
        panic!("not DATA")
    };
    assert!(range.contains(&data.as_ptr()));
}

#[test]
fn a_status_without_message_and_language_is_one() {
    let status = |message, language| {
        Ok((
            RequestId(1),
            Response::Status {
                code: StatusCode::FAILURE,
                message,
                language,
            },
        ))
    };
    let bare = b"\x65\0\0\0\x01\0\0\0\x04";
    assert_eq!(
        Response::decode(bytes(bare)),
        status(bytes(b""), bytes(b""))
    );
    let with_message = b"\x65\0\0\0\x01\0\0\0\x04\0\0\0\x02no";
    assert_eq!(
        Response::decode(bytes(with_message)),
        status(bytes(b"no"), bytes(b""))
    );
}

#[test]
fn bytes_after_the_last_field_are_ignored() {
    let frame = b"\x66\0\0\0\x01\0\0\0\x01htrailing";
    let expected = Ok((RequestId(1), Response::Handle(bytes(b"h"))));
    assert_eq!(Response::decode(bytes(frame)), expected);
}

#[test]
fn a_count_or_length_beyond_the_packet_is_refused() {
    for hostile in [
        &b""[..],
        b"\x68\0\0\0\x01\xff\xff\xff\xff",
        b"\x68\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0",
        b"\x67\0\0\0\x01\xff\xff\xff\xffdata",
        b"\x69\0\0\0\x01\x80\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0",
        b"\x02\0\0\0\x03\0\0\0\x04name",
        b"\x63\0\0\0\x01",
    ] {
        assert!(Response::decode(bytes(hostile)).is_err(), "{hostile:?}");
    }
}

#[test]
fn an_extension_nobody_knows_keeps_its_bytes() {
    let frame = frame(
        Request::Extended {
            name: bytes(name::FSYNC),
            data: bytes(b"\0\0\0\x01h"),
        }
        .encode(RequestId(1)),
    );
    let expected = Ok((
        RequestId(1),
        Request::Fsync {
            handle: bytes(b"h"),
        },
    ));
    assert_eq!(
        Request::decode(frame),
        expected,
        "a known one is read by its own type"
    );
}

#[test]
fn frames_come_out_however_the_stream_is_cut() {
    let stream: Vec<u8> = responses()
        .iter()
        .flat_map(|response| response.encode(RequestId(1)).into_bytes())
        .collect();
    for piece in [1, 2, 3, 5, 7, 64, stream.len()] {
        let mut frames = Frames::new(1 << 20);
        let mut found = Vec::new();
        for bytes in stream.chunks(piece) {
            frames.buffer().extend_from_slice(bytes);
            while let Some(frame) = frames.next().unwrap() {
                found.push(Response::decode(frame).unwrap().1);
            }
        }
        assert_eq!(found, responses(), "cut in pieces of {piece}");
    }
}

#[test]
fn an_empty_or_oversized_frame_ends_the_stream() {
    for prefix in [[0, 0, 0, 0], [0, 0, 1, 1], [0xff; 4]] {
        let mut frames = Frames::new(256);
        frames.buffer().extend_from_slice(&prefix);
        assert!(frames.next().is_err(), "{prefix:?}");
        assert!(
            frames.buffer().capacity() < 64 * 1024,
            "room was made for {prefix:?}"
        );
    }
}

#[test]
fn a_large_frame_is_read_into_one_buffer() {
    let mut frames = Frames::new(1 << 20);
    frames.buffer().extend_from_slice(&[0, 4, 0, 0, 103]);
    let buffer = frames.buffer();
    assert!(buffer.capacity() >= 4 + 0x40000);
    let start = buffer.as_ptr();
    buffer.extend_from_slice(&[0; 0x40000 - 1]);
    assert_eq!(
        frames.next().unwrap().unwrap().as_ptr(),
        start.wrapping_add(4)
    );
}
