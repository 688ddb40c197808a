//! What the options mean together, once all are read: identities, permissions, what is shown.

use super::mount_options::{IdMapWord, Typed};
use super::{id_files, values};
use crate::fs::{CopyIsHardlink, IdMap, Symlinks};
use crate::mount;
use crate::transport::Way;

/// Decides what single options could not; the error is a sentence for the user.
pub(super) fn settle(typed: &mut Typed) -> Result<(), String> {
    let mount = &mut typed.mount;
    // Without it, everyone who may enter may also read and write with our rights on the server.
    mount.default_permissions |= mount.allow_other;
    if let Some(shown) = typed.source_shown.take() {
        mount.source = shown;
    }
    settle_user(mount)?;
    if typed.password_on_stdin && matches!(mount.target.way, Way::Command(_)) {
        typed
            .warnings
            .push("option 'password_stdin' has no effect with sftp_command".into());
    }
    let files = &typed.mount.fs;
    if files.symlinks == Symlinks::Follow && files.copy_is_hardlink != CopyIsHardlink::Off {
        typed.warnings.push(
            "option 'copy_is_hardlink' has no effect with symlinks=follow: copies are copies"
                .into(),
        );
    }
    settle_id_map(typed)
}

/// `setuid=`: mount(8) has become the user already if it was the user who called it (fstab's
/// `user`); to become another takes root.
fn settle_user(mount: &mut mount::Options) -> Result<(), String> {
    let Some(name) = &mount.run_as else {
        return Ok(());
    };
    let current = nix::unistd::geteuid();
    let wanted = values::user(name).map_err(|why| format!("option 'setuid={name}': {why}"))?;
    if wanted == current.as_raw() {
        mount.run_as = None;
    } else if !current.is_root() {
        return Err(format!(
            "option 'setuid={name}': only root can run it as another user"
        ));
    }
    Ok(())
}

fn settle_id_map(typed: &mut Typed) -> Result<(), String> {
    let has_files = typed.uid_file.is_some() || typed.gid_file.is_some();
    let word = match typed.id_map {
        Some(IdMapWord::File) if !has_files => {
            return Err("option 'idmap=file' needs uidfile=FILE or gidfile=FILE".into());
        }
        Some(word) if word != IdMapWord::File && has_files => {
            return Err("options 'uidfile' and 'gidfile' need idmap=file".into());
        }
        Some(word) => word,
        None if has_files => IdMapWord::File,
        // Root sees numbers as they are, as in backups; a user wants to own their own files.
        None if nix::unistd::getuid().is_root() && typed.mount.run_as.is_none() => IdMapWord::None,
        None => IdMapWord::User,
    };
    typed.mount.fs.id_map = match word {
        IdMapWord::None => IdMap::None,
        IdMapWord::User => who_mounts(typed)?,
        IdMapWord::File => {
            let uids = typed
                .uid_file
                .as_deref()
                .map(|path| id_files::read(path, values::user));
            let gids = typed
                .gid_file
                .as_deref()
                .map(|path| id_files::read(path, values::group));
            IdMap::Table {
                uids: uids.transpose()?.unwrap_or_default(),
                gids: gids.transpose()?.unwrap_or_default(),
                strict: typed.ids_strict,
            }
        }
    };
    Ok(())
}

/// The user who mounts: of `setuid=` if given.
fn who_mounts(typed: &Typed) -> Result<IdMap, String> {
    let Some(name) = &typed.mount.run_as else {
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        return Ok(IdMap::User {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
        });
    };
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(IdMap::User {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }),
        _ => Err(format!(
            "option 'setuid={name}': there is no user '{name}' here"
        )),
    }
}
