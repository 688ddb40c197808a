//! Any bytes as a server's packet: no panic, and what is read is written and read again the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sftpfs_fuzz::sftp::{Extensions, Limits, LongName, Response, Statvfs, UserGroupNames};

fuzz_target!(|packet: &[u8]| {
    let packet = Bytes::copy_from_slice(packet);
    let Ok((id, response)) = Response::decode(packet) else {
        return;
    };
    match &response {
        Response::Version { extensions, .. } => drop(Extensions::from_version(extensions)),
        Response::Names(names) => {
            for entry in names {
                let _ = LongName::parse(&entry.longname);
            }
        }
        Response::Extended(body) => {
            let _ = Limits::decode(body.clone());
            let _ = Statvfs::decode(body.clone());
            let _ = UserGroupNames::decode(body.clone());
        }
        _ => {}
    }
    let again = response.encode(id).into_bytes().slice(4..);
    assert_eq!(Response::decode(again), Ok((id, response)));
});
