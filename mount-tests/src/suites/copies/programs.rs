//! Real programs make real copies: the content, the mode, the owner and the time are what each
//! program's manual says, or the source's where the copy is a link on the server.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::case::Ctx;
use crate::process;
use crate::suites::site::{
    Copying, LONG_AGO, Look, Site, content, inode, make_old, same, same_content,
};
use crate::wire::Manner;

/// A program that copies a file to a name that is not there yet.
pub(in crate::suites) struct Program {
    pub(super) name: &'static str,
    words: &'static [&'static str],
    /// Whether it hands the whole file to copy_file_range(2).
    hands_over: bool,
    /// The mode of the copy of a file of 0664, with the umask 027.
    mode: u32,
    keeps_owner: bool,
    keeps_time: bool,
}

/// Sources are files of 0664 of a user who is not root.
pub(in crate::suites) const PROGRAMS: &[Program] = &[
    program("cp", &["cp"], 0o640).handed_over(),
    program("cp -p", &["cp", "-p"], 0o664)
        .handed_over()
        .keeping(true, true),
    program("cp -a", &["cp", "-a"], 0o664)
        .handed_over()
        .keeping(true, true),
    program(
        "cp --reflink=auto",
        &["cp", "--reflink=auto", "--sparse=auto"],
        0o640,
    )
    .handed_over(),
    program("cp --reflink=never", &["cp", "--reflink=never"], 0o640),
    program("install", &["install", "-m", "600"], 0o600).handed_over(),
    program("install -p", &["install", "-p", "-m", "664"], 0o664)
        .handed_over()
        .keeping(false, true),
    program("rsync", &["rsync", "-a"], 0o664).keeping(true, true),
    program(
        "rsync --inplace",
        &["rsync", "-a", "--inplace", "--whole-file"],
        0o664,
    )
    .keeping(true, true),
    program(
        "shutil.copy2",
        &[
            "python3",
            "-c",
            "import shutil, sys; shutil.copy2(*sys.argv[1:])",
        ],
        0o664,
    )
    .keeping(false, true),
    program("os.copy_file_range", &["python3", "-c", PYTHON], 0o640).handed_over(),
];

/// What a program of its own may do: one call for everything there is and more, until none comes.
const PYTHON: &str = "\
import os, sys
a = os.open(sys.argv[1], os.O_RDONLY)
b = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)
while os.copy_file_range(a, b, 1 << 40): pass
os.close(b)
";

const fn program(name: &'static str, words: &'static [&'static str], mode: u32) -> Program {
    Program {
        name,
        words,
        hands_over: false,
        mode,
        keeps_owner: false,
        keeps_time: false,
    }
}

impl Program {
    const fn handed_over(mut self) -> Self {
        self.hands_over = true;
        self
    }

    const fn keeping(mut self, owner: bool, time: bool) -> Self {
        self.keeps_owner = owner;
        self.keeps_time = time;
        self
    }

    /// Copies.
    #[track_caller]
    pub(super) fn run(&self, from: &Path, to: &Path) {
        let mut command = Command::new("sh");
        // The system's own, not one that a version manager has put before it.
        command
            .env("PATH", "/usr/bin:/bin:/usr/local/bin")
            .args(["-c", "umask 027; exec \"$@\"", "sh"])
            .args(self.words)
            .arg(from)
            .arg(to);
        process::must_run(&mut command, LIMIT);
    }
}

/// Copies as cp(1) does without options.
#[track_caller]
pub(in crate::suites) fn cp(from: &Path, to: &Path) {
    process::must_run(Command::new("cp").arg(from).arg(to), LIMIT);
}

/// Sizes around what the server copies at a time, and some that no single request holds.
const SIZES: &[usize] = &[0, 1, 65_535, 65_536, 65_537, 1 << 20];
const BIG: usize = 9 << 20;
const HUGE: usize = 70 << 20;

/// The case: each program, several sizes.
pub(in crate::suites) fn copy_whole_files(
    ctx: &Ctx,
    copying: Copying,
    manner: &Manner,
    full: bool,
) {
    let sizes: Vec<usize> = match (ctx.full, full) {
        (true, _) => SIZES.iter().copied().chain([BIG, HUGE]).collect(),
        (false, true) => SIZES.to_vec(),
        (false, false) => vec![65_537],
    };
    for size in sizes.iter().chain(&[BIG, HUGE]) {
        make_source(&ctx.behind.join(format!("{size}")), *size);
    }
    let site = Site::new(ctx, copying, manner.clone());
    for program in PROGRAMS {
        if program.name.starts_with("install") && site.links() && copying == Copying::Shared {
            // It changes the mode of the source, too: that is what shared means.
            continue;
        }
        for size in &sizes {
            one(&site, program, *size);
        }
    }
    // Once is enough for what takes its time.
    one(&site, &PROGRAMS[0], BIG);
    if full {
        one(&site, &PROGRAMS[0], HUGE);
        one(&site, &PROGRAMS[4], BIG);
        one(&site, &PROGRAMS[7], BIG);
    }
    site.end();
}

fn make_source(path: &Path, size: usize) {
    make_old(path, &content("source", size));
    if nix::unistd::getuid().is_root() {
        chown(path, Some(OWNER), Some(OWNER)).unwrap();
    }
}

fn one(site: &Site, program: &Program, size: usize) {
    let what = format!("{}, {size} bytes", program.name);
    let (from, to) = (site.dir.join(size.to_string()), site.dir.join("copy"));
    let behind = |path: &Path| site.behind.join(path.file_name().unwrap());
    let before = Look::at(&from);
    let started = now();
    program.run(&from, &to);
    let copy = Look::at(&to);
    same_content(&what, &copy.content, &before.content);
    same_content(
        &format!("{what}, on the server"),
        &fs::read(behind(&to)).unwrap(),
        &before.content,
    );
    same_content(
        &format!("{what}, the server's source"),
        &fs::read(behind(&from)).unwrap(),
        &before.content,
    );
    let is_link = site.is_mount() && inode(&behind(&from)) == inode(&behind(&to));
    let shall_be =
        site.links() && program.hands_over && size > 0 && !changes_mode(program, site.copying);
    assert_eq!(is_link, shall_be, "{what}: one file on the server");
    if is_link && site.copying == Copying::Shared {
        let mut source = before.clone();
        source.links = 2;
        same(&format!("{what}: the source"), &Look::at(&from), &source);
        same(&format!("{what}: the copy"), &copy, &source);
    } else {
        same(&format!("{what}: the source"), &Look::at(&from), &before);
        assert_ne!(copy.ino, before.ino, "{what}: the inode");
        assert_eq!(copy.links, 1, "{what}: links");
        let as_source = is_link || program.hands_over && site.links() && size > 0;
        attributes(&what, program, as_source, &copy, &before, started);
    }
    // Gone without a trace in the source.
    let source = Look::at(&from);
    fs::remove_file(&to).unwrap();
    let mut after = Look::at(&from);
    if is_link && site.copying == Copying::Shared {
        after.links += 1;
    }
    same(
        &format!("{what}: the source, the copy removed"),
        &after,
        &source,
    );
}

/// install(1) gives the copy the mode 0600 first, whatever it is to have in the end, which breaks
/// what shares storage. A shared link stays one.
fn changes_mode(program: &Program, copying: Copying) -> bool {
    copying == Copying::Cow && program.name.starts_with("install")
}

fn attributes(
    what: &str,
    program: &Program,
    as_source: bool,
    copy: &Look,
    source: &Look,
    started: i64,
) {
    let mode = if as_source && !program.name.starts_with("install") {
        source.mode
    } else {
        program.mode
    };
    assert_eq!(copy.mode, mode, "{what}: the mode, octal {:o}", copy.mode);
    let ours = (
        nix::unistd::getuid().as_raw(),
        nix::unistd::getgid().as_raw(),
    );
    // A link that was given a mode of its own has had the source's owner and time.
    let was_link = as_source && program.name.starts_with("install");
    let owner = if program.keeps_owner || as_source {
        source.owner
    } else {
        ours
    };
    assert!(
        copy.owner == owner || was_link && copy.owner == ours,
        "{what}: the owner {:?} instead of {owner:?}",
        copy.owner
    );
    if program.keeps_time || as_source && !was_link {
        assert_eq!(copy.mtime, LONG_AGO, "{what}: the time");
    } else if !as_source {
        assert!(
            (started - 1..=now() + 1).contains(&copy.mtime),
            "{what}: the time {} is not now",
            copy.mtime
        );
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Somebody who is not root.
const OWNER: u32 = 1234;
const LIMIT: Duration = Duration::from_secs(60);
