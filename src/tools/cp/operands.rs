//! Which operand is what: sources, and where each of them goes. Pure, but for one question about
//! the last operand.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use crate::tools::quote::quoted;

/// What `-t` and `-T` say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Target {
    /// The last operand: a directory to copy into if it is one, else the new name.
    #[default]
    Last,
    /// `-t DIR`.
    Into(OsString),
    /// `-T`: the last operand is the new name whatever it is.
    Name,
    /// Both, which makes no sense.
    IntoAndName,
}

/// Where the sources go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// Each under its own name.
    Into(Vec<u8>),
    /// The only source, under this name.
    Name(Vec<u8>),
}

/// Sources in the order they were typed, and where they go; or what is wrong, as cp(1) says it.
/// `is_dir` tells whether a path is a directory, through symbolic links.
pub(super) fn understand(
    mut operands: Vec<OsString>,
    target: &Target,
    is_dir: impl Fn(&[u8]) -> Result<bool, Errno>,
) -> Result<(Vec<OsString>, Destination), String> {
    if *target == Target::IntoAndName {
        let both = "cannot combine --target-directory (-t) and --no-target-directory (-T)";
        return Err(both.into());
    }
    const HELP: &str = "\nTry 'sftpfs cp --help' for more information.";
    if let (Target::Into(dir), false) = (target, operands.is_empty()) {
        let dir = dir.as_bytes();
        return match must_be_dir(is_dir(dir)) {
            Ok(()) => Ok((operands, Destination::Into(dir.to_vec()))),
            Err(why) => Err(format!("target directory {}: {}", quoted(dir), why.desc())),
        };
    }
    let Some(last) = operands.pop() else {
        return Err(format!("missing file operand{HELP}"));
    };
    let last = last.as_bytes();
    if operands.is_empty() {
        let last = quoted(last);
        return Err(format!(
            "missing destination file operand after {last}{HELP}"
        ));
    }
    if *target == Target::Name {
        if operands.len() > 1 {
            return Err(format!("extra operand {}{HELP}", quoted(last)));
        }
        return Ok((operands, Destination::Name(last.to_vec())));
    }
    let found = is_dir(last);
    if operands.len() == 1 && !matches!(found, Ok(true)) {
        return Ok((operands, Destination::Name(last.to_vec())));
    }
    match must_be_dir(found) {
        Ok(()) => Ok((operands, Destination::Into(last.to_vec()))),
        Err(why) => Err(format!("target {}: {}", quoted(last), why.desc())),
    }
}

fn must_be_dir(found: Result<bool, Errno>) -> Result<(), Errno> {
    match found? {
        true => Ok(()),
        false => Err(Errno::ENOTDIR),
    }
}

/// The directory part (empty for none) and the last name; slashes at the end are no name. The
/// root is `.` in itself.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let path = without_slashes(path);
    if path.iter().all(|byte| *byte == b'/') {
        return (path, if path.is_empty() { b"" } else { b"." });
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        None => (b"", path),
        Some(at) => {
            let (parent, name) = path.split_at(at + 1);
            (without_slashes(parent), name)
        }
    }
}

/// Without slashes at its end, unless it is nothing else.
fn without_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/');
    path.get(..end.map_or(1, |at| at + 1)).unwrap_or(path)
}

/// Whether a slash says that it has to be a directory.
pub(super) fn ends_with_slash(path: &[u8]) -> bool {
    path.ends_with(b"/")
}

/// The name in the directory that is copied into. What is called `.` or `..` is merged with it.
pub(super) fn name_inside(name: &[u8]) -> &[u8] {
    match name {
        b".." => b".",
        name => name,
    }
}

/// `dir/name`.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !dir.is_empty() && !dir.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    /// Only `dir` is a directory, and only `file` and `dir` exist.
    fn ask(path: &[u8]) -> Result<bool, Errno> {
        match path {
            b"dir" => Ok(true),
            b"file" => Ok(false),
            _ => Err(Errno::ENOENT),
        }
    }

    fn said(operands: &[&str], target: &Target) -> String {
        let said = understand(words(operands), target, ask).unwrap_err();
        said.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_last_operand_is_a_directory_or_a_name() {
        let into = Destination::Into(b"dir".to_vec());
        let name = |name: &[u8]| Destination::Name(name.to_vec());
        for (operands, target, sources, destination) in [
            (&["a", "dir"][..], Target::Last, &["a"][..], into.clone()),
            (&["a", "b", "dir"], Target::Last, &["a", "b"], into.clone()),
            (&["a", "new"], Target::Last, &["a"], name(b"new")),
            (&["a", "file"], Target::Last, &["a"], name(b"file")),
            (&["a", "dir"], Target::Name, &["a"], name(b"dir")),
            (&["a", "b"], Target::Into("dir".into()), &["a", "b"], into),
        ] {
            assert_eq!(
                understand(words(operands), &target, ask),
                Ok((words(sources), destination)),
                "{operands:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said_as_cp_says_it() {
        let into = |dir: &str| Target::Into(dir.into());
        for (operands, target, text) in [
            (&[][..], Target::Last, "missing file operand"),
            (&[], into("dir"), "missing file operand"),
            (
                &["a"],
                Target::Last,
                "missing destination file operand after 'a'",
            ),
            (
                &["a", "b", "new"],
                Target::Last,
                "target 'new': No such file or directory",
            ),
            (
                &["a", "b", "file"],
                Target::Last,
                "target 'file': Not a directory",
            ),
            (
                &["a"],
                into("file"),
                "target directory 'file': Not a directory",
            ),
            (&["a", "b", "dir"], Target::Name, "extra operand 'dir'"),
            (
                &["a"],
                Target::IntoAndName,
                "cannot combine --target-directory (-t) and --no-target-directory (-T)",
            ),
        ] {
            assert_eq!(said(operands, &target), text);
        }
    }

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        for (path, parent, name) in [
            ("a", "", "a"),
            ("a/b", "a", "b"),
            ("a//b//", "a", "b"),
            ("/a", "/", "a"),
            ("//", "/", "."),
            ("a/.", "a", "."),
            ("..", "", ".."),
            ("", "", ""),
        ] {
            let found = split(path.as_bytes());
            assert_eq!(found, (parent.as_bytes(), name.as_bytes()), "{path}");
        }
        assert_eq!(join(b"", b"a"), b"a");
        assert_eq!(join(b"/", b"a"), b"/a");
        assert_eq!(join(b"a", b"b"), b"a/b");
    }
}
