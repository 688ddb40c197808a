//! Numbers and names as the kernel asks for and forgets them.

use super::*;

fn inodes() -> Inodes {
    Inodes::new(Bytes::from_static(b"/srv"))
}

/// Enters a name as a lookup by the kernel does.
fn look_up(inodes: &mut Inodes, parent: Ino, name: &str, kind: FileKind) -> Ino {
    let ino = inodes.enter(parent, name.as_bytes(), kind);
    inodes.looked_up(ino);
    ino
}

fn file(inodes: &mut Inodes, name: &str) -> Ino {
    look_up(inodes, Ino::ROOT, name, FileKind::Regular)
}

fn path(inodes: &Inodes, ino: Ino) -> Option<String> {
    inodes
        .path(ino)
        .map(|path| String::from_utf8(path.to_vec()).unwrap())
}

#[test]
fn a_path_leads_to_the_node_that_it_is_the_path_of() {
    let mut inodes = inodes();
    let dir = look_up(&mut inodes, Ino::ROOT, "d", FileKind::Directory);
    let inside = look_up(&mut inodes, dir, "f", FileKind::Regular);
    inodes.link(inside, Ino::ROOT, b"g");
    assert_eq!(inodes.at_path(b"/srv/d/f"), Some(inside));
    assert_eq!(inodes.at_path(b"/srv/g"), Some(inside));
    assert_eq!(inodes.at_path(b"/srv"), Some(Ino::ROOT));
    for elsewhere in ["/srvd/f", "/srv/d/x", "/d/f", ""] {
        assert_eq!(inodes.at_path(elsewhere.as_bytes()), None, "{elsewhere}");
    }
    assert_eq!(inodes.paths(inside), ["/srv/d/f", "/srv/g"]);
}

#[test]
fn a_forgotten_file_gets_its_number_again() {
    let mut inodes = inodes();
    let first = file(&mut inodes, "a");
    assert!(inodes.forget(first, 1));
    assert_eq!(file(&mut inodes, "a"), first);
}

#[test]
fn a_renamed_file_keeps_its_number_also_when_forgotten() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    inodes.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b"));
    assert_eq!(path(&inodes, ino).as_deref(), Some("/srv/b"));
    assert!(inodes.forget(ino, 1));
    let other = file(&mut inodes, "a");
    assert_ne!(other, ino, "the number belongs to b");
    assert_eq!(file(&mut inodes, "b"), ino);
}

#[test]
fn renaming_a_directory_moves_what_is_below_it() {
    let mut inodes = inodes();
    let dir = look_up(&mut inodes, Ino::ROOT, "d", FileKind::Directory);
    let below = look_up(&mut inodes, dir, "f", FileKind::Regular);
    inodes.rename((Ino::ROOT, b"d"), (Ino::ROOT, b"e"));
    assert_eq!(path(&inodes, below).as_deref(), Some("/srv/e/f"));
    assert_eq!(inodes.find(dir, b"f"), Some(below));
}

#[test]
fn a_replaced_file_that_is_open_goes_on_without_a_name() {
    let mut inodes = inodes();
    let old = file(&mut inodes, "a");
    inodes.opened(old);
    let new = file(&mut inodes, "new");
    assert_eq!(
        inodes.rename((Ino::ROOT, b"new"), (Ino::ROOT, b"a")),
        Some(old)
    );
    assert_eq!((path(&inodes, old), inodes.links(old)), (None, 0));
    assert_eq!(inodes.find(Ino::ROOT, b"a"), Some(new));
    inodes.forget(old, 1);
    assert_eq!(inodes.kind(old), Some(FileKind::Regular), "still open");
    inodes.closed(old);
    assert_eq!(inodes.kind(old), None);
}

#[test]
fn a_name_that_is_made_again_while_the_old_file_is_open_is_another_file() {
    let mut inodes = inodes();
    let old = file(&mut inodes, "a");
    inodes.remove(Ino::ROOT, b"a");
    assert_ne!(file(&mut inodes, "a"), old);
}

#[test]
fn two_names_of_one_file_are_one_node_with_two_links() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    inodes.link(ino, Ino::ROOT, b"b");
    assert_eq!(inodes.find(Ino::ROOT, b"b"), Some(ino));
    assert_eq!(inodes.links(ino), 2);
    inodes.remove(Ino::ROOT, b"a");
    assert_eq!(
        (path(&inodes, ino).as_deref(), inodes.links(ino)),
        (Some("/srv/b"), 1)
    );
}

#[test]
fn linked_names_share_their_number_also_after_both_were_forgotten() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    inodes.link(ino, Ino::ROOT, b"b");
    inodes.looked_up(ino);
    assert!(inodes.forget(ino, 2));
    assert_eq!([file(&mut inodes, "a"), file(&mut inodes, "b")], [ino, ino]);
}

#[test]
fn one_of_two_names_forgotten_twice_keeps_the_number_that_both_share() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    inodes.link(ino, Ino::ROOT, b"b");
    for name in ["a", "a", "b", "a", "b", "b"] {
        inodes.forget(ino, 9);
        assert_eq!(file(&mut inodes, name), ino);
    }
}

#[test]
fn a_name_made_again_after_its_file_was_forgotten_shares_nothing_with_its_old_links() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    inodes.link(ino, Ino::ROOT, b"b");
    inodes.forget(ino, 1);
    assert_eq!(inodes.remove(Ino::ROOT, b"b"), None, "it was forgotten");
    let made = file(&mut inodes, "b");
    assert_ne!(file(&mut inodes, "a"), made);
}

#[test]
fn a_forgotten_name_that_became_another_kind_of_file_leaves_its_old_links_alone() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    inodes.link(ino, Ino::ROOT, b"b");
    inodes.forget(ino, 1);
    assert_eq!(file(&mut inodes, "a"), ino);
    let dir = look_up(&mut inodes, Ino::ROOT, "b", FileKind::Directory);
    assert_ne!(dir, ino);
    assert_eq!(inodes.kind(ino), Some(FileKind::Regular));
}

#[test]
fn renaming_one_name_of_a_file_to_another_of_its_names_changes_nothing() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    inodes.link(ino, Ino::ROOT, b"b");
    inodes.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b"));
    assert_eq!(inodes.find(Ino::ROOT, b"a"), Some(ino));
    assert_eq!(inodes.links(ino), 2);
}

#[test]
fn the_link_count_of_a_listing_counts_names_elsewhere() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    inodes.listed(ino, 3);
    assert_eq!(inodes.links(ino), 3);
    inodes.link(ino, Ino::ROOT, b"b");
    assert_eq!(inodes.links(ino), 4);
    inodes.remove(Ino::ROOT, b"b");
    assert_eq!(inodes.links(ino), 3);
}

#[test]
fn another_kind_of_file_under_a_name_is_another_file() {
    let mut inodes = inodes();
    let ino = file(&mut inodes, "a");
    let dir = look_up(&mut inodes, Ino::ROOT, "a", FileKind::Directory);
    assert_ne!(dir, ino);
    assert_eq!(inodes.find(Ino::ROOT, b"a"), Some(dir));
}

#[test]
fn a_directory_stays_as_long_as_something_below_it() {
    let mut inodes = inodes();
    let dir = look_up(&mut inodes, Ino::ROOT, "d", FileKind::Directory);
    let below = look_up(&mut inodes, dir, "f", FileKind::Regular);
    assert!(!inodes.forget(dir, 1));
    assert_eq!(path(&inodes, below).as_deref(), Some("/srv/d/f"));
    assert!(inodes.forget(below, 1));
    assert_eq!(inodes.kind(dir), None, "it was only here for f");
}

#[test]
fn paths_below_a_root_directory_have_one_slash() {
    let mut inodes = Inodes::new(Bytes::from_static(b"/"));
    let ino = file(&mut inodes, "a");
    assert_eq!(path(&inodes, ino).as_deref(), Some("/a"));
    assert_eq!(&*inodes.path_below(Ino::ROOT, b"b").unwrap(), b"/b");
}
