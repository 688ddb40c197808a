//! Which source files were met before under another name, and where their copies are. Pure state.

use std::collections::HashMap;

use super::item::{Item, Place};
use super::plan::Id;

/// The table. It grows with the number of files that have several names, not with the tree.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<Id, State>);

#[derive(Debug)]
enum State {
    /// Somebody copies it; these wait to be linked.
    Copying(Vec<Item>),
    Done(Place),
}

/// What to do with a name of a file that has several.
#[derive(Debug)]
pub(super) enum Met {
    /// It is the first: copy it.
    First(Item),
    /// Link it to this.
    Again(Item, Place),
    /// It was taken in; it comes back from [`Links::copied`] or [`Links::failed`].
    Waits,
}

impl Links {
    pub(super) fn meet(&mut self, item: Item) -> Met {
        match self.0.get_mut(&item.look.id) {
            None => {
                self.0.insert(item.look.id, State::Copying(Vec::new()));
                Met::First(item)
            }
            Some(State::Copying(waiting)) => {
                waiting.push(item);
                Met::Waits
            }
            Some(State::Done(place)) => Met::Again(item, place.clone()),
        }
    }

    /// The first is there: gives those that can be linked to it now.
    pub(super) fn copied(&mut self, id: Id, place: Place) -> Vec<Item> {
        match self.0.insert(id, State::Done(place)) {
            Some(State::Copying(waiting)) => waiting,
            Some(State::Done(_)) | None => Vec::new(),
        }
    }

    /// The first could not be copied: gives the one to try next.
    pub(super) fn failed(&mut self, id: Id) -> Option<Item> {
        let Some(State::Copying(waiting)) = self.0.get_mut(&id) else {
            return None;
        };
        let next = waiting.pop();
        if next.is_none() {
            self.0.remove(&id);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::tests::item;
    use super::super::plan::Kind;
    use super::*;

    fn named(name: &[u8]) -> Item {
        item(name, Kind::File, 1)
    }

    fn is_first(met: &Met) -> bool {
        matches!(met, Met::First(_))
    }

    #[test]
    fn later_names_wait_for_the_first_and_are_linked_to_it() {
        let mut links = Links::default();
        let first = named(b"a");
        let id = first.look.id;
        let place = Place {
            node: first.node.clone(),
            name: b"a".to_vec(),
        };
        assert!(is_first(&links.meet(first)));
        assert!(matches!(links.meet(named(b"b")), Met::Waits));
        let waiting = links.copied(id, place);
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].name, b"b");
        let met = links.meet(named(b"c"));
        assert!(matches!(&met, Met::Again(item, to) if item.name == b"c" && to.name == b"a"));
    }

    #[test]
    fn where_the_first_fails_the_next_is_copied() {
        let mut links = Links::default();
        let first = named(b"a");
        let id = first.look.id;
        links.meet(first);
        links.meet(named(b"b"));
        assert_eq!(links.failed(id).unwrap().name, b"b");
        assert!(
            matches!(links.meet(named(b"c")), Met::Waits),
            "b is being copied"
        );
        assert_eq!(links.failed(id).unwrap().name, b"c");
        assert!(links.failed(id).is_none());
        assert!(is_first(&links.meet(named(b"d"))));
    }
}
