//! The server's directory is on one file system or another, or on several, or on a full one.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use super::acts::{append, must, run};
use super::copies::{changes, programs};
use super::site::{
    COPY_DATA, Copying, Look, Site, content, inode, make_old, nothing_temporary, same, same_content,
};
use crate::case::{Case, Ctx, Suite, case};
use crate::process;
use crate::wire::Manner;

/// The suite.
pub fn suite() -> Suite {
    let mut cases: Vec<Case> = Vec::new();
    for kind in ["btrfs", "xfs", "ext4", "tmpfs"] {
        for copying in [Copying::Off, Copying::Cow] {
            cases.push(
                case(move |ctx| copies_are_copies(ctx, kind, copying))
                    .called(format!("copies_are_copies_{}_on_{kind}", copying.word())),
            );
        }
    }
    cases.extend([
        case(a_file_system_below_the_directory_is_no_obstacle),
        case(a_file_with_all_the_links_it_can_have_is_copied),
        case(a_file_that_may_not_be_linked_is_copied),
        case(a_full_disk_is_told_when_the_server_copies),
        case(a_full_disk_is_told_when_the_client_copies),
        case(a_full_disk_is_told_when_a_copy_is_written_to),
    ]);
    Suite {
        name: "copies_on",
        about: "copies are copies whatever file system the server has, also a full one",
        every_transport: false,
        cases: cases
            .into_iter()
            .map(|case| case.on_mount_only().within_s(120))
            .collect(),
    }
}

/// A file system of its own, unmounted when dropped.
pub(super) struct Volume {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl Volume {
    /// One of this kind and size, mounted; skips the case where that is impossible.
    pub(super) fn new(ctx: &Ctx, kind: &str, at: &Path, mib: u64) -> Self {
        ctx.needs_root("to mount a file system");
        fs::create_dir_all(at).unwrap();
        if kind == "tmpfs" {
            return Self::tmpfs(ctx, at, mib << 20);
        }
        let image = ctx.lab.fresh("image");
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let maker = format!("mkfs.{kind}");
        let mut make = Command::new("sh");
        let quiet = if kind == "ext4" { "-F" } else { "-f" };
        // By a shell, as a missing program is no reason to fail.
        make.args(["-c", "exec \"$@\"", "sh", &maker, "-q", quiet])
            .arg(&image);
        let finished = process::run(&mut make, LIMIT);
        if !finished.ok() {
            let _ = fs::remove_file(&image);
            ctx.skip(format!("{maker} is not to be had: {}", finished.said()));
        }
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop", "-t", kind]).arg(&image).arg(at);
        let volume = Self {
            at: at.to_owned(),
            image: Some(image),
        };
        volume.mounted(ctx, &mut mount)
    }

    /// Where it is mounted.
    pub(super) fn at(&self) -> &Path {
        &self.at
    }

    /// A tmpfs of so many bytes.
    pub(super) fn tmpfs(ctx: &Ctx, at: &Path, bytes: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=755")])
            .arg("none")
            .arg(at);
        let volume = Self {
            at: at.to_owned(),
            image: None,
        };
        volume.mounted(ctx, &mut mount)
    }

    fn mounted(self, ctx: &Ctx, mount: &mut Command) -> Self {
        let finished = process::run(mount, LIMIT);
        if !finished.ok() {
            ctx.skip(format!("no such mount here: {}", finished.said()));
        }
        self
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What is still in use goes when that has gone.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        if let Some(image) = &self.image {
            let _ = fs::remove_file(image);
        }
    }
}

fn copies_are_copies(ctx: &Ctx, kind: &str, copying: Copying) {
    let volume = Volume::new(ctx, kind, &ctx.behind.join("volume"), 512);
    type Claim = fn(&Ctx, Copying, &Manner, bool);
    let claims: [(&str, Claim); 2] = [
        ("programs", programs::copy_whole_files),
        ("changes", changes::do_not_show_in_the_other),
    ];
    // What is done to a copy that shares nothing is tried without a file system of its own.
    let count = if copying == Copying::Cow { 2 } else { 1 };
    for (dir, run) in claims.into_iter().take(count) {
        let mut below = ctx.clone();
        below.behind = volume.at.join(dir);
        fs::create_dir(&below.behind).unwrap();
        run(&below, copying, &Manner::default(), false);
        fs::remove_dir_all(&below.behind).unwrap();
    }
}

/// The server says EXDEV, in the words of SFTP: failure.
fn a_file_system_below_the_directory_is_no_obstacle(ctx: &Ctx) {
    for copying in [Copying::Off, Copying::Cow, Copying::Shared] {
        let _volume = Volume::new(ctx, "tmpfs", &ctx.behind.join("volume"), 64);
        let site = Site::new(ctx, copying, Manner::default());
        let at = |name: &str| site.dir.join(name);
        let source = content("exdev", 3_000_000);
        make_old(&at("source"), &source);
        let before = Look::at(&at("source"));
        for words in [&["cp"][..], &["cp", "-p"], &["cp", "--reflink=auto"]] {
            must(words, &[&at("source"), &at("volume/copy")]);
            let copy = fs::read(site.behind.join("volume/copy")).unwrap();
            same_content(&format!("{words:?}"), &copy, &source);
            append(&at("volume/copy"), "more");
            same("the source", &Look::at(&at("source")), &before);
            fs::remove_file(at("volume/copy")).unwrap();
        }
        let finished = run(&["ln"], &[&at("source"), &at("volume/link")]);
        assert_eq!(finished.code(), Some(1), "ln: {}", finished.said());
        assert!(!at("volume/link").exists());
        must(&["cp", "-a"], &[&at("source"), &at("twin")]);
        must(&["mv"], &[&at("source"), &at("volume/moved")]);
        assert!(!at("source").exists());
        let moved = Look::at(&at("volume/moved"));
        same_content("moved", &moved.content, &source);
        assert_eq!((moved.mode, moved.mtime), (before.mode, before.mtime));
        must(&["mv"], &[&at("volume/moved"), &at("source")]);
        append(&at("twin"), "more");
        same_content("moved back", &fs::read(at("source")).unwrap(), &source);
        fs::remove_file(at("source")).unwrap();
        fs::remove_file(at("twin")).unwrap();
        site.end();
    }
}

/// ext4 lets a file have 65,000 names.
fn a_file_with_all_the_links_it_can_have_is_copied(ctx: &Ctx) {
    let volume = Volume::new(ctx, "ext4", &ctx.behind.join("volume"), 128);
    let source = content("emlink", 100_000);
    make_old(&volume.at.join("source"), &source);
    fs::create_dir(volume.at.join("names")).unwrap();
    let mut links = 1;
    while fs::hard_link(
        volume.at.join("source"),
        volume.at.join(format!("names/{links}")),
    )
    .is_ok()
    {
        links += 1;
    }
    assert!((1000..100_000).contains(&links), "{links} links");
    for copying in [Copying::Cow, Copying::Shared] {
        let site = Site::at(ctx, &volume.at, copying, Manner::default());
        must(&["cp"], &[&site.dir.join("source"), &site.dir.join("copy")]);
        let copy = fs::read(volume.at.join("copy")).unwrap();
        same_content("the copy", &copy, &source);
        assert_ne!(
            inode(&volume.at.join("source")),
            inode(&volume.at.join("copy"))
        );
        append(&site.dir.join("copy"), "more");
        let now = fs::read(volume.at.join("source")).unwrap();
        same_content("the source", &now, &source);
        let finished = run(&["ln"], &[&site.dir.join("source"), &site.dir.join("link")]);
        assert_eq!(finished.code(), Some(1), "ln: {}", finished.said());
        fs::remove_file(site.dir.join("copy")).unwrap();
        site.end();
    }
}

/// The kernel's protected_hardlinks: nobody may link what they may not write.
fn a_file_that_may_not_be_linked_is_copied(ctx: &Ctx) {
    ctx.needs_root("to run the server as somebody else");
    let protected = fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap_or_default();
    if protected.trim() != "1" {
        ctx.skip("the kernel's protected_hardlinks is off");
    }
    let server = crate::server::sftp_server_path().expect("OpenSSH's sftp-server");
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        &server.display().to_string(),
    ];
    for copying in [Copying::Cow, Copying::Shared] {
        let manner = Manner {
            command: Some(words.map(str::to_owned).to_vec()),
            ..Manner::default()
        };
        let source = content("protected", 200_000);
        make_old(&ctx.behind.join("source"), &source);
        fs::set_permissions(&ctx.behind, fs::Permissions::from_mode(0o777)).unwrap();
        let site = Site::new(ctx, copying, manner);
        must(&["cp"], &[&site.dir.join("source"), &site.dir.join("copy")]);
        let copy = Look::at(&ctx.behind.join("copy"));
        same_content("the copy", &copy.content, &source);
        assert_eq!(copy.owner.0, 65_534, "whose the copy is");
        append(&site.dir.join("copy"), "more");
        let now = fs::read(ctx.behind.join("source")).unwrap();
        same_content("the source", &now, &source);
        let refused = File::options().append(true).open(site.dir.join("source"));
        assert!(
            refused
                .and_then(|mut file| file.write_all(b"x").and_then(|()| file.sync_all()))
                .is_err(),
            "written without a right to it"
        );
        fs::remove_file(site.dir.join("copy")).unwrap();
        site.end();
    }
}

const MIB: u64 = 1 << 20;
/// How much too little room there is: less than what OpenSSH copies at a time, when it does not
/// notice; and more.
const LACKING: &[u64] = &[4 << 10, 32 << 10, 60 << 10, 64 << 10, 68 << 10, 2 << 20];

/// Copies a file to a disk that is too small by so much; cp says so, and nothing looks whole.
fn too_small(ctx: &Ctx, lacking: u64, manner: &Manner) {
    let len = 5 * MIB;
    let volume = Volume::tmpfs(ctx, &ctx.behind.join("volume"), 2 * len - lacking);
    let source = content("full", usize::try_from(len).unwrap());
    make_old(&volume.at.join("source"), &source);
    let site = Site::at(ctx, &volume.at, Copying::Off, manner.clone());
    let finished = run(&["cp"], &[&site.dir.join("source"), &site.dir.join("copy")]);
    let what = format!("{lacking} bytes too small: {}", finished.said().trim());
    let on_server = fs::metadata(volume.at.join("copy")).map_or(0, |meta| meta.len());
    assert_eq!(
        finished.code(),
        Some(1),
        "{what}; {on_server} of {len} bytes"
    );
    assert!(
        finished.err.contains("No space left on device"),
        "{what}: another error"
    );
    assert!(on_server < len, "{what}: the copy claims to be whole");
    let here = fs::metadata(site.dir.join("copy")).map_or(0, |meta| meta.len());
    assert!(
        here < len,
        "{what}: the copy claims to be whole in the mount"
    );
    let now = fs::read(volume.at.join("source")).unwrap();
    same_content("the source", &now, &source);
    // With room again, it works.
    let _ = fs::remove_file(site.dir.join("copy"));
    fs::write(site.dir.join("source"), &source[..1000]).unwrap();
    must(&["cp"], &[&site.dir.join("source"), &site.dir.join("copy")]);
    site.end();
}

fn a_full_disk_is_told_when_the_server_copies(ctx: &Ctx) {
    ctx.needs_root("to mount a file system");
    for lacking in LACKING {
        too_small(ctx, *lacking, &Manner::default());
    }
}

fn a_full_disk_is_told_when_the_client_copies(ctx: &Ctx) {
    ctx.needs_root("to mount a file system");
    let manner = Manner {
        hidden: vec![COPY_DATA],
        ..Manner::default()
    };
    for lacking in [LACKING[0], LACKING[5]] {
        too_small(ctx, lacking, &manner);
    }
}

/// There is no room to give the written name a file of its own.
fn a_full_disk_is_told_when_a_copy_is_written_to(ctx: &Ctx) {
    ctx.needs_root("to mount a file system");
    for written in ["copy", "source"] {
        let len = 5 * MIB;
        for lacking in [4 << 10, 2 << 20] {
            let volume = Volume::tmpfs(ctx, &ctx.behind.join("volume"), 2 * len - lacking);
            let source = content("full", usize::try_from(len).unwrap());
            make_old(&volume.at.join("source"), &source);
            let site = Site::at(ctx, &volume.at, Copying::Cow, Manner::default());
            must(&["cp"], &[&site.dir.join("source"), &site.dir.join("copy")]);
            let linked = inode(&volume.at.join("source")) == inode(&volume.at.join("copy"));
            assert!(linked, "cp made no link");
            let refused = File::options()
                .append(true)
                .open(site.dir.join(written))
                .and_then(|mut file| {
                    file.write_all(b"more")?;
                    file.sync_all()
                });
            let why = refused.map_err(|why| why.raw_os_error());
            assert_eq!(why, Err(Some(libc::ENOSPC)), "a write without room");
            for name in ["source", "copy"] {
                for place in [&site.dir, &site.behind] {
                    let now = fs::read(place.join(name)).unwrap();
                    same_content(name, &now, &source);
                }
            }
            nothing_temporary(&site.behind);
            // They are still two: with room, one of them is written.
            fs::write(site.dir.join("copy"), "short").unwrap();
            let now = fs::read(volume.at.join("source")).unwrap();
            same_content("the source", &now, &source);
            site.end();
        }
    }
}

const LIMIT: Duration = Duration::from_secs(60);
