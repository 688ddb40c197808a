//! What holds for every packet and for all bytes: what is written is read again, and nothing that
//! is read panics or takes more memory than its length justifies.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;

use super::tests::{requests, responses};
use super::*;
use crate::testing::peak;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn pairs() -> impl Strategy<Value = Vec<(Bytes, Bytes)>> {
    vec((bytes(), bytes()), 0..4)
}

fn attrs() -> impl Strategy<Value = Attrs> {
    let fields = (option::of(any::<u64>()), option::of(any::<(u32, u32)>()));
    let more = (
        option::of(any::<u32>()),
        option::of(any::<(u32, u32)>()),
        pairs(),
    );
    (fields, more).prop_map(|((size, owner), (permissions, times, extended))| Attrs {
        size,
        owner,
        permissions,
        times,
        extended,
    })
}

/// A request with one string, a path or a handle.
fn one(make: fn(Bytes) -> Request) -> BoxedStrategy<Request> {
    bytes().prop_map(make).boxed()
}

fn two(make: fn(Bytes, Bytes) -> Request) -> BoxedStrategy<Request> {
    (bytes(), bytes())
        .prop_map(move |(first, second)| make(first, second))
        .boxed()
}

fn changing(make: fn(Bytes, Attrs) -> Request) -> BoxedStrategy<Request> {
    (bytes(), attrs())
        .prop_map(move |(of, attrs)| make(of, attrs))
        .boxed()
}

fn request() -> impl Strategy<Value = Request> {
    Union::new([
        one(|handle| Request::Close { handle }),
        one(|path| Request::Lstat { path }),
        one(|handle| Request::Fstat { handle }),
        one(|path| Request::Opendir { path }),
        one(|handle| Request::Readdir { handle }),
        one(|path| Request::Remove { path }),
        one(|path| Request::Rmdir { path }),
        one(|path| Request::Realpath { path }),
        one(|path| Request::Stat { path }),
        one(|path| Request::Readlink { path }),
        one(|path| Request::Statvfs { path }),
        one(|handle| Request::Fstatvfs { handle }),
        one(|handle| Request::Fsync { handle }),
        one(|path| Request::ExpandPath { path }),
        one(|user| Request::HomeDirectory { user }),
        two(|from, to| Request::Rename { from, to }),
        two(|first, second| Request::Symlink { first, second }),
        two(|from, to| Request::PosixRename { from, to }),
        two(|from, to| Request::Hardlink { from, to }),
        changing(|path, attrs| Request::Setstat { path, attrs }),
        changing(|handle, attrs| Request::Fsetstat { handle, attrs }),
        changing(|path, attrs| Request::Mkdir { path, attrs }),
        changing(|path, attrs| Request::Lsetstat { path, attrs }),
        Just(Request::Limits).boxed(),
        request_of_its_own_form().boxed(),
    ])
}

fn request_of_its_own_form() -> impl Strategy<Value = Request> {
    prop_oneof![
        (any::<u32>(), pairs()).prop_map(|(version, extensions)| Request::Init {
            version,
            extensions
        }),
        (bytes(), any::<u32>().prop_map(OpenFlags), attrs())
            .prop_map(|(path, flags, attrs)| Request::Open { path, flags, attrs }),
        (bytes(), any::<u64>(), any::<u32>()).prop_map(|(handle, offset, len)| Request::Read {
            handle,
            offset,
            len
        }),
        (bytes(), any::<u64>(), bytes()).prop_map(|(handle, offset, data)| Request::Write {
            handle,
            offset,
            data
        }),
        (bytes(), any::<u64>(), any::<u64>(), bytes(), any::<u64>()).prop_map(
            |(from, from_offset, len, to, to_offset)| Request::CopyData {
                from,
                from_offset,
                len,
                to,
                to_offset
            }
        ),
        (vec(any::<u32>(), 0..9), vec(any::<u32>(), 0..9))
            .prop_map(|(uids, gids)| Request::UsersGroupsById { uids, gids }),
        (bytes(), bytes()).prop_map(|(name, data)| Request::Extended { name, data }),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let entry = (bytes(), bytes(), attrs());
    let entry = entry.prop_map(|(name, longname, attrs)| NameEntry {
        name,
        longname,
        attrs,
    });
    prop_oneof![
        (any::<u32>(), pairs()).prop_map(|(version, extensions)| Response::Version {
            version,
            extensions
        }),
        (any::<u32>().prop_map(StatusCode), bytes(), bytes()).prop_map(
            |(code, message, language)| Response::Status {
                code,
                message,
                language
            }
        ),
        bytes().prop_map(Response::Handle),
        bytes().prop_map(Response::Data),
        vec(entry, 0..6).prop_map(Response::Names),
        attrs().prop_map(Response::Attrs),
        bytes().prop_map(Response::Extended),
    ]
}

/// INIT and VERSION are the packets that carry no id.
fn id_of(kind_has_one: bool, id: u32) -> RequestId {
    RequestId(if kind_has_one { id } else { 0 })
}

proptest! {
    #[test]
    fn any_request_is_read_as_it_was_written(request in request(), id: u32) {
        let id = id_of(!matches!(request, Request::Init { .. }), id);
        let frame = request.encode(id).into_bytes().slice(4..);
        prop_assert_eq!(Request::decode(frame), Ok((id, request)));
    }

    #[test]
    fn any_response_is_read_as_it_was_written(response in response(), id: u32) {
        let id = id_of(!matches!(response, Response::Version { .. }), id);
        let frame = response.encode(id).into_bytes().slice(4..);
        prop_assert_eq!(Response::decode(frame), Ok((id, response)));
    }

    #[test]
    fn any_body_of_an_extension_is_read_as_it_was_written(
        numbers: [u64; 11],
        users in vec(bytes(), 0..5),
        groups in vec(bytes(), 0..5),
    ) {
        let [packet_max, read_max, write_max, handles_max, ..] = numbers;
        let limits = Limits { packet_max, read_max, write_max, handles_max };
        prop_assert_eq!(Limits::decode(limits.encode()), Ok(limits));
        let [bsize, frsize, blocks, bfree, bavail, files, ffree, favail, fsid, flag, namemax] =
            numbers;
        let space = Statvfs {
            bsize, frsize, blocks, bfree, bavail, files, ffree, favail, fsid, flag, namemax,
        };
        prop_assert_eq!(Statvfs::decode(space.encode()), Ok(space));
        let names = UserGroupNames { users, groups };
        prop_assert_eq!(UserGroupNames::decode(names.encode()), Ok(names));
    }

    #[test]
    fn any_stream_gives_its_frames_however_it_is_cut(
        bodies in vec(vec(any::<u8>(), 1..3000), 1..8),
        cuts in vec(1..2000_usize, 1..40),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
            stream.extend_from_slice(body);
        }
        let mut frames = Frames::new(3000);
        let mut found = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            frames.buffer().extend_from_slice(now);
            while let Some(frame) = frames.next().unwrap() {
                found.push(frame);
            }
        }
        prop_assert_eq!(found, bodies);
    }

    #[test]
    fn no_bytes_panic_or_take_memory_they_do_not_justify(
        kind in prop_oneof![1..21_u8, 101..106_u8, 200..202_u8, any::<u8>()],
        rest in vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..400),
    ) {
        let packet = [vec![kind], rest].concat();
        read_everything(&packet);
    }

    #[test]
    fn no_line_makes_a_long_name_panic(line in vec(prop_oneof![Just(b' '), Just(b'-'), any::<u8>()], 0..80)) {
        let _ = LongName::parse(&line);
    }
}

/// The most that reading a packet may hold, in bytes for each byte of it: the shortest entry of a
/// list is 4 bytes on the wire (an empty name) and 32 in memory, in a list that is just being
/// doubled, so that the old and the new one are there.
const GROWTH_MAX: usize = 24;

/// What every packet may take whatever its length: a reference count, and the first four places
/// of a list.
const BASE_MAX: usize = 1024;

/// Reads bytes as each thing they could be, and holds what that takes against their number.
fn read_everything(packet: &[u8]) {
    let allowed = BASE_MAX + packet.len() * GROWTH_MAX;
    let whole = Bytes::copy_from_slice(packet);
    let readers: [fn(Bytes); 5] = [
        |packet| _ = Request::decode(packet),
        |packet| _ = Response::decode(packet),
        |packet| _ = Limits::decode(packet),
        |packet| _ = Statvfs::decode(packet),
        |packet| _ = UserGroupNames::decode(packet),
    ];
    for read in readers {
        let (taken, ()) = peak(|| read(whole.clone()));
        assert!(taken <= allowed, "{taken} bytes for {packet:02x?}");
    }
}

/// One packet of each kind, and all that were recorded.
fn valid_packets() -> Vec<Vec<u8>> {
    let id = RequestId(1);
    let frames = requests()
        .into_iter()
        .map(|request| request.encode(id))
        .chain(responses().into_iter().map(|response| response.encode(id)));
    let ours = frames.map(|encoded| encoded.into_bytes().slice(4..));
    let recorded = [recorded::all('>'), recorded::all('<')].concat();
    ours.chain(recorded).map(|packet| packet.to_vec()).collect()
}

#[test]
fn a_packet_cut_off_anywhere_is_read_without_harm() {
    for packet in valid_packets() {
        for end in 0..packet.len() {
            read_everything(&packet[..end]);
        }
    }
}

#[test]
fn a_packet_with_any_byte_changed_is_read_without_harm() {
    for mut packet in valid_packets() {
        for index in 0..packet.len() {
            let original = packet[index];
            for value in [
                0,
                1,
                0x7f,
                0x80,
                0xff,
                original ^ 1,
                original.wrapping_add(1),
            ] {
                packet[index] = value;
                read_everything(&packet);
            }
            packet[index] = original;
        }
    }
}

#[test]
fn a_packet_cut_short_is_never_taken_for_a_whole_one() {
    // STATUS may end after its code, bodies and lists without a count may end between two items.
    let may_end_early = |response: &Response| {
        matches!(
            response,
            Response::Status { .. } | Response::Extended(_) | Response::Version { .. }
        )
    };
    for response in responses()
        .into_iter()
        .filter(|response| !may_end_early(response))
    {
        let packet = response.encode(RequestId(1)).into_bytes().slice(4..);
        for end in 0..packet.len() {
            assert!(
                Response::decode(packet.slice(..end)).is_err(),
                "{end} bytes of {response:?}"
            );
        }
    }
}

#[test]
fn an_announced_frame_takes_no_more_room_than_allowed() {
    for announced in [1, 1000, 100_000, 300_000, u32::MAX] {
        let mut frames = Frames::new(262_144);
        let (taken, ()) = peak(|| {
            frames.buffer().extend_from_slice(&announced.to_be_bytes());
            frames.buffer();
        });
        assert!(
            taken <= 2 * 262_144,
            "{taken} bytes for {announced} announced"
        );
    }
}
