//! Reads /proc/self/mountinfo: what is mounted where, without touching any of it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type that our mounts have.
pub(super) const TYPE: &str = "fuse.sftpfs";

/// One line of proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// `MAJOR:MINOR`; for FUSE, one number a mount for as long as it lives.
    pub(super) device: String,
    pub(super) mountpoint: PathBuf,
    pub(super) kind: String,
    pub(super) source: String,
    /// Options of the superblock, e.g. `rw,user_id=1000,group_id=1000`.
    pub(super) options: String,
}

impl Mounted {
    /// Whether it is one of ours.
    pub(super) fn is_ours(&self) -> bool {
        self.kind == TYPE
    }

    /// The user who mounted it, if the kernel says so.
    pub(super) fn user_id(&self) -> Option<u32> {
        self.options
            .split(',')
            .find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
    }
}

/// What is visible at this absolute path without symbolic links: of several mounts there, the one
/// on top.
pub(super) fn at(mountpoint: &Path) -> std::io::Result<Option<Mounted>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse(&text)
        .filter(|mounted| mounted.mountpoint == mountpoint)
        .last())
}

/// Everything that is mounted, in the order in which it was.
pub(super) fn all() -> std::io::Result<Vec<Mounted>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?).collect())
}

/// Whether this device, a major and a minor number as statx(2) has them, is a mount of ours.
pub(crate) fn is_ours(major: u32, minor: u32) -> std::io::Result<bool> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(is_ours_in(&text, major, minor))
}

fn is_ours_in(text: &[u8], major: u32, minor: u32) -> bool {
    let device = format!("{major}:{minor}");
    parse(text).any(|mounted| mounted.device == device && mounted.is_ours())
}

fn parse(text: &[u8]) -> impl Iterator<Item = Mounted> {
    text.split(|&b| b == b'\n').filter_map(parse_line)
}

/// `36 35 98:0 /root /mountpoint options [optional fields] - type source super-options`.
fn parse_line(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| field == b"-")? + 6;
    let field = |index: usize| fields.get(index).map(|field| unescape(field));
    let text = |index: usize| Some(String::from_utf8_lossy(&field(index)?).into_owned());
    Some(Mounted {
        device: text(2)?,
        mountpoint: PathBuf::from(OsString::from_vec(field(4)?)),
        kind: text(dash + 1)?,
        source: text(dash + 2)?,
        options: text(dash + 3)?,
    })
}

/// The kernel writes blanks, tabs, newlines, backslashes and `#` as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        match octal(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

fn octal(escaped: &[u8]) -> Option<u8> {
    let digits = escaped.strip_prefix(b"\\")?.get(..3)?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
40 22 0:53 / /mnt/a\\040b rw,nosuid,nodev - fuse.sftpfs alice@h:/x\\134y rw,user_id=1000,group_id=5\n\
41 40 0:54 / /mnt/a\\040b rw shared:2 master:3 - tmpfs tmpfs rw\n\
garbage\n";

    #[test]
    fn a_line_is_taken_apart_and_unescaped() {
        let all: Vec<_> = parse(TEXT).collect();
        assert_eq!(all.len(), 3);
        let ours = &all[1];
        assert!(ours.is_ours());
        assert_eq!(ours.device, "0:53");
        assert_eq!(ours.mountpoint, Path::new("/mnt/a b"));
        assert_eq!(ours.source, "alice@h:/x\\y");
        assert_eq!(ours.user_id(), Some(1000));
    }

    #[test]
    fn of_two_mounts_at_one_place_the_last_is_on_top() {
        let top = parse(TEXT)
            .filter(|m| m.mountpoint == Path::new("/mnt/a b"))
            .last()
            .unwrap();
        assert_eq!(top.kind, "tmpfs");
        assert!(!top.is_ours());
    }

    #[test]
    fn our_mounts_are_known_by_their_device() {
        assert!(is_ours_in(TEXT, 0, 53));
        for (major, minor) in [(0, 54), (0, 5), (53, 0), (8, 1)] {
            assert!(!is_ours_in(TEXT, major, minor));
        }
    }

    #[test]
    fn a_backslash_without_digits_stays() {
        assert_eq!(unescape(b"a\\x\\04"), b"a\\x\\04");
        assert_eq!(unescape(b"\\011\\777"), b"\t\\777");
    }

    #[test]
    fn the_root_is_mounted_somewhere() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
