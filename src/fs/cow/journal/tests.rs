use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::*;
use crate::fs::cow::groups::tests::{change, everything};

const IDENTITY: &str = "user@host:22";

type Table = Vec<Vec<Vec<Bytes>>>;

/// A directory for journals, and the one in it.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(place::file_name(IDENTITY))
    }

    fn open(&self) -> (Journal, Groups, Vec<Bytes>) {
        Journal::open(self.directory.path(), IDENTITY).unwrap()
    }

    fn refusal(&self) -> String {
        Journal::open(self.directory.path(), IDENTITY).unwrap_err()
    }

    /// Writes a journal as nobody tidied it.
    fn write(&self, changes: &[Change]) -> Vec<u8> {
        let bytes = journal_of(changes);
        fs::write(self.path(), &bytes).unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600)).unwrap();
        bytes
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<_> = entries.map(|entry| name(entry).unwrap()).collect();
        names.sort();
        names
    }
}

fn journal_of(changes: &[Change]) -> Vec<u8> {
    let mut bytes = header(IDENTITY);
    bytes.extend(changes.iter().flat_map(|change| encode(change).unwrap()));
    bytes
}

/// The table after no change, after the first, and so on.
fn tables(changes: &[Change]) -> Vec<Table> {
    let mut groups = Groups::default();
    let after = |change| {
        groups.apply(change);
        everything(&groups)
    };
    let after: Vec<_> = changes.iter().map(after).collect();
    std::iter::once(Vec::new()).chain(after).collect()
}

fn contents(file: &File) -> (Found, Contents) {
    let mut contents = Contents::default();
    (read(file, IDENTITY, &mut contents).unwrap(), contents)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn copy(source: &'static str, copy: &'static str) -> Change {
    let (source, copy) = (bytes(source), bytes(copy));
    Change::Joined { source, copy }
}

fn few() -> ProptestConfig {
    ProptestConfig {
        // Each tries every byte of a journal. `PROPTEST_CASES` makes it a longer hunt.
        cases: ProptestConfig::default().cases / 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_journal_cut_anywhere_is_the_table_after_its_last_whole_record(
        changes in vec(change(), 1..16),
        cut in any::<Index>(),
    ) {
        let (place, tables) = (Place::new(), tables(&changes));
        let written = place.write(&changes);
        let begin = header(IDENTITY).len();
        let ends: Vec<_> = (0..=changes.len()).map(|n| ends_at(&changes, n)).collect();
        let whole = |size| ends.iter().filter(|end| **end <= size).count().saturating_sub(1);
        let file = fs::OpenOptions::new().write(true).read(true).open(place.path()).unwrap();
        for size in (0..written.len()).rev() {
            file.set_len(size as u64).unwrap();
            let (found, contents) = contents(&file);
            prop_assert_eq!(&everything(&contents.groups), &tables[whole(size)], "{} bytes", size);
            let rest = if ends.contains(&size) { Rest::Nothing } else { Rest::Torn };
            let expected = if size < begin { Found::Foreign } else { Found::Ours(rest) };
            prop_assert_eq!(found, expected);
        }
        let size = begin + cut.index(written.len() - begin);
        fs::write(place.path(), &written[..size]).unwrap();
        let (_journal, groups, _) = place.open();
        prop_assert_eq!(everything(&groups), tables[whole(size)].clone());
        prop_assert!(!place.names().iter().any(|name| name.ends_with(".damaged")));
    }

    #[test]
    fn a_changed_byte_anywhere_leaves_the_table_as_it_once_was(
        changes in vec(change(), 1..16),
        flip in 1_u8..,
        where_to in any::<Index>(),
    ) {
        let (place, tables) = (Place::new(), tables(&changes));
        let written = place.write(&changes);
        let file = fs::OpenOptions::new().write(true).read(true).open(place.path()).unwrap();
        let begin = header(IDENTITY).len();
        let ends: Vec<_> = (0..=changes.len()).map(|n| ends_at(&changes, n)).collect();
        for (at, byte) in written.iter().enumerate() {
            file.write_all_at(&[byte ^ flip], at as u64).unwrap();
            let (found, contents) = contents(&file);
            let whole = ends.iter().filter(|end| **end <= at).count().saturating_sub(1);
            prop_assert_eq!(contents.records, whole);
            prop_assert_eq!(everything(&contents.groups), tables[contents.records].clone());
            let expected = if at < begin { Found::Foreign } else { Found::Ours(Rest::Damaged) };
            prop_assert_eq!(found, expected, "byte {}", at);
            file.write_all_at(&[*byte], at as u64).unwrap();
        }
        let mut changed = written;
        let at = where_to.index(changed.len());
        changed[at] ^= flip;
        file.write_all_at(&changed, 0).unwrap();
        let (_, before) = contents(&file);
        let (journal, groups, _) = place.open();
        prop_assert_eq!(everything(&groups), everything(&before.groups));
        prop_assert!(journal.record(&copy("/new", "/copy"), true).is_ok());
        let aside = fs::read(place::with_ending(&place.path(), ".damaged")).unwrap();
        prop_assert_eq!(aside, changed);
    }

    #[test]
    fn several_mounts_and_the_next_one_have_one_table(
        steps in vec((0..3_usize, change(), any::<bool>()), 1..60)
    ) {
        let place = Place::new();
        let mut mounts: Vec<_> = (0..3).map(|_| place.open()).collect();
        let mut all = Vec::new();
        for (who, change, looks) in steps {
            let (journal, groups, _) = &mut mounts[who];
            journal.record(&change, false).unwrap();
            all.push(change);
            if looks {
                journal.catch_up(groups);
                prop_assert_eq!(everything(groups), tables(&all).pop().unwrap());
            }
        }
        let expected = tables(&all).pop().unwrap();
        for (journal, groups, _) in &mut mounts {
            journal.catch_up(groups);
            prop_assert_eq!(everything(groups), expected.clone());
        }
        prop_assert_eq!(everything(&place.open().1), expected.clone());
        drop(mounts);
        // The first of these is alone and rewrites the file.
        for _ in 0..2 {
            prop_assert_eq!(everything(&place.open().1), expected.clone());
        }
    }
}

/// Where the record of the `n`th change ends.
fn ends_at(changes: &[Change], n: usize) -> usize {
    journal_of(&changes[..n]).len()
}

#[test]
fn who_is_alone_makes_the_journal_as_short_as_it_can_be() {
    let place = Place::new();
    let mut changes = vec![copy("/a", "/b"), copy("/a", "/c"), copy("/x", "/y")];
    changes.push(Change::Temporary(bytes("/t")));
    changes.extend([Change::Left(bytes("/x")), Change::Removed(bytes("/b"))]);
    place.write(&changes);
    // A killed process may have left this one.
    fs::write(place::with_ending(&place.path(), ".new"), "old").unwrap();
    let first = place.open();
    let short = journal_of(&[copy("/a", "/c"), Change::Temporary(bytes("/t"))]);
    assert_eq!(fs::read(place.path()).unwrap(), short);
    let inode = |path| fs::metadata(path).unwrap().ino();
    let before = inode(place.path());
    drop(first);
    let second = place.open();
    assert_eq!(inode(place.path()), before, "nothing was to be done");
    // Not alone: the file stays as it is.
    second.0.record(&Change::Left(bytes("/a")), true).unwrap();
    let third = place.open();
    assert!(third.1.is_empty());
    assert_eq!(inode(place.path()), before);
    drop((second, third));
    place.open();
    assert_ne!(inode(place.path()), before);
    let name = place::file_name(IDENTITY);
    assert_eq!(place.names(), [name.clone(), name + ".lock"]);
}

#[test]
fn leftover_temporaries_are_told_to_who_is_alone_until_they_are_gone() {
    let place = Place::new();
    let (journal, ..) = place.open();
    for name in ["/t1", "/t2", "/t3"] {
        let made = Change::Temporary(bytes(name));
        journal.record(&made, false).unwrap();
    }
    let gone = |name| Change::TemporaryGone(bytes(name));
    journal.record(&gone("/t2"), false).unwrap();
    assert_eq!(place.open().2, [""; 0], "they may be in use");
    drop(journal);
    assert_eq!(place.open().2, ["/t1", "/t3"]);
    let (journal, _, left) = place.open();
    assert_eq!(left, ["/t1", "/t3"], "nobody said that they are gone");
    journal.record(&gone("/t1"), false).unwrap();
    journal.record(&gone("/t3"), false).unwrap();
    drop(journal);
    assert_eq!(place.open().2, [""; 0]);
}

#[test]
fn half_a_record_waits_for_its_other_half() {
    let place = Place::new();
    let (journal, mut groups, _) = place.open();
    journal.record(&copy("/a", "/b"), false).unwrap();
    let record = encode(&copy("/c", "/d")).unwrap();
    let mut other = fs::OpenOptions::new()
        .append(true)
        .open(place.path())
        .unwrap();
    for byte in &record {
        assert!(!groups.shares(b"/d"));
        other.write_all(&[*byte]).unwrap();
        journal.catch_up(&mut groups);
    }
    assert!(groups.shares(b"/d") && groups.shares(b"/b"));
}

#[test]
fn half_a_record_of_a_dead_process_is_written_over() {
    let place = Place::new();
    let (journal, mut groups, _) = place.open();
    let record = encode(&copy("/c", "/d")).unwrap();
    for half in [&record[..record.len() - 1], &record[..3], &[0; 5000]] {
        let mut other = fs::OpenOptions::new()
            .append(true)
            .open(place.path())
            .unwrap();
        other.write_all(half).unwrap();
        journal.catch_up(&mut groups);
        journal.record(&copy("/a", "/b"), false).unwrap();
    }
    journal.catch_up(&mut groups);
    assert_eq!(everything(&groups), [[["/a"], ["/b"]]]);
    assert_eq!(everything(&place.open().1), everything(&groups));
    let whole = journal_of(&vec![copy("/a", "/b"); 3]);
    assert_eq!(fs::read(place.path()).unwrap(), whole);
}

#[test]
fn nobody_takes_a_record_that_is_being_written_for_half_a_record() {
    let place = Place::new();
    let (journal, ..) = place.open();
    let record = encode(&copy("/c", "/d")).unwrap();
    let mut other = fs::OpenOptions::new()
        .append(true)
        .open(place.path())
        .unwrap();
    other.lock().unwrap();
    other.write_all(&record[..20]).unwrap();
    let waits = format!(":{} 0 EOF", other.metadata().unwrap().ino());
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| journal.record(&copy("/a", "/b"), false).unwrap());
        let is_waiting = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let mut lines = locks.lines();
            lines.any(|line| line.contains("->") && line.ends_with(&waits))
        };
        while !is_waiting() {
            assert!(!thread.is_finished(), "it is not its turn");
            std::thread::yield_now();
        }
        other.write_all(&record[20..]).unwrap();
        other.unlock().unwrap();
    });
    let both = journal_of(&[copy("/c", "/d"), copy("/a", "/b")]);
    assert_eq!(fs::read(place.path()).unwrap(), both);
}

#[test]
fn many_who_append_at_once_lose_nothing() {
    let place = Place::new();
    let number = |thread: usize, number: usize| Bytes::from(format!("/{thread}/{number}"));
    let (journal, mut groups, _) = place.open();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let place = &place;
            scope.spawn(move || {
                let (journal, mut groups, _) = place.open();
                for n in 0..100 {
                    let source = bytes("/source");
                    let copy = number(thread, n);
                    let joined = Change::Joined { source, copy };
                    journal.record(&joined, n % 10 == 0).unwrap();
                    journal.catch_up(&mut groups);
                    assert!(groups.share_storage(b"/source", &number(thread, n)));
                }
            });
        }
    });
    journal.catch_up(&mut groups);
    assert_eq!(groups.len(), 401);
    assert_eq!(place.open().1.len(), 401);
}

#[test]
fn a_damaged_journal_in_use_is_left_to_who_is_alone() {
    let place = Place::new();
    let (journal, mut groups, _) = place.open();
    journal.record(&copy("/a", "/b"), true).unwrap();
    let mut other = fs::OpenOptions::new()
        .append(true)
        .open(place.path())
        .unwrap();
    other.write_all(b"0123456789 0123456789").unwrap();
    assert!(place.refusal().contains("is damaged"));
    journal.catch_up(&mut groups);
    assert!(groups.shares(b"/b"), "what was whole is known");
    let refused = journal.record(&copy("/c", "/d"), true).unwrap_err();
    assert!(refused.to_string().contains("unmount"), "{refused}");
    drop(journal);
    let (journal, groups, _) = place.open();
    assert_eq!(everything(&groups), [[["/a"], ["/b"]]]);
    journal.record(&copy("/c", "/d"), true).unwrap();
    let ends = |end| move |name: &String| name.ends_with(end);
    assert!(place.names().iter().any(ends(".damaged")));
}

#[test]
fn a_journal_that_was_removed_takes_no_more_records() {
    let place = Place::new();
    let (journal, ..) = place.open();
    fs::remove_file(place.path()).unwrap();
    let refused = journal.record(&copy("/a", "/b"), false).unwrap_err();
    assert!(refused.to_string().contains("was removed"), "{refused}");
    assert!(place.refusal().contains("lost it"));
    drop(journal);
    place.open().0.record(&copy("/a", "/b"), false).unwrap();
}

#[test]
fn a_journal_of_another_server_is_set_aside() {
    let place = Place::new();
    let other = "user@other:22";
    let (journal, ..) = Journal::open(place.directory.path(), other).unwrap();
    journal.record(&copy("/a", "/b"), true).unwrap();
    fs::rename(&journal.path, place.path()).unwrap();
    drop(journal);
    assert!(place.open().1.is_empty());
    let ends = |name: &String| name.ends_with(".damaged");
    assert!(place.names().iter().any(ends));
}

#[test]
fn what_others_may_write_is_not_believed() {
    let place = Place::new();
    drop(place.open());
    let directory = place.directory.path();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&place.path()), 0o600);
    for path in [place.path(), directory.to_owned()] {
        let before = mode(&path);
        for open_to in [0o020, 0o002] {
            let permissions = fs::Permissions::from_mode(before | open_to);
            fs::set_permissions(&path, permissions).unwrap();
            assert!(place.refusal().contains("others may write"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
    }
    fs::rename(place.path(), directory.join("elsewhere")).unwrap();
    symlink("elsewhere", place.path()).unwrap();
    assert!(place.refusal().contains("symbolic link"));
    fs::remove_file(place.path()).unwrap();
    fs::create_dir(place.path()).unwrap();
    assert!(place.refusal().contains("directory"), "{}", place.refusal());
}

#[test]
fn what_belongs_to_somebody_else_is_not_believed() {
    let place = Place::new();
    drop(place.open());
    // Only root can give it away; for others root's directory is somebody else's.
    let refused = match chown(place.path(), Some(12_345), None) {
        Ok(()) => place.refusal(),
        Err(_) => Journal::open(Path::new("/usr"), IDENTITY).unwrap_err(),
    };
    assert!(refused.contains("not to you"), "{refused}");
}

#[test]
fn a_new_directory_is_for_its_user_alone() {
    let place = Place::new();
    let directory = place.directory.path().join("state/sftpfs/copies");
    Journal::open(&directory, IDENTITY).unwrap();
    for path in directory.ancestors().take(3) {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn paths_of_any_bytes_and_size_are_recorded_or_refused() {
    let place = Place::new();
    let (journal, ..) = place.open();
    let path = |size: usize, byte: u8| Bytes::from(vec![byte; size]);
    let both = |from, to| Change::Renamed { from, to };
    let refused = [path(0, b'x'), path((32 << 10) + 1, b'x'), bytes("/a\0b")];
    for bad in refused {
        let whole = || bytes("/a");
        for change in [both(bad.clone(), whole()), both(whole(), bad.clone())] {
            journal.record(&change, false).unwrap_err();
        }
        journal.record(&Change::Removed(bad), false).unwrap_err();
    }
    // The longest, several times the size of what is read at once.
    let longest = |byte| path(32 << 10, byte);
    for byte in 1..=255 {
        let (source, copy) = (longest(byte), longest(byte.wrapping_add(1).max(1)));
        journal
            .record(&Change::Joined { source, copy }, false)
            .unwrap();
    }
    let (_journal, groups, _) = place.open();
    assert_eq!(groups.len(), 255);
}

#[test]
fn a_journal_that_is_too_large_still_takes_what_ends_sharing() {
    for end in [0, SIZE_MAX - 1, SIZE_MAX] {
        let is_small = end < SIZE_MAX;
        assert_eq!(has_room(end, &copy("/a", "/b")), is_small);
        assert_eq!(has_room(end, &Change::Temporary(bytes("/t"))), is_small);
        assert!(has_room(end, &Change::TemporaryGone(bytes("/t"))));
        assert!(has_room(end, &Change::Left(bytes("/a"))));
    }
}
