//! What the user wants, as values; clap's side of it is in `cli/copy_options.rs`.

use super::operands::Target;

/// How to copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `-r`, `-R`, `-a`.
    pub(crate) recursive: bool,
    pub(crate) dereference: Dereference,
    /// `-p`, `-a`: mode, times, and owner where that is allowed.
    pub(crate) preserve: bool,
    /// `-d`, `-a`: names of one file stay names of one file.
    pub(crate) preserve_links: bool,
    pub(crate) existing: Existing,
    /// `-f`: what cannot be opened is removed.
    pub(crate) force: bool,
    pub(crate) verbose: bool,
    pub(crate) progress: Progress,
    /// Sources and destination may be on different file systems.
    pub(crate) stream: bool,
    pub(crate) target: Target,
}

/// Which symbolic links are followed in the sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Dereference {
    /// cp(1)'s default: all, but with `-r` none.
    #[default]
    Usual,
    /// `-P`.
    Never,
    /// `-H`: those named on the command line.
    Named,
    /// `-L`.
    Always,
}

/// What happens to files that are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Existing {
    #[default]
    Overwrite,
    /// `-n`.
    Keep,
    /// `-u`: overwritten if it is older than the source.
    Update,
}

/// When to show progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    /// If standard error is a terminal.
    #[default]
    Auto,
    Always,
    Never,
}

impl Options {
    /// Whether a link is followed: one named on the command line, or one met below.
    pub(super) fn follows(&self, is_named: bool) -> bool {
        match self.dereference {
            Dereference::Usual => !self.recursive,
            Dereference::Never => false,
            Dereference::Named => is_named,
            Dereference::Always => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_as_cp_does_it() {
        let of = |recursive, dereference| {
            let options = Options {
                recursive,
                dereference,
                ..Options::default()
            };
            (options.follows(true), options.follows(false))
        };
        assert_eq!(of(false, Dereference::Usual), (true, true));
        assert_eq!(of(true, Dereference::Usual), (false, false));
        assert_eq!(of(true, Dereference::Named), (true, false));
        assert_eq!(of(true, Dereference::Always), (true, true));
        assert_eq!(of(false, Dereference::Never), (false, false));
    }
}
