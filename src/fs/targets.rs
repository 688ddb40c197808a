//! What symbolic links say, as the user wants to see it.

use bytes::Bytes;
use nix::errno::Errno;

use super::config::Symlinks;
use super::second_question::Refused;
use super::{Filesystem, Ino};
use crate::error::{Operation, Result};

impl Filesystem {
    /// What a symbolic link says, as the user wants to see it.
    pub(crate) async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let ask = |path| self.client.readlink(path);
        let (_, target) = self.at_path(|| self.path(ino), ask).await?;
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                return Err(self
                    .explain(Operation::Readlink, error, Refused::Other)
                    .await
                    .into());
            }
        };
        let tables = self.tables();
        let depth = tables.inodes.depth(ino).saturating_sub(1);
        let root = tables.inodes.root().clone();
        drop(tables);
        shown_target(self.config().symlinks, &root, depth, target)
    }
}

/// A link's target under a policy; `depth` directories lie between the link's and the root.
///
/// # Errors
/// EPERM for a target outside, where that is not to be shown.
fn shown_target(policy: Symlinks, root: &[u8], depth: usize, target: Bytes) -> Result<Bytes> {
    match policy {
        Symlinks::Raw | Symlinks::Follow => Ok(target),
        Symlinks::Rebase => Ok(rebased(root, depth, &target).unwrap_or(target)),
        Symlinks::Contain => {
            let shown = rebased(root, depth, &target).unwrap_or(target);
            if shown.starts_with(b"/") || leaves(depth, &shown) {
                return Err(Errno::EPERM.into());
            }
            Ok(shown)
        }
    }
}

/// An absolute target below the root, relative to the link.
fn rebased(root: &[u8], depth: usize, target: &[u8]) -> Option<Bytes> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let below = target.strip_prefix(root)?;
    if !below.is_empty() && !below.starts_with(b"/") {
        return None;
    }
    let below = below.strip_prefix(b"/").unwrap_or(below);
    let mut shown = b"../".repeat(depth);
    shown.extend_from_slice(below);
    if shown.is_empty() {
        shown.push(b'.');
    }
    Some(shown.into())
}

/// Whether a relative target may climb out of the root. Up is only known to be where the names say
/// before the first step down, which may be a link that leads anywhere.
fn leaves(depth: usize, target: &[u8]) -> bool {
    let parts = target.split(|byte| *byte == b'/');
    let mut steps = parts.filter(|part| !matches!(*part, b"" | b"."));
    let up = steps.by_ref().take_while(|part| *part == b"..").count();
    up > depth || steps.any(|part| part == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(policy: Symlinks, depth: usize, target: &'static str) -> Result<String> {
        let shown = shown_target(
            policy,
            b"/srv/data",
            depth,
            Bytes::from_static(target.as_bytes()),
        );
        shown.map(|shown| String::from_utf8(shown.to_vec()).unwrap())
    }

    #[test]
    fn a_raw_target_is_what_the_server_says() {
        assert_eq!(
            shown(Symlinks::Raw, 1, "/srv/data/x").as_deref(),
            Ok("/srv/data/x")
        );
    }

    #[test]
    fn an_absolute_target_below_the_root_is_made_relative() {
        assert_eq!(
            shown(Symlinks::Rebase, 0, "/srv/data/x").as_deref(),
            Ok("x")
        );
        assert_eq!(
            shown(Symlinks::Rebase, 2, "/srv/data/x/y").as_deref(),
            Ok("../../x/y")
        );
        assert_eq!(shown(Symlinks::Rebase, 0, "/srv/data").as_deref(), Ok("."));
        assert_eq!(
            shown(Symlinks::Rebase, 1, "/srv/database").as_deref(),
            Ok("/srv/database")
        );
    }

    #[test]
    fn a_contained_target_never_leads_out() {
        for out in ["/etc/passwd", "..", "a/../..", "/srv/data/../x", "a/../b"] {
            assert_eq!(
                shown(Symlinks::Contain, 0, out),
                Err(Errno::EPERM.into()),
                "{out}"
            );
        }
        assert_eq!(shown(Symlinks::Contain, 1, "../x").as_deref(), Ok("../x"));
        assert_eq!(shown(Symlinks::Contain, 0, "a/./b").as_deref(), Ok("a/./b"));
    }
}
