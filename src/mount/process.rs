//! What holds for the whole process: no core dumps, no SIGPIPE, the right user.

use std::ffi::CString;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{User, initgroups, setgid, setuid};

use crate::error::{Error, Result};

/// Passwords and keys pass through this memory: neither a core dump nor another process of the
/// same user (ptrace(2)) shall see it.
pub(crate) fn harden() {
    // Both fail only on kernels that lack them; then there is nothing to be done.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = nix::sys::prctl::set_dumpable(false);
    // SIGPIPE is ignored already: Rust's runtime does that before main.
}

/// `-o setuid=USER`: goes on as that user, with the home directory that ssh keys are looked for in.
pub(super) fn become_user(name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        return Ok(());
    };
    let user = User::from_name(name).ok().flatten();
    let user = user.ok_or_else(|| Error::setup(format!("setuid={name}: no such user here")))?;
    let refused = |errno| Error::setup(format!("setuid={name}: {errno}"));
    let c_name = CString::new(name).map_err(|_| Error::setup("setuid: a NUL in the name"))?;
    initgroups(&c_name, user.gid).map_err(refused)?;
    setgid(user.gid).map_err(refused)?;
    setuid(user.uid).map_err(refused)?;
    set_environment(name, &user);
    // A change of user turns core dumps on or off as the system likes; set again.
    harden();
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "the environment is changed before any thread exists"
)]
fn set_environment(name: &str, user: &User) {
    // SAFETY: `run` calls this before the first thread is started.
    unsafe {
        std::env::set_var("HOME", &user.dir);
        std::env::set_var("USER", name);
        std::env::set_var("LOGNAME", name);
        // Of the user who was left: their agent and their runtime directory are not ours.
        std::env::remove_var("SSH_AUTH_SOCK");
        std::env::remove_var("XDG_RUNTIME_DIR");
    }
}
