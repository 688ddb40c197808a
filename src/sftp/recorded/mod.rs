//! Packets recorded from real servers, read by this code. `testing/record.rs` recorded them; its
//! doc says how to do it again.
//!
//! Each file begins with the server and the command that ran it. `>` is what the client said, `<`
//! the answer: frames without their length, in hex.

use bytes::Bytes;

use super::{
    Attrs, Encoded, Extensions, Limits, LongName, Request, Response, StatusCode, Statvfs,
    UserGroupNames,
};

const OPENSSH: &str = include_str!("openssh-9.2p1.txt");
const GREENEND: &str = include_str!("greenend-2.txt");
const RCLONE: &str = include_str!("rclone-1.60.1.txt");

/// The packets of one side, `>` or `<`, of a transcript.
fn packets(transcript: &str, side: char) -> Vec<Bytes> {
    let lines = transcript
        .lines()
        .filter_map(|line| line.strip_prefix(side));
    lines.map(|line| unhex(line.trim())).collect()
}

/// All packets of all servers.
pub(in crate::sftp) fn all(side: char) -> Vec<Bytes> {
    [OPENSSH, GREENEND, RCLONE]
        .into_iter()
        .flat_map(|text| packets(text, side))
        .collect()
}

fn unhex(hex: &str) -> Bytes {
    let digits = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    digits
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

/// Each request with the answer that it got.
fn exchanges(transcript: &str) -> Vec<(Request, Response)> {
    let pairs = packets(transcript, '>')
        .into_iter()
        .zip(packets(transcript, '<'));
    pairs
        .map(|(asked, answered)| {
            let (asked_id, request) = Request::decode(asked).unwrap();
            let (answered_id, response) = Response::decode(answered).unwrap();
            assert_eq!(asked_id, answered_id);
            (request, response)
        })
        .collect()
}

/// The answers to the requests that `chosen` picks.
fn answers(transcript: &str, chosen: impl Fn(&Request) -> bool) -> Vec<Response> {
    let exchanges = exchanges(transcript).into_iter();
    exchanges
        .filter(|(request, _)| chosen(request))
        .map(|(_, response)| response)
        .collect()
}

fn body(transcript: &str, chosen: impl Fn(&Request) -> bool) -> Bytes {
    let Some(Response::Extended(body)) = answers(transcript, chosen).pop() else {
        panic!("no EXTENDED_REPLY");
    };
    body
}

fn extensions(transcript: &str) -> Extensions {
    let answer = answers(transcript, |request| {
        matches!(request, Request::Init { .. })
    })
    .pop();
    let Some(Response::Version {
        version: 3,
        extensions,
    }) = answer
    else {
        panic!("{answer:?}");
    };
    Extensions::from_version(&extensions)
}

/// Name and link count of each entry that READDIR listed, in the order of the names.
fn links(transcript: &str) -> Vec<(Bytes, u32)> {
    let mut found = Vec::new();
    for answer in answers(transcript, |request| {
        matches!(request, Request::Readdir { .. })
    }) {
        let Response::Names(names) = answer else {
            continue;
        };
        let entry = |entry: &super::NameEntry| {
            (
                entry.name.clone(),
                LongName::parse(&entry.longname).unwrap().links,
            )
        };
        found.extend(names.iter().map(entry));
    }
    found.sort();
    found
}

#[test]
fn every_recorded_packet_is_read_and_written_again_as_it_was() {
    let frame = |encoded: Encoded| encoded.into_bytes().slice(4..);
    for packet in all('>') {
        let (id, request) = Request::decode(packet.clone()).unwrap();
        assert_eq!(frame(request.encode(id)), packet, "{request:?}");
    }
    for packet in all('<') {
        let (id, response) = Response::decode(packet.clone()).unwrap();
        assert_eq!(frame(response.encode(id)), packet, "{response:?}");
    }
}

#[test]
fn openssh_has_all_extensions_and_greenend_and_rclone_some() {
    let all = Extensions {
        posix_rename: true,
        statvfs: true,
        fstatvfs: true,
        hardlink: true,
        fsync: true,
        lsetstat: true,
        limits: true,
        expand_path: true,
        copy_data: true,
        home_directory: true,
        users_groups_by_id: true,
        ..Extensions::default()
    };
    assert_eq!(extensions(OPENSSH), all);
    let greenend = extensions(GREENEND);
    assert!(greenend.fsync && greenend.fstatvfs && !greenend.limits && !greenend.copy_data);
    assert_eq!(
        greenend.symlink_order.as_deref(),
        Some(&b"linkpath-targetpath"[..])
    );
    assert!(greenend.others.iter().any(|(name, _)| name == "vendor-id"));
    let rclone = extensions(RCLONE);
    assert!(rclone.hardlink && rclone.posix_rename && !rclone.fsync);
}

#[test]
fn openssh_says_its_limits_names_and_statvfs() {
    let limits = Limits::decode(body(OPENSSH, |request| *request == Request::Limits)).unwrap();
    assert_eq!(
        (limits.packet_max, limits.read_max, limits.write_max),
        (262_144, 261_120, 261_120)
    );
    let asked_names = |request: &Request| matches!(request, Request::UsersGroupsById { .. });
    let names = UserGroupNames::decode(body(OPENSSH, asked_names)).unwrap();
    let root = Bytes::from_static(b"root");
    let expected = UserGroupNames {
        users: vec![root.clone(), Bytes::new()],
        groups: vec![root],
    };
    assert_eq!(names, expected);
    let asked_space = |request: &Request| matches!(request, Request::Statvfs { .. });
    let space = Statvfs::decode(body(OPENSSH, asked_space)).unwrap();
    assert_eq!((space.frsize, space.namemax), (4096, 255));
    assert!(space.bavail <= space.bfree && space.bfree <= space.blocks);
}

#[test]
fn link_counts_are_read_out_of_the_long_names_of_each_server() {
    let count = |links: &[(Bytes, u32)], name| {
        links
            .iter()
            .find(|(listed, _)| listed == name)
            .map(|(_, count)| *count)
    };
    for transcript in [OPENSSH, GREENEND] {
        let links = links(transcript);
        assert_eq!(count(&links, "f"), Some(2), "{links:?}");
        assert_eq!(count(&links, "h"), Some(2), "{links:?}");
        assert_eq!(count(&links, "copy"), Some(1), "{links:?}");
        assert_eq!(count(&links, ".."), Some(3), "{links:?}");
    }
    assert_eq!(count(&links(RCLONE), "f"), Some(1));
}

#[test]
fn data_ends_in_a_short_answer_and_then_in_a_status_of_its_own() {
    for transcript in [OPENSSH, GREENEND, RCLONE] {
        let read = answers(transcript, |request| {
            matches!(request, Request::Read { .. })
        });
        let [
            Response::Data(data),
            Response::Status {
                code: StatusCode::EOF,
                ..
            },
        ] = &read[..]
        else {
            panic!("{read:?}");
        };
        assert_eq!(data, "ello\n");
    }
}

#[test]
fn the_attributes_of_a_symlink_are_its_own() {
    let asked = |request: &Request| {
        *request
            == Request::Lstat {
                path: Bytes::from_static(b"d/s"),
            }
    };
    let Some(Response::Attrs(attrs)) = answers(OPENSSH, asked).pop() else {
        panic!("no ATTRS");
    };
    let Attrs {
        size: Some(1),
        permissions: Some(0o120_777),
        times: Some((_, modified)),
        ..
    } = attrs
    else {
        panic!("{attrs:?}");
    };
    assert_eq!(modified, 1_111_111_111, "set by lsetstat");
}
