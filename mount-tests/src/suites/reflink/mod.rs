//! `sftpfs reflink`: what programs clone in a mount is cloned by the mount, and nothing else is any
//! different from what it is without.

mod processes;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::case::{Case, Ctx, Suite, case};
use crate::mount::{self, Mount};
use crate::process::{self, Finished, must_run};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "reflink",
        about: "programs below `sftpfs reflink` clone in a mount, and notice nothing else",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let clones = vec![
        case(cp_reflink_always_shares_the_storage),
        case(a_clone_is_seen_by_those_who_have_the_file_open),
        case(a_static_program_clones_from_any_thread),
        case(whole_ranges_are_cloned_and_parts_are_not),
        case(children_and_those_that_outlive_them_clone),
        case(many_programs_clone_at_once),
        case(one_below_another_clones),
        case(another_user_clones),
        case(without_copy_is_hardlink_cp_says_what_it_always_says),
        case(other_filesystems_answer_for_themselves),
        case(btrfs_beside_it_reflinks_by_itself),
    ];
    let all = clones.into_iter().chain(processes::cases());
    all.map(Case::on_mount_only).collect()
}

/// A mount whose copies are links, with a file `a` in it.
struct Place {
    mount: Mount,
    behind: PathBuf,
}

const SIZE: usize = 300_000;

impl Place {
    fn new(ctx: &Ctx) -> Self {
        Self::with(ctx, &["copy_is_hardlink"])
    }

    fn with(ctx: &Ctx, options: &[&str]) -> Self {
        ctx.needs_sftpfs();
        let content: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
        fs::write(ctx.behind.join("a"), content).unwrap();
        let plan = ctx.plan();
        let plan = options
            .iter()
            .fold(plan, |plan, option| plan.option(*option));
        Self {
            mount: plan.mount().unwrap(),
            behind: ctx.behind.clone(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.mount.at().join(name)
    }

    /// Whether the file is what `a` is, in the mount and by its storage on the server.
    fn assert_clone(&self, name: &str) {
        let read = |path: PathBuf| fs::read(path).unwrap();
        assert!(
            read(self.at(name)) == read(self.behind.join("a")),
            "{name} is not as a"
        );
        let inode = |name: &str| fs::metadata(self.behind.join(name)).unwrap().ino();
        assert_eq!(inode(name), inode("a"), "the storage of {name}");
        let here = |name: &str| fs::metadata(self.at(name)).unwrap().ino();
        assert_ne!(
            here(name),
            here("a"),
            "{name} is a file of its own in the mount"
        );
    }

    fn end(self) {
        self.mount.unmount().unwrap();
    }
}

/// `sftpfs reflink --` and these words, in the mount's directory.
fn reflink<S: AsRef<OsStr>>(ctx: &Ctx, dir: &Path, words: &[S]) -> Command {
    let mut command = ctx.lab.program.command();
    command.args(["reflink", "--"]).args(words).current_dir(dir);
    command
}

fn run(ctx: &Ctx, place: &Place, script: &str) -> Finished {
    let words = ["sh", "-c", script];
    process::run(&mut reflink(ctx, place.mount.at(), &words), MINUTE)
}

fn must(ctx: &Ctx, place: &Place, script: &str) -> String {
    let finished = run(ctx, place, script);
    let ending = finished.ending();
    assert!(finished.ok(), "{script}: {ending}: {}", finished.said());
    finished.out
}

fn cp_reflink_always_shares_the_storage(ctx: &Ctx) {
    let place = Place::new(ctx);
    let words = ["cp", "--reflink=always", "a", "b"];
    must_run(&mut reflink(ctx, place.mount.at(), &words), MINUTE);
    place.assert_clone("b");
    // The copy is a copy.
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(place.at("b"))
        .unwrap();
    file.write_all(b"more").unwrap();
    drop(file);
    assert_eq!(fs::read(place.at("a")).unwrap().len(), SIZE);
    assert_eq!(fs::read(place.at("b")).unwrap().len(), SIZE + 4);
    place.end();
}

fn a_clone_is_seen_by_those_who_have_the_file_open(ctx: &Ctx) {
    let place = Place::new(ctx);
    let program = compiled(ctx);
    fs::write(place.at("b"), vec![b'x'; SIZE]).unwrap();
    let read_by = |file: &fs::File| {
        let mut content = vec![0; SIZE];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut content, 0).unwrap();
        content
    };
    let open = fs::File::open(place.at("b")).unwrap();
    assert!(read_by(&open) == vec![b'x'; SIZE]);
    assert_eq!(must(ctx, &place, &format!("TRUNC=1 {program} a b")), "ok\n");
    // The size is the same again: neither it nor what was read before may be remembered.
    assert!(read_by(&open) == fs::read(place.behind.join("a")).unwrap());
    drop(open);
    place.assert_clone("b");
    place.end();
}

fn a_static_program_clones_from_any_thread(ctx: &Ctx) {
    let place = Place::new(ctx);
    let program = compiled(ctx);
    assert_eq!(must(ctx, &place, &format!("{program} a one")), "ok\n");
    assert_eq!(
        must(ctx, &place, &format!("THREAD=1 {program} a two")),
        "ok\n"
    );
    place.assert_clone("one");
    place.assert_clone("two");
    place.end();
}

fn whole_ranges_are_cloned_and_parts_are_not(ctx: &Ctx) {
    let place = Place::new(ctx);
    let program = compiled(ctx);
    assert_eq!(
        must(ctx, &place, &format!("{program} a to-the-end 0 0 0")),
        "ok\n"
    );
    assert_eq!(
        must(ctx, &place, &format!("{program} a by-length 0 {SIZE} 0")),
        "ok\n"
    );
    place.assert_clone("to-the-end");
    place.assert_clone("by-length");
    fs::write(place.at("part"), "as it was").unwrap();
    let refused = format!("{}\n", Errno::EOPNOTSUPP as i32);
    for range in ["0 4096 0", "4096 4096 0", "4096 0 0", "0 0 4096"] {
        assert_eq!(
            must(ctx, &place, &format!("{program} a part {range}")),
            refused,
            "{range}"
        );
    }
    assert_eq!(fs::read(place.at("part")).unwrap(), b"as it was");
    place.end();
}

fn children_and_those_that_outlive_them_clone(ctx: &Ctx) {
    let place = Place::new(ctx);
    must(ctx, &place, "sh -c 'cp --reflink=always a child'; exit $?");
    place.assert_clone("child");
    // In a session of its own, when all that started it have ended.
    must(
        ctx,
        &place,
        "setsid sh -c '(sleep 0.3; cp --reflink=always a late; echo $? > done) &'",
    );
    let end = Instant::now() + Duration::from_secs(10);
    let done = process::wait_for(end, || {
        fs::read_to_string(place.at("done"))
            .ok()
            .filter(|said| !said.is_empty())
    });
    assert_eq!(done.as_deref(), Some("0\n"));
    place.assert_clone("late");
    place.end();
}

fn many_programs_clone_at_once(ctx: &Ctx) {
    let place = Place::new(ctx);
    must(
        ctx,
        &place,
        "seq 60 | xargs -P20 -I{} cp --reflink=always a c{}",
    );
    for number in 1..=60 {
        place.assert_clone(&format!("c{number}"));
    }
    place.end();
}

fn one_below_another_clones(ctx: &Ctx) {
    let place = Place::new(ctx);
    let mut inner = vec![ctx.lab.program.command().get_program().to_owned()];
    inner.extend(["reflink", "--", "cp", "--reflink=always", "a", "b"].map(Into::into));
    must_run(&mut reflink(ctx, place.mount.at(), &inner), MINUTE);
    place.assert_clone("b");
    place.end();
}

fn another_user_clones(ctx: &Ctx) {
    ctx.needs_root("to become an ordinary user");
    let place = Place::with(ctx, &["copy_is_hardlink", "allow_other"]);
    fs::write(place.at("b"), "").unwrap();
    // The same, since a file that is there keeps its mode, which a link could not have.
    for name in ["a", "b"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(place.at(name), mode).unwrap();
    }
    let program = ctx.lab.program.command().get_program().to_owned();
    if !is_reachable_by_others(Path::new(&program)) {
        ctx.skip("the program under test is in a directory that others may not enter");
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(program);
    let script = "cp --reflink=always a b && grep NoNewPrivs /proc/self/status";
    command
        .args(["reflink", "sh", "-c", script])
        .current_dir(place.mount.at());
    assert_eq!(must_run(&mut command, MINUTE), "NoNewPrivs:\t1\n");
    place.assert_clone("b");
    place.end();
}

fn is_reachable_by_others(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    path.ancestors()
        .all(|part| fs::metadata(part).is_ok_and(|found| found.mode() & 1 != 0))
}

fn without_copy_is_hardlink_cp_says_what_it_always_says(ctx: &Ctx) {
    let place = Place::with(ctx, &[]);
    let words = ["cp", "--reflink=always", "a", "b"];
    let plain = process::run(
        Command::new(words[0])
            .args(&words[1..])
            .current_dir(place.mount.at()),
        MINUTE,
    );
    let below = process::run(&mut reflink(ctx, place.mount.at(), &words), MINUTE);
    assert_eq!((below.code(), below.said()), (Some(1), plain.said()));
    assert!(
        below.err.contains("Operation not supported"),
        "{}",
        below.err
    );
    must(ctx, &place, "cp --reflink=auto a b && cmp a b");
    place.end();
}

fn other_filesystems_answer_for_themselves(ctx: &Ctx) {
    ctx.needs_root("to mount a tmpfs");
    let place = Place::new(ctx);
    let program = compiled(ctx);
    let other = ctx.lab.fresh("tmpfs");
    fs::create_dir(&other).unwrap();
    mount(
        Some("none"),
        &other,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    fs::write(other.join("a"), "a").unwrap();
    let here = other.display();
    for (from, to, errno) in [
        (format!("{here}/a"), format!("{here}/b"), Errno::EOPNOTSUPP),
        (format!("{here}/a"), "b".into(), Errno::EXDEV),
        ("a".into(), format!("{here}/b"), Errno::EXDEV),
        ("a".into(), "a".into(), Errno::EOPNOTSUPP),
        (".".into(), "b".into(), Errno::EISDIR),
        ("/dev/null".into(), "/dev/zero".into(), Errno::EINVAL),
    ] {
        let words = [program.as_str(), &from, &to];
        let plain = must_run(
            Command::new(&program)
                .args(&words[1..])
                .current_dir(place.mount.at()),
            MINUTE,
        );
        let below = must_run(&mut reflink(ctx, place.mount.at(), &words), MINUTE);
        assert_eq!(below, plain, "{from} to {to}");
        assert_eq!(below, format!("{}\n", errno as i32), "{from} to {to}");
    }
    place.end();
    mount::detach(&other);
    fs::remove_dir(other).unwrap();
}

fn btrfs_beside_it_reflinks_by_itself(ctx: &Ctx) {
    ctx.needs_root("to mount a btrfs");
    let place = Place::new(ctx);
    let (image, other) = (ctx.lab.fresh("image"), ctx.lab.fresh("btrfs"));
    fs::create_dir(&other).unwrap();
    fs::File::create(&image)
        .unwrap()
        .set_len(128 << 20)
        .unwrap();
    let script = "PATH=$PATH:/usr/sbin:/sbin; mkfs.btrfs -q \"$0\" && mount -o loop \"$0\" \"$1\"";
    let mut make = Command::new("sh");
    make.args(["-c", script]).args([&image, &other]);
    let made = process::run(&mut make, MINUTE);
    if !made.ok() {
        place.end();
        ctx.skip(format!("no btrfs here: {}", process::tail(&made.said(), 1)));
    }
    fs::write(other.join("a"), vec![7; SIZE]).unwrap();
    let at = other.display();
    must(
        ctx,
        &place,
        &format!("cp --reflink=always {at}/a {at}/b && cp --reflink=always a b"),
    );
    place.assert_clone("b");
    must(ctx, &place, &format!("cmp {at}/a {at}/b"));
    place.end();
    mount::detach(&other);
    fs::remove_dir(other).unwrap();
    fs::remove_file(image).unwrap();
}

/// A static program that clones.
fn compiled(ctx: &Ctx) -> String {
    compile(ctx, include_str!("clone.c"))
}

/// A static program; skips the case where there is no compiler.
fn compile(ctx: &Ctx, code: &str) -> String {
    let dir = ctx.lab.fresh("compiled");
    fs::create_dir(&dir).unwrap();
    let (source, program) = (dir.join("program.c"), dir.join("program"));
    fs::write(&source, code).unwrap();
    let mut compiler = Command::new("cc");
    compiler
        .args(["-static", "-pthread", "-o"])
        .args([&program, &source]);
    match compiler.output() {
        Ok(output) if output.status.success() => program.display().to_string(),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            ctx.skip(format!(
                "no static C programs here: {}",
                process::tail(&why, 1)
            ))
        }
        Err(why) => ctx.skip(format!("no C compiler: {why}")),
    }
}

const MINUTE: Duration = Duration::from_secs(60);
