//! Bytes in files: where they go, where they end, and that nothing is lost.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;

use super::{open_rw, refused};
use crate::case::{Case, Ctx, case};
use crate::sys::{self, SharedMap};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(a_hole_reads_as_zeros),
        case(truncate_cuts_and_extends_with_zeros),
        case(ftruncate_up_after_a_write_keeps_the_write),
        case(truncating_a_directory_is_eisdir),
        case(a_read_at_or_beyond_the_end_gives_nothing),
        case(a_read_across_the_end_is_short),
        case(offsets_beyond_4_gib_are_kept),
        case(many_small_writes_arrive_in_order),
        case(a_large_file_comes_back_identical).within_s(90),
        case(overlapping_writes_end_with_the_last),
        case(two_descriptors_see_each_others_writes),
        case(fstat_sees_the_size_of_a_write_at_once),
        case(fsync_and_fdatasync_put_the_bytes_on_the_server),
        case(close_puts_the_bytes_on_the_server),
        case(vectored_io_is_one_write),
        case(a_shared_mapping_is_seen_by_read),
        case(a_write_is_seen_by_a_shared_mapping),
        case(a_shared_mapping_is_there_after_a_remount).on_mount_only(),
        case(seek_data_and_seek_hole_cover_the_file),
        case(parallel_readers_and_writers_of_one_file_agree).within_s(60),
    ]
}

fn a_hole_reads_as_zeros(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let file = open_rw(&path);
    file.write_all_at(b"end", 1_000_000).unwrap();
    drop(file);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 1_000_003);
    assert!(bytes[..1_000_000].iter().all(|byte| *byte == 0));
    assert_eq!(&bytes[1_000_000..], b"end");
}

fn truncate_cuts_and_extends_with_zeros(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "0123456789").unwrap();
    nix::unistd::truncate(&path, 4).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123");
    nix::unistd::truncate(&path, 8).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123\0\0\0\0");
    let file = open_rw(&path);
    file.set_len(2).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2);
    file.set_len(3).unwrap();
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"01\0");
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"01\0");
    refused(nix::unistd::truncate(&path, -1), Errno::EINVAL);
}

fn ftruncate_up_after_a_write_keeps_the_write(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = open_rw(&path);
    file.write_all(&[7; 300_000]).unwrap();
    file.set_len(300_010).unwrap();
    file.set_len(299_999).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b"z").unwrap();
    drop(file);
    let bytes = fs::read(ctx.behind.join("f")).unwrap();
    assert_eq!(bytes.len(), 300_000);
    assert!(bytes[..299_999].iter().all(|byte| *byte == 7));
    assert_eq!(bytes[299_999], b'z');
}

fn truncating_a_directory_is_eisdir(ctx: &Ctx) {
    refused(nix::unistd::truncate(&ctx.dir, 0), Errno::EISDIR);
}

fn a_read_at_or_beyond_the_end_gives_nothing(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "12345").unwrap();
    let file = File::open(ctx.dir.join("f")).unwrap();
    let mut buffer = [0; 8];
    for offset in [5, 6, 4096, 1 << 40] {
        assert_eq!(file.read_at(&mut buffer, offset).unwrap(), 0, "at {offset}");
    }
    fs::write(ctx.dir.join("empty"), "").unwrap();
    assert_eq!(
        File::open(ctx.dir.join("empty"))
            .unwrap()
            .read(&mut buffer)
            .unwrap(),
        0
    );
}

fn a_read_across_the_end_is_short(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), vec![1; 100_001]).unwrap();
    let file = File::open(ctx.dir.join("f")).unwrap();
    let mut buffer = vec![0; 8192];
    assert_eq!(file.read_at(&mut buffer, 99_000).unwrap(), 1001);
    assert_eq!(file.read_at(&mut buffer, 100_000).unwrap(), 1);
}

fn offsets_beyond_4_gib_are_kept(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let file = open_rw(&path);
    let far = 5 * (1u64 << 30) + 123;
    file.write_all_at(b"far away", far).unwrap();
    file.write_all_at(b"near", 10).unwrap();
    assert_eq!(file.metadata().unwrap().len(), far + 8);
    drop(file);
    let file = File::open(&path).unwrap();
    let mut buffer = [0; 8];
    file.read_exact_at(&mut buffer, far).unwrap();
    assert_eq!(&buffer, b"far away");
    file.read_exact_at(&mut buffer, far - (1 << 32)).unwrap();
    assert_eq!(buffer, [0; 8]);
    assert_eq!(fs::metadata(ctx.behind.join("f")).unwrap().len(), far + 8);
    nix::unistd::truncate(&path, 1 << 33).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 33);
}

fn many_small_writes_arrive_in_order(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = File::create(&path).unwrap();
    let mut expected: Vec<u8> = Vec::new();
    for number in 0..5000u32 {
        let piece = format!("{number},");
        file.write_all(piece.as_bytes()).unwrap();
        expected.extend(piece.as_bytes());
    }
    drop(file);
    assert!(fs::read(&path).unwrap() == expected);
    assert!(fs::read(ctx.behind.join("f")).unwrap() == expected);
}

fn a_large_file_comes_back_identical(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let content = crate::suites::random::Random::new(ctx.seed).bytes(48 << 20);
    fs::write(&path, &content).unwrap();
    assert!(fs::read(&path).unwrap() == content, "read back differs");
    assert!(
        fs::read(ctx.behind.join("f")).unwrap() == content,
        "the server's file differs"
    );
    // Once more without anything remembered: written behind, read cold.
    ctx.put_behind("cold", &content);
    assert!(
        fs::read(ctx.dir.join("cold")).unwrap() == content,
        "a cold read differs"
    );
}

fn overlapping_writes_end_with_the_last(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let file = open_rw(&path);
    let mut expected = vec![0; 600_000];
    for (round, start) in [0usize, 100_000, 250_000, 50_000, 99_999]
        .into_iter()
        .enumerate()
    {
        let block = vec![b'a' + u8::try_from(round).unwrap(); 300_001];
        file.write_all_at(&block, start as u64).unwrap();
        expected[start..start + block.len()].copy_from_slice(&block);
    }
    drop(file);
    expected.truncate(550_001);
    assert!(fs::read(&path).unwrap() == expected);
    assert!(fs::read(ctx.behind.join("f")).unwrap() == expected);
}

fn two_descriptors_see_each_others_writes(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let (one, two) = (open_rw(&path), open_rw(&path));
    one.write_all_at(b"from one", 0).unwrap();
    let mut buffer = [0; 8];
    two.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"from one");
    two.write_all_at(b"from two", 0).unwrap();
    one.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"from two");
    one.set_len(4).unwrap();
    assert_eq!(two.read_at(&mut buffer, 0).unwrap(), 4);
}

fn fstat_sees_the_size_of_a_write_at_once(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = File::create(&path).unwrap();
    for round in 1..=20u64 {
        file.write_all(&[1; 50_000]).unwrap();
        assert_eq!(file.metadata().unwrap().len(), round * 50_000);
        assert_eq!(fs::metadata(&path).unwrap().len(), round * 50_000);
    }
}

fn fsync_and_fdatasync_put_the_bytes_on_the_server(ctx: &Ctx) {
    let mut file = File::create(ctx.dir.join("f")).unwrap();
    file.write_all(b"first").unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"first");
    file.write_all(b" second").unwrap();
    file.sync_data().unwrap();
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"first second");
    File::open(&ctx.dir).unwrap().sync_all().unwrap();
}

fn close_puts_the_bytes_on_the_server(ctx: &Ctx) {
    let content = vec![3; 3_000_000];
    fs::write(ctx.dir.join("f"), &content).unwrap();
    assert!(fs::read(ctx.behind.join("f")).unwrap() == content);
}

fn vectored_io_is_one_write(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = open_rw(&path);
    let parts = [
        std::io::IoSlice::new(b"one "),
        std::io::IoSlice::new(b"two"),
    ];
    assert_eq!(file.write_vectored(&parts).unwrap(), 7);
    assert_eq!(fs::read(&path).unwrap(), b"one two");
}

fn a_shared_mapping_is_seen_by_read(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    let file = open_rw(&path);
    let mut map = SharedMap::new(file.as_fd(), 10_000).unwrap();
    map.store(5000, b"mapped");
    let mut buffer = [0; 6];
    file.read_exact_at(&mut buffer, 5000).unwrap();
    assert_eq!(&buffer, b"mapped");
    map.sync().unwrap();
    assert_eq!(
        &fs::read(ctx.behind.join("f")).unwrap()[5000..5006],
        b"mapped"
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
}

fn a_write_is_seen_by_a_shared_mapping(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    let file = open_rw(&path);
    let map = SharedMap::new(file.as_fd(), 10_000).unwrap();
    assert_eq!(map.load(100, 3), b"...");
    file.write_all_at(b"new", 100).unwrap();
    assert_eq!(map.load(100, 3), b"new");
}

fn a_shared_mapping_is_there_after_a_remount(ctx: &Ctx) {
    let mount = ctx.plan().mount().unwrap();
    let path = mount.at().join("f");
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    let file = open_rw(&path);
    let mut map = SharedMap::new(file.as_fd(), 10_000).unwrap();
    drop(file);
    // No msync: the pages go back when the mapping ends.
    map.store(9000, b"mapped");
    drop(map);
    mount.unmount().unwrap();
    assert_eq!(
        &fs::read(ctx.behind.join("f")).unwrap()[9000..9006],
        b"mapped"
    );
    let again = ctx.plan().mount().unwrap();
    assert_eq!(
        &fs::read(again.at().join("f")).unwrap()[9000..9006],
        b"mapped"
    );
    again.unmount().unwrap();
}

fn seek_data_and_seek_hole_cover_the_file(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, vec![1; 70_000]).unwrap();
    let file = File::open(&path).unwrap();
    assert_eq!(sys::seek(&file, 0, libc::SEEK_DATA), Ok(0));
    assert_eq!(sys::seek(&file, 100, libc::SEEK_DATA), Ok(100));
    assert_eq!(sys::seek(&file, 0, libc::SEEK_HOLE), Ok(70_000));
    assert_eq!(sys::seek(&file, 70_000, libc::SEEK_DATA), Err(Errno::ENXIO));
    assert_eq!(sys::seek(&file, 70_000, libc::SEEK_HOLE), Err(Errno::ENXIO));
    assert_eq!(sys::seek(&file, -1, libc::SEEK_SET), Err(Errno::EINVAL));
}

fn parallel_readers_and_writers_of_one_file_agree(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let size = 256 * 1024;
    fs::write(&path, vec![0; 8 * size]).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..8u8 {
            let path = &path;
            scope.spawn(move || {
                let file = open_rw(path);
                let start = u64::from(worker) * size as u64;
                for round in 1..=10u8 {
                    let block = vec![worker * 16 + round; size];
                    file.write_all_at(&block, start).unwrap();
                    let mut back = vec![0; size];
                    file.read_exact_at(&mut back, start).unwrap();
                    assert!(back == block, "worker {worker} round {round}");
                }
            });
        }
    });
    let bytes = fs::read(ctx.behind.join("f")).unwrap();
    for (worker, part) in bytes.chunks(size).enumerate() {
        let expected = u8::try_from(worker * 16 + 10).unwrap();
        assert!(part.iter().all(|byte| *byte == expected), "part {worker}");
    }
    assert_eq!(fs::metadata(&path).unwrap().size(), 8 * size as u64);
}
