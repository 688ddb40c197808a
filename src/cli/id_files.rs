//! `uidfile=` and `gidfile=`: which number on the server is which user or group here.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A table of a million users is 32 MB; more is not such a file.
const FILE_SIZE_MAX: u64 = 32 << 20;

/// Reads lines `name:number`, or passwd(5) and group(5) with the number in the third field: the
/// user or group of that name here (or that number) has this number on the server.
/// `local` finds the number here.
///
/// Returns server number -> our number.
pub(super) fn read(
    path: &Path,
    local: fn(&str) -> Result<u32, String>,
) -> Result<HashMap<u32, u32>, String> {
    let say = |why: String| format!("{}: {why}", path.display());
    let file = File::open(path).map_err(|error| say(error.to_string()))?;
    let about = file.metadata().map_err(|error| say(error.to_string()))?;
    // Whoever can write this file decides who owns what.
    if about.uid() != nix::unistd::Uid::current().as_raw() && about.uid() != 0 {
        return Err(say("must belong to you or to root".into()));
    }
    if about.mode() & 0o022 != 0 {
        return Err(say("must not be writable by others: chmod go-w it".into()));
    }
    let mut text = String::new();
    file.take(FILE_SIZE_MAX)
        .read_to_string(&mut text)
        .map_err(|error| say(error.to_string()))?;
    parse(&text, local).map_err(say)
}

fn parse(text: &str, local: fn(&str) -> Result<u32, String>) -> Result<HashMap<u32, u32>, String> {
    let mut table = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        let name = fields.first().copied().unwrap_or_default();
        let second = fields.get(1).and_then(|field| field.parse::<u32>().ok());
        let third = || fields.get(2).and_then(|field| field.parse().ok());
        let Some(on_server) = second.or_else(third) else {
            return Err(format!("line {number}: '{line}' is not name:number"));
        };
        let here = local(name).map_err(|why| format!("line {number}: {why}"))?;
        table.insert(on_server, here);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn local(name: &str) -> Result<u32, String> {
        match name {
            "root" => Ok(0),
            "alice" => Ok(1000),
            _ => Err(format!("there is no user '{name}' here")),
        }
    }

    #[test]
    fn both_formats_are_read() {
        let text =
            "# ours:theirs\n\nroot:0\nalice:5001\nalice:x:5002:5002:Alice:/home/alice:/bin/sh\n";
        let expected = HashMap::from([(0, 0), (5001, 1000), (5002, 1000)]);
        assert_eq!(parse(text, local), Ok(expected));
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert_eq!(
            parse("root:0\nalice", local).unwrap_err(),
            "line 2: 'alice' is not name:number"
        );
        assert_eq!(
            parse("bob:1", local).unwrap_err(),
            "line 1: there is no user 'bob' here"
        );
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o666)).unwrap();
        let error = read(file.path(), local).unwrap_err();
        assert!(error.contains("must not be writable by others"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/uids"), local).unwrap_err();
        assert!(error.starts_with("/nonexistent/uids: "), "{error}");
    }
}
