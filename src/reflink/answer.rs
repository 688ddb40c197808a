//! What a program is told that asks for a clone: what the mount says, if it is a clone from one file
//! to another of one mount of ours, else what the kernel says.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::filter::{FICLONE, FICLONERANGE};
use super::kernel::{self, Answer, Clone, Notification, PROBE, Stat};
use super::target::Target;
use crate::mount;

/// Asks the mount where there is one to be asked.
pub(super) fn answer(listener: BorrowedFd<'_>, asked: &Notification) -> Answer {
    if is_probe(asked) {
        return Answer::Ours(Err(Errno::EALREADY));
    }
    // All that is in doubt the kernel decides: it refuses, with the error that fits.
    clone(listener, asked).map_or(Answer::Kernel, Answer::Ours)
}

/// `None` where the kernel is to answer. The files of the program are closed again when this
/// returns, so that the program, once it goes on, can unmount.
fn clone(listener: BorrowedFd<'_>, asked: &Notification) -> Option<nix::Result<()>> {
    let target = Target::open(asked.thread).ok()?;
    let wanted = Wanted::of(asked, |at| target.words(at).ok())?;
    let file = Open::of(target.file(wanted.file).ok()?)?;
    let source = Open::of(target.file(wanted.source).ok()?)?;
    if !kernel::is_waiting(listener, asked.id) {
        return None;
    }
    if !is_clone_within_one_filesystem(&file, &source) || !is_ours(&file.stat) {
        return None;
    }
    let what = Clone {
        source: source.stat.ino,
        source_offset: wanted.source_offset,
        length: wanted.length,
        offset: wanted.offset,
    };
    match kernel::clone(file.fd.as_fd(), what) {
        // A mount by a version without it.
        Err(Errno::ENOTTY | Errno::ENOSYS) => None,
        said => Some(said),
    }
}

fn is_ours(stat: &Stat) -> bool {
    let (major, minor) = stat.device;
    mount::is_ours(major, minor).unwrap_or(false)
}

/// The arguments of FICLONE and FICLONERANGE (ioctl_ficlonerange(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    file: RawFd,
    source: RawFd,
    source_offset: u64,
    length: u64,
    offset: u64,
}

impl Wanted {
    /// `words` reads four integers of the program's memory.
    fn of(asked: &Notification, words: impl Fn(u64) -> Option<[u64; 4]>) -> Option<Self> {
        let [file, request, argument, ..] = asked.args;
        let [source, source_offset, length, offset] = match low_half(request) {
            FICLONE => [argument, 0, 0, 0],
            FICLONERANGE => words(argument)?,
            _ => return None,
        };
        Some(Self {
            file: low_half(file).cast_signed(),
            source: low_half(source).cast_signed(),
            source_offset,
            length,
            offset,
        })
    }
}

fn is_probe(asked: &Notification) -> bool {
    let [file, request, argument, ..] = asked.args;
    low_half(file) == u32::MAX && low_half(request) == FICLONE && argument == PROBE
}

/// All that the kernel looks at of a request and of the number of a file.
#[expect(
    clippy::cast_possible_truncation,
    reason = "it is what the kernel does"
)]
fn low_half(argument: u64) -> u32 {
    argument as u32
}

/// A file that the program has open.
struct Open {
    fd: OwnedFd,
    flags: OFlag,
    stat: Stat,
}

impl Open {
    fn of(fd: OwnedFd) -> Option<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).ok()?);
        let stat = kernel::stat(fd.as_fd()).ok()?;
        Some(Self { fd, flags, stat })
    }
}

/// Two regular files of one filesystem, the one open for writing and the other for reading: what
/// the kernel asks for (vfs_clone_file_range) before it asks a filesystem. A file cloned onto itself
/// is left to it too.
fn is_clone_within_one_filesystem(file: &Open, source: &Open) -> bool {
    let mode = |open: &Open| open.flags & OFlag::O_ACCMODE;
    let is_path = |open: &Open| open.flags.contains(OFlag::O_PATH);
    file.stat.is_regular
        && source.stat.is_regular
        && file.stat.device == source.stat.device
        && file.stat.ino != source.stat.ino
        && mode(file) != OFlag::O_RDONLY
        && mode(source) != OFlag::O_WRONLY
        && !file.flags.contains(OFlag::O_APPEND)
        && !is_path(file)
        && !is_path(source)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use nix::unistd::Pid;

    use super::*;

    fn asked(args: [u64; 3]) -> Notification {
        let [file, request, argument] = args;
        Notification {
            id: 1,
            thread: Pid::this(),
            args: [file, request, argument, 0, 0, 0],
        }
    }

    #[test]
    fn a_whole_clone_names_its_source_by_value() {
        let wanted = Wanted::of(&asked([4, FICLONE.into(), 3]), |_| None).unwrap();
        assert_eq!((wanted.file, wanted.source), (4, 3));
        assert_eq!(
            (wanted.source_offset, wanted.length, wanted.offset),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_range_is_read_from_the_program() {
        let ask = asked([4, FICLONERANGE.into(), 0xBEEF]);
        let wanted = Wanted::of(&ask, |at| (at == 0xBEEF).then_some([3, 10, 20, 30])).unwrap();
        let expected = Wanted {
            file: 4,
            source: 3,
            source_offset: 10,
            length: 20,
            offset: 30,
        };
        assert_eq!(wanted, expected);
        assert_eq!(
            Wanted::of(&ask, |_| None),
            None,
            "memory that cannot be read"
        );
    }

    #[test]
    fn numbers_are_cut_as_the_kernel_cuts_them() {
        let high = 7 << 32;
        let ask = asked([high | 4, high | u64::from(FICLONE), high | 3]);
        let wanted = Wanted::of(&ask, |_| None).unwrap();
        assert_eq!((wanted.file, wanted.source), (4, 3));
        assert_eq!(Wanted::of(&asked([4, 0x5401, 3]), |_| None), None);
    }

    #[test]
    fn only_the_probe_is_the_probe() {
        let none = u32::MAX.into();
        assert!(is_probe(&asked([none, FICLONE.into(), PROBE])));
        assert!(!is_probe(&asked([3, FICLONE.into(), PROBE])));
        assert!(!is_probe(&asked([none, FICLONERANGE.into(), PROBE])));
        assert!(!is_probe(&asked([none, FICLONE.into(), 3])));
    }

    fn open(path: &Path, flags: OFlag) -> Open {
        let mut options = std::fs::File::options();
        match flags & OFlag::O_ACCMODE {
            OFlag::O_RDONLY => options.read(true),
            OFlag::O_WRONLY => options.write(true),
            _ => options.read(true).write(true),
        };
        let rest = (flags & !OFlag::O_ACCMODE).bits();
        Open::of(options.custom_flags(rest).open(path).unwrap().into()).unwrap()
    }

    #[test]
    fn files_are_taken_as_the_kernel_would_take_them() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        let (read, write) = (OFlag::O_RDONLY, OFlag::O_WRONLY);
        let takes = |to: (&Path, OFlag), from: (&Path, OFlag)| {
            is_clone_within_one_filesystem(&open(to.0, to.1), &open(from.0, from.1))
        };
        assert!(takes((&b, write), (&a, read)));
        assert!(takes((&b, OFlag::O_RDWR), (&a, OFlag::O_RDWR)));
        assert!(!takes((&b, read), (&a, read)), "not open for writing");
        assert!(!takes((&b, write), (&a, write)), "not open for reading");
        assert!(!takes((&b, write | OFlag::O_APPEND), (&a, read)));
        assert!(!takes((&b, write), (&a, OFlag::O_PATH)));
        assert!(!takes((&b, OFlag::O_PATH), (&a, read)));
        assert!(!takes((&a, write), (&a, read)), "onto itself");
        assert!(!takes((&b, write), (dir.path(), read)), "a directory");
        assert!(!takes((&b, write), (Path::new("/proc/version"), read)));
    }

    #[test]
    fn what_is_not_on_a_mount_of_ours_is_left_to_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(dir.path(), OFlag::O_RDONLY);
        assert!(!is_ours(&file.stat));
    }
}
