//! Which paths may lead to another file than they did at some moment, because of us: those that were
//! moved, or maybe, and those that were renamed for certain. Pure state.
//!
//! What others do on the server is not known here.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::sftp::Request;

/// The latest renames and removals.
#[derive(Debug, Default)]
pub(super) struct Moves {
    count: u64,
    /// The last `latest.len()` of `count`.
    latest: VecDeque<Bytes>,
}

/// A moment in the order of moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl Moves {
    /// Notes that from now on `path`, and what is below it, may be another file, or none. To be
    /// noted before and after what does that is sent: what is opened between may be either file.
    pub(super) fn note(&mut self, path: Bytes) {
        if self.latest.len() == LATEST_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(path);
        self.count += 1;
    }

    pub(super) const fn now(&self) -> Moment {
        Moment(self.count)
    }

    /// Whether `path` may lead elsewhere than it did at that moment.
    pub(super) fn is_moved(&self, path: &[u8], since: Moment) -> bool {
        let moves = self.count - since.0;
        if moves > self.latest.len() as u64 {
            return true;
        }
        let moves = usize::try_from(moves).unwrap_or(usize::MAX);
        self.latest
            .iter()
            .rev()
            .take(moves)
            .any(|moved| is_at_or_below(path, moved))
    }
}

/// The paths that lead elsewhere once a request is done.
pub(super) fn moved_by(request: &Request) -> impl Iterator<Item = &Bytes> {
    let paths = match request {
        Request::Remove { path } => [Some(path), None],
        Request::Rename { from, to } | Request::PosixRename { from, to } => [Some(from), Some(to)],
        _ => [None, None],
    };
    paths.into_iter().flatten()
}

/// The paths that lead elsewhere, with all that is below them, once a request is done.
pub(super) fn renamed_by(request: &Request) -> impl Iterator<Item = &Bytes> {
    let is_rename = matches!(
        request,
        Request::Rename { .. } | Request::PosixRename { .. }
    );
    moved_by(request).filter(move |_| is_rename)
}

/// The directories of what a request removes or renames.
pub(super) fn directories_of(request: &Request) -> impl Iterator<Item = &[u8]> {
    let paths = match request {
        Request::Remove { path } | Request::Rmdir { path } => [Some(path), None],
        Request::Rename { from, to } | Request::PosixRename { from, to } => [Some(from), Some(to)],
        _ => [None, None],
    };
    paths.into_iter().flatten().filter_map(|path| {
        let end = path.iter().rposition(|byte| *byte == b'/')?;
        path.get(..end)
    })
}

/// Whether a path is another one or leads below it.
pub(super) fn is_at_or_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || above.ends_with(b"/"))
}

/// Between the opening of a file and the second one, on another connection, are a few round trips.
/// Where more moves than this happen meanwhile, the file is taken for moved.
const LATEST_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(paths: &[&'static str]) -> Moves {
        let mut moves = Moves::default();
        for path in paths {
            moves.note(Bytes::from_static(path.as_bytes()));
        }
        moves
    }

    #[test]
    fn a_path_is_moved_with_itself_and_with_what_it_is_in() {
        let moves = moved(&["/a/b"]);
        let start = Moves::default().now();
        for path in ["/a/b", "/a/b/c", "/a/b/c/d"] {
            assert!(moves.is_moved(path.as_bytes(), start), "{path}");
        }
        for path in ["/a", "/a/bc", "/a/c", "/b", "a/b"] {
            assert!(!moves.is_moved(path.as_bytes(), start), "{path}");
        }
        assert!(moved(&["/"]).is_moved(b"/a", start));
    }

    #[test]
    fn what_was_moved_before_does_not_count() {
        let mut moves = moved(&["/a", "/b"]);
        let since = moves.now();
        assert!(!moves.is_moved(b"/a", since));
        moves.note(Bytes::from_static(b"/b"));
        assert!(!moves.is_moved(b"/a", since));
        assert!(moves.is_moved(b"/b", since));
    }

    #[test]
    fn what_is_remembered_no_more_counts_for_every_path() {
        let mut moves = Moves::default();
        let since = moves.now();
        for _ in 0..LATEST_MAX {
            moves.note(Bytes::from_static(b"/x"));
        }
        assert!(!moves.is_moved(b"/a", since));
        moves.note(Bytes::from_static(b"/x"));
        assert!(moves.is_moved(b"/a", since));
    }
}
