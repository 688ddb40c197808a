//! Copies for which there is no room.

use super::bench::{Bench, KIB, MIB, assert_content, pattern, whole};
use crate::testing::{OPENSSH, Options};

/// Copies onto disks that are full here and there, and looks whether that is noticed.
async fn copy_onto_a_full_disk(bench: &Bench, size: u64, room: u64) {
    let data = pattern(size, 3);
    let ends = bench.ends("s", "t").await;
    let (copied, result) = bench.copy_all(&ends, whole(size)).await;
    let what = format!("{size} bytes and room for {room}, {}", bench.name);
    assert!(result.is_err(), "{what}: {copied} bytes and no error");
    assert!(copied <= room, "{what}: {copied}");
    let there = bench.content("t");
    assert!(there.len() as u64 <= room, "{what}: {}", there.len());
    let copied = usize::try_from(copied).unwrap();
    assert_content(&there[..copied], &data[..copied], &what);
}

#[tokio::test]
async fn a_full_disk_is_noticed_also_in_the_very_last_chunk() {
    for has_lane in [false, true] {
        for (size, missing) in [
            (100, 1),
            (64 * KIB, 1),
            (64 * KIB + 1, 1),
            (MIB, 64 * KIB),
            (MIB, 64 * KIB + 1),
            (9 * MIB + 5, 1),
            (9 * MIB + 5, 5),
            (9 * MIB + 5, 64 * KIB),
            (12 * MIB, 8 * MIB),
            (12 * MIB, 12 * MIB),
        ] {
            let bench = Bench::in_memory(Options::default(), has_lane).await;
            bench.put("s", &pattern(size, 3));
            let room = size - missing;
            bench.server().tree(|tree| tree.quota = Some(size + room));
            copy_onto_a_full_disk(&bench, size, room).await;
        }
    }
}

/// OpenSSH's server with a bound on the size of files stands for a full disk: write(2) fails with
/// EFBIG behind it, which is a FAILURE as ENOSPC is.
#[tokio::test]
async fn openssh_s_ok_for_a_failed_last_chunk_is_not_believed() {
    let limited = format!("trap '' XFSZ; ulimit -f 2048; exec {OPENSSH}");
    for has_lane in [false, true] {
        for size in [MIB + 1, MIB + 64 * KIB, MIB + 64 * KIB + 1, 3 * MIB] {
            let bench = Bench::openssh(&["sh", "-c", &limited], has_lane).await;
            bench.put("s", &pattern(size, 3));
            copy_onto_a_full_disk(&bench, size, MIB).await;
        }
    }
}
