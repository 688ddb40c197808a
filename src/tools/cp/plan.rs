//! What to do with one source and what is there under its new name. Pure: looks in, decisions out.

use nix::sys::stat::{FileStat, SFlag};
use nix::sys::time::TimeSpec;

use super::options::{Existing, Options};

/// A file's identity here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink,
    /// With the word for people.
    Special(&'static str),
}

/// What lstat(2) or stat(2) told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) kind: Kind,
    pub(super) id: Id,
    pub(super) links: u64,
    pub(super) size: u64,
    /// The 12 bits of chmod(2).
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) atime: TimeSpec,
    pub(super) mtime: TimeSpec,
}

impl From<&FileStat> for Look {
    #[expect(
        clippy::useless_conversion,
        reason = "the types of struct stat differ from machine to machine"
    )]
    fn from(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Dir,
            SFlag::S_IFLNK => Kind::Symlink,
            SFlag::S_IFIFO => Kind::Special("fifo"),
            SFlag::S_IFSOCK => Kind::Special("socket"),
            _ => Kind::Special("device"),
        };
        Self {
            kind,
            id: Id {
                dev: stat.st_dev.into(),
                ino: stat.st_ino.into(),
            },
            links: stat.st_nlink.into(),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            atime: TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
            mtime: TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
        }
    }
}

/// What a name that is there already means for a source that is no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Leave it, and say nothing.
    Leave,
    /// It is the source.
    Same,
    /// A directory does not give way.
    IsDirectory,
    /// A symbolic link to nothing: who knows where the data would go.
    Dangling,
    /// Remove the name, then make it anew.
    Remove,
    /// Write into the file that is there.
    Write {
        /// It is reached through a symbolic link.
        through_link: bool,
    },
}

/// `there` is the name itself; `behind` what it leads to, none if that is nothing.
pub(super) fn over(source: &Look, there: &Look, behind: Option<&Look>, options: &Options) -> Over {
    let is_file = source.kind == Kind::File;
    // Where a file is copied to, links are followed; where a link is, it is about the link.
    let meant = if is_file { behind } else { Some(there) };
    let Some(meant) = meant else {
        return Over::Dangling;
    };
    if meant.id == source.id {
        return Over::Same;
    }
    match options.existing {
        Existing::Keep => return Over::Leave,
        Existing::Update if !is_older(meant, source) => return Over::Leave,
        Existing::Update | Existing::Overwrite => {}
    }
    if meant.kind == Kind::Dir {
        return Over::IsDirectory;
    }
    // Its other names keep their content; and a link is never written through.
    let is_shared = options.preserve_links && meant.links > 1;
    if !is_file || is_shared || matches!(meant.kind, Kind::Special(_)) {
        return Over::Remove;
    }
    Over::Write {
        through_link: there.kind == Kind::Symlink,
    }
}

/// By the second: SFTP has no more, so that a copy on a server and its source elsewhere compare.
fn is_older(there: &Look, source: &Look) -> bool {
    let is_coarse = there.mtime.tv_nsec() == 0 || source.mtime.tv_nsec() == 0;
    if is_coarse {
        return there.mtime.tv_sec() < source.mtime.tv_sec();
    }
    there.mtime < source.mtime
}

/// The mode of a new file whose attributes are not preserved (cp(1) leaves out set-id and sticky).
pub(super) fn new_file_mode(source: u32, umask: u32) -> u32 {
    source & 0o777 & !umask
}

/// A new directory: the mode to make it with, so that we can fill it.
pub(super) fn first_dir_mode(source: u32, preserve: bool) -> u32 {
    match preserve {
        true => 0o700,
        false => source & 0o1777 | 0o700,
    }
}

/// The mode a new directory gets when it is filled, if it is not the one it was made with.
pub(super) fn last_dir_mode(source: u32, made: u32, umask: u32) -> Option<u32> {
    let mode = made & 0o7077 | source & 0o700 & !umask;
    (mode != made).then_some(mode)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tools::cp) fn look(kind: Kind, ino: u64) -> Look {
        Look {
            kind,
            id: Id { dev: 1, ino },
            links: 1,
            size: 1,
            mode: 0o644,
            uid: 0,
            gid: 0,
            atime: TimeSpec::new(0, 0),
            mtime: TimeSpec::new(100, 0),
        }
    }

    #[test]
    fn what_is_there_is_written_into_left_removed_or_refused() {
        let plain = Options::default();
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options
        };
        let keep = with(|o| o.existing = Existing::Keep);
        let update = with(|o| o.existing = Existing::Update);
        let links = with(|o| o.preserve_links = true);
        let (file, other) = (look(Kind::File, 1), look(Kind::File, 2));
        let (link, dir) = (look(Kind::Symlink, 3), look(Kind::Dir, 4));
        let twice = Look { links: 2, ..other };
        let old = Look {
            mtime: TimeSpec::new(99, 5),
            ..other
        };
        let write = Over::Write {
            through_link: false,
        };
        for (source, there, behind, options, expected) in [
            (file, other, Some(other), &plain, write),
            (file, other, Some(other), &keep, Over::Leave),
            (file, other, Some(other), &update, Over::Leave),
            (file, old, Some(old), &update, write),
            (file, twice, Some(twice), &plain, write),
            (file, twice, Some(twice), &links, Over::Remove),
            (file, file, Some(file), &plain, Over::Same),
            (file, file, Some(file), &keep, Over::Same),
            (file, dir, Some(dir), &plain, Over::IsDirectory),
            (file, dir, Some(dir), &keep, Over::Leave),
            (file, link, None, &plain, Over::Dangling),
            (file, link, Some(file), &plain, Over::Same),
            (
                file,
                link,
                Some(other),
                &plain,
                Over::Write { through_link: true },
            ),
            (link, other, Some(other), &plain, Over::Remove),
            (link, dir, Some(dir), &plain, Over::IsDirectory),
            (link, link, Some(other), &plain, Over::Same),
        ] {
            let found = over(&source, &there, behind.as_ref(), options);
            assert_eq!(found, expected, "{source:?} over {there:?}");
        }
    }

    #[test]
    fn a_part_of_a_second_counts_only_where_both_have_one() {
        let at = |sec, nsec| Look {
            mtime: TimeSpec::new(sec, nsec),
            ..look(Kind::File, 1)
        };
        assert!(
            !is_older(&at(5, 0), &at(5, 7)),
            "rounded down by the server"
        );
        assert!(is_older(&at(5, 1), &at(5, 7)));
        assert!(is_older(&at(4, 9), &at(5, 0)));
    }

    #[test]
    fn modes_are_those_of_cp() {
        assert_eq!(new_file_mode(0o4755, 0o022), 0o755);
        assert_eq!(new_file_mode(0o666, 0o027), 0o640);
        assert_eq!(first_dir_mode(0o1555, false), 0o1755);
        assert_eq!(first_dir_mode(0o777, true), 0o700);
        // mkdir(2) took the umask already; the set-group-id bit is the parent's.
        assert_eq!(last_dir_mode(0o555, 0o2755, 0o022), Some(0o2555));
        assert_eq!(last_dir_mode(0o755, 0o755, 0o022), None);
    }
}
