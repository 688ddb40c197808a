//! Where the user's programs keep what must outlive them.

use std::path::PathBuf;

use nix::unistd::{User, geteuid};

/// `$XDG_STATE_HOME/sftpfs`, where `~/.local/state` stands in for the variable (XDG Base Directory
/// Specification). For one who became another user that one's home counts, and not the environment.
pub(super) fn state_directory(is_other_user: bool) -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|_| !is_other_user)
            .map(PathBuf::from)
    };
    let home = || Some(User::from_uid(geteuid()).ok()??.dir);
    directory_of(variable("XDG_STATE_HOME"), variable("HOME"), home)
}

/// The specification has relative paths ignored; a mount by /etc/fstab may have no HOME at all.
fn directory_of(
    state_home: Option<PathBuf>,
    home: Option<PathBuf>,
    home_in_passwd: impl Fn() -> Option<PathBuf>,
) -> Option<PathBuf> {
    let usable = |path: &PathBuf| path.is_absolute();
    let home = || home.filter(usable).or_else(home_in_passwd);
    let state_home = state_home.filter(usable);
    let state_home = state_home.or_else(|| Some(home()?.join(".local/state")));
    Some(state_home?.join("sftpfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_where_the_specification_has_it() {
        let some = |path: &str| Some(PathBuf::from(path));
        let passwd = || Some(PathBuf::from("/root"));
        let cases = [
            (some("/s"), some("/h"), "/s/sftpfs"),
            (some("s"), some("/h"), "/h/.local/state/sftpfs"),
            (some(""), some(""), "/root/.local/state/sftpfs"),
            (None, None, "/root/.local/state/sftpfs"),
        ];
        for (state_home, home, expected) in cases {
            assert_eq!(directory_of(state_home, home, passwd), some(expected));
        }
        assert_eq!(directory_of(None, None, || None), None);
    }

    #[test]
    fn one_who_became_another_user_has_that_ones_home() {
        let home = User::from_uid(geteuid()).unwrap().unwrap().dir;
        assert_eq!(
            state_directory(true),
            Some(home.join(".local/state/sftpfs"))
        );
    }
}
