//! `sftpfs info FILE...`: where a file is on the server, how its content came to be there, and with
//! whom it shares storage.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};

use super::cp::split;
use super::numbers;
use super::quote::quoted;
use crate::ioctl::{INFO, INFO_SIZE, info as key};

/// What a mount tells about a name: keys and values in the order they came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told(Vec<(String, Vec<u8>)>);

/// Prints what there is to say about each; whether there was for all.
pub(crate) fn info(files: &[OsString]) -> bool {
    let mut is_first = true;
    let mut tell = |file: &OsString| {
        let name = quoted(file.as_bytes());
        let text = match look(file.as_bytes()) {
            Ok(told) => told.lines(),
            Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => {
                eprintln!("sftpfs info: {name} is not on an sftpfs mount");
                return false;
            }
            Err(errno) => {
                eprintln!("sftpfs info: cannot access {name}: {}", errno.desc());
                return false;
            }
        };
        let gap = if std::mem::take(&mut is_first) {
            ""
        } else {
            "\n"
        };
        // Nobody listens any more: no error.
        let _ = write!(std::io::stdout(), "{gap}{name}\n{text}");
        true
    };
    // All are looked at, also after one that failed.
    files.iter().filter(|file| !tell(file)).count() == 0
}

/// Asks the mount. A directory is asked about itself, which is how the root of a mount is known.
fn look(file: &[u8]) -> Result<Told, Errno> {
    let look = fstatat(AT_FDCWD, file, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let is_dir = look.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    let (parent, name) = if is_dir {
        (file, &b"."[..])
    } else {
        split(file)
    };
    let parent = if parent.is_empty() { b"." } else { parent };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = openat(AT_FDCWD, parent, flags, Mode::empty())?;
    about(dir.as_fd(), name)
}

/// What the mount that a directory is in tells about a name in it. ENOTTY if it is no such mount.
pub(super) fn about(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Told, Errno> {
    let size = usize::try_from(INFO_SIZE).map_err(|_| Errno::EINVAL)?;
    let mut buffer = vec![0; size];
    let place = buffer.get_mut(..name.len()).ok_or(Errno::ENAMETOOLONG)?;
    place.copy_from_slice(name);
    let used = super::sys::ioctl(dir, INFO, &mut buffer)?;
    Ok(Told::decode(buffer.get(..used).ok_or(Errno::EIO)?))
}

impl Told {
    /// Keys and values in turn, each ended by a NUL. A key without a value is dropped.
    fn decode(bytes: &[u8]) -> Self {
        let texts: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == 0).collect();
        let text = |bytes: &[u8]| bytes.strip_suffix(b"\0").map(<[u8]>::to_vec);
        let pairs = texts.chunks_exact(2).filter_map(|pair| match pair {
            [name, value] => {
                let name = String::from_utf8_lossy(&text(name)?).into_owned();
                Some((name, text(value)?))
            }
            _ => None,
        });
        Self(pairs.collect())
    }

    fn all<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let of_it = self.0.iter().filter(move |(name, _)| name == wanted);
        of_it.map(|(_, value)| value.as_slice())
    }

    /// How the content came to be there.
    pub(super) fn content(&self) -> Option<&[u8]> {
        self.all(key::CONTENT).next()
    }

    fn number(&self, wanted: &str) -> Option<u64> {
        let text = std::str::from_utf8(self.all(wanted).next()?).ok()?;
        text.parse().ok()
    }

    /// For people.
    fn lines(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: &str| {
            text.push_str(&format!("  {what:<15} {value}\n"));
        };
        for path in self.all(key::PATH) {
            line("on the server:", &quoted(path));
        }
        for content in self.all(key::CONTENT) {
            line("content:", &String::from_utf8_lossy(content));
        }
        for (number, path) in self.all(key::SHARES).enumerate() {
            let what = if number == 0 { "shared with:" } else { "" };
            line(what, &quoted(path));
        }
        let ways = [
            (key::LINKED, "linked"),
            (key::COPIED, "made by the server"),
            (key::STREAMED, "streamed"),
        ];
        let ways = ways.into_iter().filter_map(|(name, way)| {
            let number = self.number(name)?;
            Some(format!("{} {way}", numbers::grouped(number)))
        });
        let ways: Vec<_> = ways.collect();
        if !ways.is_empty() {
            line("copies:", &ways.join(", "));
        }
        if let Some(saved) = self.number(key::BYTES_SAVED) {
            let saved = numbers::bytes(saved);
            line("", &format!("{saved} did not cross the network"));
        }
        for (what, used, wasted) in [
            (
                "files ahead:",
                self.number(key::FILES_USED),
                self.number(key::FILES_WASTED),
            ),
            (
                "listings ahead:",
                self.number(key::DIRECTORIES_USED),
                self.number(key::DIRECTORIES_WASTED),
            ),
        ] {
            let Some((used, wasted)) = used.zip(wasted) else {
                continue;
            };
            let (used, wasted) = (numbers::grouped(used), numbers::grouped(wasted));
            line(what, &format!("{used} used, {wasted} in vain"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mount_tells_is_shown_line_by_line() {
        let told = Told::decode(
            b"path\0/srv/it's\0content\0linked\0shares\0/srv/a\0shares\0/srv/b\0\
              copies linked\x001200\0copies streamed\x003\0bytes saved\x004096\0files ahead used\x0012\0\
              files ahead wasted\x003\0news\0what\0",
        );
        assert_eq!(told.content(), Some(&b"linked"[..]));
        assert_eq!(
            told.lines(),
            "  on the server:  \"/srv/it's\"\n  content:        linked\n  shared with:    '/srv/a'\n\
             \u{20}                 '/srv/b'\n  copies:         1,200 linked, 3 streamed\n\
             \u{20}                 4.0 KiB did not cross the network\n\
             \u{20} files ahead:    12 used, 3 in vain\n"
        );
    }

    #[test]
    fn an_answer_that_is_cut_off_loses_its_last_pair_only() {
        let told = Told::decode(b"path\0/srv\0content\0lin");
        assert_eq!(told, Told(vec![("path".into(), b"/srv".to_vec())]));
        assert_eq!(Told::decode(b""), Told::default());
    }

    #[test]
    fn a_file_elsewhere_is_not_on_a_mount() {
        assert_eq!(look(b"/etc/passwd"), Err(Errno::ENOTTY));
        assert_eq!(look(b"/"), Err(Errno::ENOTTY));
        assert_eq!(look(b"/etc/there is none"), Err(Errno::ENOENT));
    }
}
