//! Tests of the repository itself: which layer names which, who may name what, and that the
//! documents say what the program does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cli;

/// Layers from top to bottom; those in one row do not name each other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["reflink"],
    &["mount"],
    &["control", "fuse"],
    &["fs"],
    &["cache", "client"],
    &["sftp", "transport"],
];

/// Beside the layers, and what these may name.
const BESIDE: &[(&str, &[&str])] = &[
    ("error", &["sftp"]),
    ("clock", &[]),
    ("ioctl", &[]),
    ("status", &[]),
    // Programs of the user's side: they know a mount from outside, and only cli runs them.
    ("tools", &["clock", "ioctl", "status"]),
];

/// A word that only some files may write: (word, files or folders below src).
const RESERVED: &[(&str, &[&str])] = &[
    ("fuser::", &["fuse.rs", "fuse/", "mount/"]),
    ("clap::", &["cli/"]),
    ("russh::", &["transport/"]),
    ("ssh2::", &["transport/"]),
    // The wall clock jumps: it is for time stamps of files, for how old those are, and for people.
    // Whatever waits or expires has Instants, which stand still in a sleep and never jump.
    (
        "clock::wall",
        &[
            "fs/write.rs",
            "fs/files.rs",
            "fs/ahead.rs",
            "fs/lazy_open.rs",
            "fs/names.rs",
            "fuse/convert.rs",
            "testing/",
        ],
    ),
    (
        "clock::date",
        &["client/recovery.rs", "cli/status.rs", "testing/"],
    ),
    // logind is asked to hold a sleep off; nobody else talks to a bus.
    ("zbus::", &["mount/sleep.rs"]),
    // mount/ runs fusermount3, and nothing else.
    (
        "process::Command",
        &["transport/", "testing/", "mount/fusermount.rs"],
    ),
    (
        "process::{Command",
        &["transport/", "testing/", "mount/fusermount.rs"],
    ),
    // fusermount3 hands the device over through a socket; syslog is one.
    (
        "unix::net::",
        &[
            "transport/",
            "testing/",
            "control/",
            "mount/fusermount.rs",
            "mount/logging.rs",
        ],
    ),
    ("std::net::", &["transport/", "testing/"]),
    ("tokio::net::", &["transport/", "testing/"]),
];

/// A source file: its path below `src`, its text, and whether it exists in tests only.
struct Source {
    path: String,
    text: String,
    is_test: bool,
}

impl Source {
    /// The module, e.g. `["fs", "read"]` for `fs/read.rs` and `["fs"]` for `fs/mod.rs`.
    fn module(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').filter(|part| *part != "lib").collect()
    }

    /// Lines with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..)
            .zip(self.text.lines())
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Where the tests in it begin, as a line number.
    fn tests_begin(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_begin = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
        match lines.windows(2).position(is_begin) {
            _ if self.is_test => 0,
            Some(line) => line,
            None => usize::MAX,
        }
    }

    /// The modules in it that exist in tests only, as paths below `src` without `.rs`.
    fn test_modules(&self) -> Vec<String> {
        let lines: Vec<&str> = self.text.lines().collect();
        let modules = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
        let names = modules.filter_map(|pair| {
            pair[1]
                .trim_start_matches("pub(crate) ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
        });
        let folder = self
            .path
            .trim_end_matches("lib.rs")
            .trim_end_matches("mod.rs");
        let folder = folder.replace(".rs", "/");
        names.map(|name| format!("{folder}{name}")).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned(),
        is_test: false,
    };
    let mut sources: Vec<_> = files_below(&src, "rs").into_iter().map(read).collect();
    let tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let is_in = |module: &String| {
            let rest = source.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        source.is_test = source.path.ends_with("tests.rs") || tests.iter().any(is_in);
    }
    assert!(
        sources.len() > 20,
        "the sources are not where they are looked for"
    );
    sources
}

fn document(path: &str) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

fn layer_rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&layer))
}

fn is_part(name: &str) -> bool {
    layer_rank(name).is_some() || name == "testing" || BESIDE.iter().any(|(part, _)| *part == name)
}

fn may_name(from: &str, to: &str, is_test: bool) -> bool {
    if to == "testing" {
        return is_test || from == "testing";
    }
    if to == "tools" && from != to {
        return from == "cli";
    }
    // The other end of the wire in tests; and this file.
    if from == to || ["testing", "tidy"].contains(&from) {
        return true;
    }
    if let Some((_, named)) = BESIDE.iter().find(|(part, _)| *part == from) {
        return named.contains(&to);
    }
    match (layer_rank(from), layer_rank(to)) {
        (Some(from), Some(to)) => from < to,
        // error and clock
        _ => true,
    }
}

/// The parts of the crate that a line names: by `crate::` or by `super::` up to the root.
fn parts_named(source: &Source, line: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        named.extend(first_words(&line[at + "crate::".len()..]));
    }
    let depth = source.module().len();
    let climb = "super::".repeat(depth);
    for (at, _) in line.match_indices(&climb) {
        named.extend(first_words(&line[at + climb.len()..]));
    }
    named.retain(|name| is_part(name));
    named
}

/// `a` of `a::b`, and `a`, `b` of `{a::c, b}`.
fn first_words(path: &str) -> Vec<String> {
    let word = |text: &str| {
        let text = text.trim();
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut words = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                words.push(word(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(word(&group[start..]));
    words
}

#[test]
fn a_layer_names_only_layers_below_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some(layer) = module.first().filter(|layer| is_part(layer)) else {
            continue;
        };
        let tests_begin = source.tests_begin();
        for (number, line) in source.code() {
            for named in parts_named(&source, line) {
                if !may_name(layer, &named, number > tests_begin) {
                    wrong.push(format!(
                        "src/{}:{number}: {layer} names {named}",
                        source.path
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_layer_test_sees_what_it_is_to_see() {
    let source = |path: &str| Source {
        path: path.into(),
        text: String::new(),
        is_test: false,
    };
    let named = |path, line| parts_named(&source(path), line);
    assert_eq!(
        named("sftp/wire.rs", "use crate::{client::Client, fs};"),
        ["client", "fs"]
    );
    assert_eq!(
        named("cache/mod.rs", "use super::client::Client;"),
        ["client"]
    );
    assert_eq!(named("fs/read.rs", "super::super::mount::run()"), ["mount"]);
    assert!(
        named("fs/read.rs", "use super::cache;").is_empty(),
        "fs has a file of that name"
    );
    assert!(may_name("fs", "client", false) && !may_name("client", "fs", false));
    assert!(!may_name("cache", "client", false) && !may_name("error", "client", false));
    assert!(may_name("client", "testing", true) && !may_name("client", "testing", false));
    assert!(may_name("cli", "tools", false) && !may_name("mount", "tools", false));
    assert!(may_name("tools", "ioctl", false) && !may_name("tools", "client", false));
}

#[test]
fn only_the_files_that_may_name_libraries_processes_and_sockets_do() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path != "tidy.rs") {
        for (word, places) in RESERVED {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for (number, line) in source.code().filter(|(_, line)| names_crate(line, word)) {
                wrong.push(format!("src/{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether `word` begins a path there: `transport::russh::` and `my_fuser::` are others.
fn names_crate(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let is_longer = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let is_inner = before == Some(':') && !word.contains("net") && !word.contains("process");
        !is_longer && !is_inner
    })
}

#[test]
fn the_test_of_reserved_words_sees_what_it_is_to_see() {
    assert!(names_crate("use fuser::{Config, Session};", "fuser::"));
    assert!(names_crate(
        "let x = std::process::Command::new(y);",
        "process::Command"
    ));
    assert!(!names_crate(
        "use crate::transport::russh::dial;",
        "russh::"
    ));
    assert!(!names_crate("my_ssh2::x()", "ssh2::"));
}

#[test]
fn sources_and_documents_are_ascii() {
    let mut files = files_below(&root().join("src"), "rs");
    files.extend(files_below(&root().join("mount-tests/src"), "rs"));
    for name in [
        "README.md",
        "src/README.md",
        "man/sftpfs.1",
        "man/mount.sftpfs.8",
        "Makefile",
    ] {
        files.extend(Some(root().join(name)).filter(|path| path.exists()));
    }
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read(&file).unwrap();
        for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
            if !line.is_ascii() {
                wrong.push(format!("{}:{number}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not ASCII:\n{}", wrong.join("\n"));
}

#[test]
fn the_map_names_every_source_file() {
    let map = document("src/README.md").expect("src/README.md is the map");
    let missing: Vec<_> = sources()
        .into_iter()
        .filter(|source| !is_on_the_map(&map, &source.path))
        .map(|source| source.path)
        .collect();
    let missing = missing.join("\n");
    assert!(
        missing.is_empty(),
        "src/README.md does not name:\n{missing}"
    );
}

/// A file is named in the paragraph of its layer, `**fs/** -- ...`, and one of the top level
/// anywhere. What tests a file is found beside it.
fn is_on_the_map(map: &str, path: &str) -> bool {
    let Some((layer, _)) = path.split_once('/') else {
        return map.contains(path);
    };
    let name = path.rsplit('/').next().unwrap();
    let paragraph = format!("**{layer}/** --");
    let is_named = |paragraph: &str| {
        let folder = path.trim_end_matches("mod.rs");
        paragraph.contains(&format!("`{name}`"))
            || (name == "mod.rs" && paragraph.contains(folder.trim_start_matches(layer)))
    };
    name == "tests.rs"
        || map
            .split("\n\n")
            .any(|text| text.starts_with(&paragraph) && is_named(text))
}

/// Words behind a macro in a man page, e.g. behind each `Cm` of `.It Cm ro , Cm rw`.
fn words_behind<'a>(line: &'a str, macro_name: &str) -> Vec<&'a str> {
    let words: Vec<&str> = line
        .trim_start_matches('.')
        .split_ascii_whitespace()
        .collect();
    words
        .windows(2)
        .filter(|pair| pair[0] == macro_name)
        .map(|pair| pair[1])
        .collect()
}

/// `name`, `name=WHAT` or `name[=WHAT]` from the words of an `.It Cm` line.
fn options_of_item(line: &str) -> Vec<String> {
    let shown = line
        .trim_start_matches(".It ")
        .replace(" Ns Op = Ns Ar ", "[=");
    let shown = shown.replace(" Ns = Ns Ar ", "=");
    let close = |option: &str| if option.contains('[') { "]" } else { "" };
    shown
        .split(" , ")
        .map(|option| format!("{}{}", option.trim_start_matches("Cm "), close(option)))
        .collect()
}

#[test]
fn the_man_page_lists_the_options_that_the_program_takes() {
    let page = document("man/sftpfs.1").expect("man/sftpfs.1");
    let items = page
        .lines()
        .filter(|line| line.starts_with(".It Cm "))
        .flat_map(options_of_item);
    let described: BTreeSet<String> = items.collect();
    let (with_effect, without) = cli::option_names();
    assert_eq!(
        described, with_effect,
        "options described, and options with an effect"
    );

    let section = page
        .split(".Ss Accepted without effect")
        .nth(1)
        .unwrap_or_default();
    let section = section.split(".Sh ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with(".Cm "));
    let listed: BTreeSet<&str> = lines.flat_map(|line| words_behind(line, "Cm")).collect();
    assert_eq!(
        listed, without,
        "options listed as without effect, and those in the table"
    );
}

#[test]
fn the_man_pages_list_the_flags_that_the_program_takes() {
    for (page, flags) in [
        ("man/sftpfs.1", cli::flags_of_sftpfs()),
        ("man/mount.sftpfs.8", cli::flags_of_mount_helper()),
    ] {
        let text = document(page).expect(page);
        let items = text.lines().filter(|line| line.starts_with(".It Fl "));
        let described: BTreeSet<String> = items
            .flat_map(|line| words_behind(line, "Fl"))
            .map(str::to_owned)
            .collect();
        assert_eq!(described, flags, "{page}");
    }
}

/// The first cells of a table under a heading of README.md, and its rows; none without README.md.
fn rows_under(heading: &str) -> Option<Vec<Vec<String>>> {
    let text = document("README.md")?;
    let is_heading = |line: &str| {
        line.starts_with("##")
            && line
                .trim_start_matches('#')
                .trim()
                .eq_ignore_ascii_case(heading)
    };
    let section: Vec<&str> = text
        .lines()
        .skip_while(|line| !is_heading(line))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .collect();
    let rows = section
        .iter()
        .filter(|line| line.starts_with('|'))
        .map(|line| {
            // In a cell, a bar is written as \|.
            let line = line.replace("\\|", "\u{1}");
            let cells = line.trim_matches('|').split('|');
            cells
                .map(|cell| cell.trim().replace('\u{1}', "|"))
                .collect::<Vec<_>>()
        });
    // The heading of the table and the line of dashes are no rows.
    Some(
        rows.skip(2)
            .filter(|row| !row.iter().all(|cell| cell.starts_with("--")))
            .collect(),
    )
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_names_no_option_that_does_not_exist() {
    let Some(rows) = rows_under("Options") else {
        return;
    };
    assert!(!rows.is_empty(), "README.md has no table under \"Options\"");
    for row in rows {
        for option in quoted(&row[0]) {
            let option = option.trim_start_matches("-o").trim();
            assert!(cli::is_option(option), "README.md: '{option}' is no option");
        }
    }
}

#[test]
fn every_row_of_the_semantics_table_names_a_test_that_exists() {
    let Some(rows) = rows_under("Semantics") else {
        return;
    };
    assert!(
        !rows.is_empty(),
        "README.md has no table under \"Semantics\""
    );
    let mut files = files_below(&root().join("src"), "rs");
    files.extend(files_below(&root().join("mount-tests/src"), "rs"));
    let code: String = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for row in rows {
        let tests = quoted(row.last().map_or("", String::as_str));
        assert!(
            !tests.is_empty(),
            "README.md: no test is named for: {}",
            row[0]
        );
        for test in tests {
            let name = test.rsplit([':', ' ', '/']).next().unwrap_or_default();
            let is_there = [
                format!("fn {name}("),
                format!("\"{name}\""),
                format!("fn {name}<"),
            ];
            let is_there = is_there.iter().any(|text| code.contains(text));
            assert!(is_there, "README.md: there is no test '{test}'");
        }
    }
}
