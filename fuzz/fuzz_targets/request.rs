//! Any bytes as a client's packet: no panic, and what is read is written and read again the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sftpfs_fuzz::sftp::Request;

fuzz_target!(|packet: &[u8]| {
    let packet = Bytes::copy_from_slice(packet);
    let Ok((id, request)) = Request::decode(packet) else {
        return;
    };
    let again = request.encode(id).into_bytes().slice(4..);
    assert_eq!(Request::decode(again), Ok((id, request)));
});
