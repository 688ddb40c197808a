//! Who runs this process and where: what ssh_config(5) calls the local user, home and host, and
//! the expansion of paths by it.

use std::path::{Path, PathBuf};

use nix::unistd::{User, gethostname, getuid};

/// The local side of ssh_config(5)'s TOKENS.
#[derive(Debug, Clone)]
pub(super) struct Local {
    /// From the user database and only then from `HOME`, as ssh does it: mount(8) and systemd
    /// may leave `HOME` out, and sudo may leave another user's in.
    pub(super) home: PathBuf,
    pub(super) user: String,
    pub(super) uid: u32,
    pub(super) host: String,
}

impl Local {
    pub(super) fn of_this_process() -> Self {
        let uid = getuid();
        let user = User::from_uid(uid).ok().flatten();
        let home = user
            .as_ref()
            .map(|user| user.dir.clone())
            .filter(|home| home.is_absolute());
        Self {
            home: home
                .or_else(|| std::env::var_os("HOME").map(PathBuf::from))
                .unwrap_or_else(|| "/".into()),
            user: user.map_or_else(|| uid.to_string(), |user| user.name),
            uid: uid.as_raw(),
            host: gethostname()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        }
    }

    /// Replaces a leading `~/`, `${NAME}` and %-tokens (ssh_config(5), TOKENS); those that are not
    /// about this machine come from `remote`. `None` if one is unknown.
    pub(super) fn expand(
        &self,
        text: &str,
        remote: impl Fn(char) -> Option<String>,
    ) -> Option<PathBuf> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['%', '$']) {
            let (plain, tail) = rest.split_at_checked(at)?;
            out.push_str(plain);
            if let Some(tail) = tail.strip_prefix("${") {
                let (name, tail) = tail.split_once('}')?;
                out.push_str(&std::env::var(name).ok()?);
                rest = tail;
            } else if let Some(tail) = tail.strip_prefix('$') {
                out.push('$');
                rest = tail;
            } else {
                let mut tail = tail.chars();
                let token = tail.by_ref().nth(1)?;
                out.push_str(&self.token(token).or_else(|| remote(token))?);
                rest = tail.as_str();
            }
        }
        out.push_str(rest);
        match out.strip_prefix("~/") {
            Some(below) => Some(self.home.join(below)),
            // ~other is another user's home; rare, and left to ssh.
            None if out.starts_with('~') => None,
            None => Some(PathBuf::from(out)),
        }
    }

    fn token(&self, token: char) -> Option<String> {
        match token {
            '%' => Some("%".to_owned()),
            'd' => Some(self.home.to_string_lossy().into_owned()),
            'i' => Some(self.uid.to_string()),
            'L' => self.host.split('.').next().map(str::to_owned),
            'l' => Some(self.host.clone()),
            'u' => Some(self.user.clone()),
            _ => None,
        }
    }

    /// Whether this user seems to hold a Kerberos ticket, without which GSSAPI cannot log in.
    pub(super) fn has_ticket(&self) -> bool {
        let named = std::env::var_os("KRB5CCNAME").is_some_and(|name| !name.is_empty());
        // The default of krb5.conf(5), default_ccache_name.
        named || Path::new(&format!("/tmp/krb5cc_{}", self.uid)).exists()
    }
}
