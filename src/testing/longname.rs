//! The `ls -l` line of READDIR, as OpenSSH's `ls_file` writes it.

use bytes::Bytes;

use super::server::Options;
use crate::sftp::{Attrs, FileKind};

pub(super) fn longname(options: &Options, name: &[u8], links: u32, attrs: &Attrs) -> Bytes {
    let (user, group) = attrs.owner.unwrap_or_default();
    let column = |id: u32| match options.name_of(id) {
        name if name.is_empty() => id.to_string(),
        name => String::from_utf8_lossy(&name).into_owned(),
    };
    let line = format!(
        "{}  {links:3} {:<8} {:<8} {:8} {} ",
        mode(attrs),
        column(user),
        column(group),
        attrs.size.unwrap_or_default(),
        day(attrs.times.unwrap_or_default().1),
    );
    [line.as_bytes(), name].concat().into()
}

/// strmode(3) without the set-id bits.
fn mode(attrs: &Attrs) -> String {
    let kind = match attrs.kind() {
        Some(FileKind::Directory) => 'd',
        Some(FileKind::Symlink) => 'l',
        _ => '-',
    };
    let mode = attrs.permissions.unwrap_or_default();
    let letter = |bit: u32| match "xwr".chars().nth(usize::try_from(bit % 3).unwrap()) {
        Some(letter) if mode >> bit & 1 == 1 => letter,
        _ => '-',
    };
    std::iter::once(kind)
        .chain((0..9).rev().map(letter))
        .collect()
}

/// Month, day and year of seconds since 1970, as `%b %e  %Y`.
fn day(seconds: u32) -> String {
    // Years of the Gregorian calendar counted from March, so that a leap day is the last one.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let months = [
        "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
    ];
    let year = year + era * 400 + u32::from(month >= 10);
    format!(
        "{} {day:2}  {year}",
        months[usize::try_from(month).unwrap()]
    )
}

#[test]
fn the_line_is_that_of_ls() {
    let attrs = Attrs {
        size: Some(1024),
        owner: Some((0, 77)),
        permissions: Some(0o100_640),
        times: Some((0, 951_782_400)),
        extended: Vec::new(),
    };
    let line = longname(&Options::default(), b"n \xff", 12, &attrs);
    assert_eq!(
        line,
        &b"-rw-r-----   12 root     77           1024 Feb 29  2000 n \xff"[..]
    );
}
