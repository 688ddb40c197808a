use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Names that meet at prefixes: '-' sorts before '/', 'c' and 0xff after it.
const NAMES: &[&[u8]] = &[
    b"/a", b"/a/b", b"/a/bc", b"/a/b/c", b"/a/b-", b"/a-", b"/a-/b", b"/a0", b"/a0/b", b"/d",
    b"/d/b", b"/d/b/c", b"/d/\xff", b"/\n",
];

fn name() -> impl Strategy<Value = Bytes> {
    select(NAMES).prop_map(Bytes::from_static)
}

/// A change of the groups, each kind as likely as it helps groups to grow.
pub(in crate::fs::cow) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (name(), name()).prop_map(|(source, copy)| Change::Joined { source, copy }),
        3 => (name(), name()).prop_map(|(existing, new)| Change::Linked { existing, new }),
        1 => name().prop_map(Change::Left),
        1 => name().prop_map(Change::OthersLeft),
        1 => name().prop_map(Change::Removed),
        3 => (name(), name()).prop_map(|(from, to)| Change::Renamed { from, to }),
    ]
}

/// Everything there is to know: the groups in the order of their first names, each with its files
/// by age, each with its names in the order in which it got them.
pub(in crate::fs::cow) fn everything(groups: &Groups) -> Vec<Vec<Vec<Bytes>>> {
    let files = |ids: &BTreeSet<u64>| ids.iter().map(|id| groups.names_of(*id).to_vec()).collect();
    let mut all: Vec<_> = groups.groups.values().map(files).collect();
    all.sort();
    all
}

/// The plainest way to say what the table says: rows in the order in which the names came.
#[derive(Debug, Default)]
struct Model {
    rows: Vec<Row>,
    last: u32,
}

#[derive(Debug, Clone)]
struct Row {
    path: Bytes,
    member: u32,
    group: u32,
}

impl Model {
    fn row(&self, path: &[u8]) -> Option<Row> {
        self.rows.iter().find(|row| row.path == path).cloned()
    }

    fn push(&mut self, path: &Bytes, member: u32, group: u32) {
        let path = path.clone();
        self.rows.push(Row {
            path,
            member,
            group,
        });
    }

    /// Groups of one file are none.
    fn settle(&mut self) {
        let rows = self.rows.clone();
        self.rows.retain(|row| {
            let others = |other: &Row| other.group == row.group && other.member != row.member;
            rows.iter().any(others)
        });
    }

    fn same_member(&self, one: &[u8], other: &[u8]) -> bool {
        let member = |path| self.row(path).map(|row| row.member);
        one == other || member(one).is_some() && member(one) == member(other)
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Joined { source, copy } => self.joined(source, copy),
            Change::Linked { existing, new } if self.same_member(existing, new) => {}
            Change::Linked { existing, new } => {
                self.rows.retain(|row| row.path != new);
                if let Some(row) = self.row(existing) {
                    self.push(new, row.member, row.group);
                }
            }
            Change::Left(path) | Change::OthersLeft(path) => {
                if let Some(found) = self.row(path) {
                    self.rows.retain(|row| row.member != found.member);
                }
            }
            Change::Removed(path) => self.rows.retain(|row| row.path != path),
            Change::Renamed { from, to } => self.renamed(from, to),
            Change::Temporary(_) | Change::TemporaryGone(_) => {}
        }
        self.settle();
    }

    fn joined(&mut self, source: &Bytes, copy: &Bytes) {
        if self.same_member(source, copy) {
            return;
        }
        self.rows.retain(|row| row.path != copy);
        let group = match self.row(source) {
            Some(row) => row.group,
            None => {
                self.last += 2;
                self.push(source, self.last - 1, self.last);
                self.last
            }
        };
        self.last += 1;
        self.push(copy, self.last, group);
    }

    fn renamed(&mut self, from: &Bytes, to: &Bytes) {
        let is_in = |path: &[u8], directory: &[u8]| {
            let rest = path.strip_prefix(directory);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let group = |path| self.row(path).map(|row| row.group);
        let is_one_inode = group(from).is_some() && group(from) == group(to);
        if is_in(from, to) || is_in(to, from) || is_one_inode {
            return;
        }
        self.rows.retain(|row| !is_in(&row.path, to));
        self.settle();
        for row in &mut self.rows {
            if is_in(&row.path, from) {
                row.path = [to, &row.path[from.len()..]].concat().into();
            }
        }
    }

    /// As [`everything`].
    fn everything(&self) -> Vec<Vec<Vec<Bytes>>> {
        let groups: BTreeSet<u32> = self.rows.iter().map(|row| row.group).collect();
        let names = |member: u32| {
            let rows = self.rows.iter().filter(|row| row.member == member);
            rows.map(|row| row.path.clone()).collect()
        };
        let files = |group: u32| {
            let rows = self.rows.iter().filter(|row| row.group == group);
            let members: BTreeSet<u32> = rows.map(|row| row.member).collect();
            members.into_iter().map(names).collect()
        };
        let mut all: Vec<_> = groups.into_iter().map(files).collect();
        all.sort();
        all
    }
}

fn rebuilt(groups: &Groups) -> Groups {
    let mut again = Groups::default();
    groups.changes().for_each(|change| again.apply(&change));
    again
}

/// What the questions answer, against what the model says of one name.
fn ask(groups: &Groups, model: &Model, path: &[u8]) {
    let all = model.everything();
    let is_here = |names: &Vec<Bytes>| names.iter().any(|name| name == path);
    let group = all.iter().find(|group| group.iter().any(is_here));
    let (own, others): (Vec<_>, Vec<_>) = group
        .into_iter()
        .flatten()
        .cloned()
        .partition(|names| is_here(names));
    let mut own = own.concat();
    own.sort_by_key(|name| name != path);
    assert_eq!(groups.shares(path), group.is_some());
    assert_eq!(groups.names_of_member(path), own);
    assert_eq!(groups.other_members(path), others);
    let is_original = group.is_some_and(|group| is_here(&group[0]));
    assert_eq!(groups.is_original(path), is_original);
    for other in NAMES {
        let is_there = |name: &Bytes| name == other;
        let together = group.is_some_and(|group| group.iter().flatten().any(is_there));
        assert_eq!(groups.share_storage(path, other), together);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_leave_what_a_plain_model_says(changes in vec(change(), 1..40)) {
        let (mut groups, mut model) = (Groups::default(), Model::default());
        for change in &changes {
            let before = everything(&groups);
            let concerns = groups.concerns(change);
            groups.apply(change);
            model.apply(change);
            let now = everything(&groups);
            prop_assert_eq!(&now, &model.everything(), "after {:?}", change);
            prop_assert!(concerns || before == now, "{:?} is said to change nothing", change);
            prop_assert_eq!(groups.len(), model.rows.len());
            prop_assert_eq!(groups.is_empty(), model.rows.is_empty());
            prop_assert_eq!(groups.members.len(), now.iter().map(Vec::len).sum::<usize>());
            NAMES.iter().for_each(|name| ask(&groups, &model, name));
        }
        prop_assert_eq!(everything(&rebuilt(&groups)), everything(&groups));
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn join(groups: &mut Groups, source: &'static str, copies: &[&'static str]) {
    for copy in copies {
        assert!(groups.joined(&bytes(source), &bytes(copy)));
    }
}

#[test]
fn the_oldest_copy_is_the_original_when_the_original_leaves() {
    let mut groups = Groups::default();
    join(&mut groups, "/a", &["/c", "/b"]);
    assert!(groups.is_original(b"/a") && !groups.is_original(b"/c"));
    groups.left(b"/a");
    assert!(!groups.shares(b"/a") && groups.is_original(b"/c"));
    groups.left(b"/c");
    assert!(groups.is_empty(), "one file shares with nobody");
}

#[test]
fn a_source_keeps_its_other_names_when_its_only_copy_is_made_again() {
    let mut groups = Groups::default();
    join(&mut groups, "/a", &["/copy"]);
    groups.linked(&bytes("/a"), &bytes("/link"));
    join(&mut groups, "/a", &["/copy"]);
    assert!(groups.share_storage(b"/link", b"/copy"));
    assert_eq!(groups.names_of_member(b"/link"), ["/link", "/a"]);
}

#[test]
fn a_renamed_directory_takes_what_is_below_it_and_nothing_beside() {
    let mut groups = Groups::default();
    join(
        &mut groups,
        "/a/b",
        &["/a/b/c", "/a/bc", "/a/b-", "/a/b0", "/x/y"],
    );
    groups.renamed(b"/a/b", b"/x");
    let all = everything(&groups).concat().concat();
    assert_eq!(all, ["/x", "/x/c", "/a/bc", "/a/b-", "/a/b0"]);
}

#[test]
fn nothing_is_renamed_between_two_names_of_one_inode() {
    let mut groups = Groups::default();
    join(&mut groups, "/a", &["/b"]);
    let before = everything(&groups);
    groups.renamed(b"/a", b"/b");
    assert_eq!(everything(&groups), before);
    assert!(groups.share_storage(b"/a", b"/b"));
}

#[test]
fn a_full_table_takes_no_copy_but_every_link() {
    let mut groups = Groups::default();
    let numbered = |number: usize| Bytes::from(format!("/{number:07}"));
    groups.joined(&numbered(0), &numbered(1));
    // Names of the original, put there at once: a million calls take seconds.
    let original = groups.names[&numbered(0)];
    let names = (2..NAMES_MAX - 1).map(|number| (numbered(number), original));
    groups.names.append(&mut names.collect());
    assert!(groups.is_full() && groups.len() < NAMES_MAX);
    assert!(!groups.joined(&numbered(0), &bytes("/copy")));
    assert!(!groups.joined(&bytes("/new"), &numbered(5)));
    assert!(!groups.shares(&numbered(5)), "another file has the name");
    groups.linked(&numbered(0), &bytes("/link"));
    assert!(groups.share_storage(b"/link", &numbered(1)));
}

#[test]
fn a_name_takes_no_more_memory_than_the_bound_says() {
    let (held, groups) = crate::testing::peak(|| {
        let mut groups = Groups::default();
        for number in 0..10_000 {
            let name = |kind| Bytes::from(format!("/{kind:048}/{number:050}"));
            groups.joined(&name(0), &name(1));
        }
        groups
    });
    let each = held / groups.len();
    assert!((300..450).contains(&each), "{each} bytes");
}
