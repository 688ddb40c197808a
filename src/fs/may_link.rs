//! Whether a copy may be a hard link of its source: pure, decided on facts alone, for one file and
//! for many.

use super::{Config, CopyIsHardlink, Symlinks};
use crate::sftp::Extensions;

/// How copies become hard links, as the user wants it and as far as it can be done.
pub(super) fn wanted(config: &Config, server: &Extensions, is_noted: bool) -> CopyIsHardlink {
    // Where the server follows symbolic links, a file has more paths than we know.
    if !server.hardlink || config.symlinks == Symlinks::Follow {
        return CopyIsHardlink::Off;
    }
    match config.copy_is_hardlink {
        CopyIsHardlink::Cow if !is_noted => CopyIsHardlink::Off,
        wanted => wanted,
    }
}

/// What is known of a copy before it is made; all that decides about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// Where it begins, in the source and in the target.
    pub(super) offsets: (u64, u64),
    pub(super) len: u64,
    pub(super) source_size: u64,
    pub(super) target_size: u64,
    /// Names that are known to lead to the target.
    pub(super) target_links: u32,
    /// Both are regular files.
    pub(super) are_regular: bool,
    /// Set-user-ID or set-group-ID: a program that copies without `-p` takes these bits away.
    pub(super) has_set_id: bool,
    /// The source belongs to somebody else than whoever made the target, who could not write to his
    /// own copy then; root can.
    pub(super) is_of_another: bool,
    /// The target was there before, with another mode or owner than the source's, which a program
    /// that copies without `-p` leaves as they are.
    pub(super) has_ways_of_its_own: bool,
}

impl Facts {
    /// Nothing, all of it, into a file that is made by the copy.
    pub(super) const INTO_NEW: Self = Self {
        offsets: (0, 0),
        len: u64::MAX,
        source_size: 0,
        target_size: 0,
        target_links: 1,
        are_regular: true,
        has_set_id: false,
        is_of_another: false,
        has_ways_of_its_own: false,
    };

    /// Whether a program copies a whole file into an empty one that has no other name. The kernel
    /// asks for [`LEN_MAX`] bytes at most in one call.
    pub(super) const fn is_whole_file(&self) -> bool {
        let whole = if self.source_size < LEN_MAX {
            self.source_size
        } else {
            LEN_MAX
        };
        self.offsets.0 == 0
            && self.offsets.1 == 0
            && self.source_size > 0
            && self.len >= whole
            && self.target_size == 0
            && self.target_links <= 1
            && self.are_regular
            && !self.has_set_id
            && !self.is_of_another
            && !self.has_ways_of_its_own
    }
}

/// What the kernel asks for at most: MAX_RW_COUNT is 2 GiB for read(2), but copy_file_range(2) is
/// cut to what fits FUSE's 32-bit answer, in whole pages.
const LEN_MAX: u64 = 0xffff_f000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_links_where_the_user_wants_that_and_it_can_be_done() {
        use CopyIsHardlink::{Cow, Off, Shared};
        let server = Extensions {
            hardlink: true,
            ..Extensions::default()
        };
        for (asked, is_noted, expected) in [
            (Off, true, Off),
            (Cow, true, Cow),
            (Cow, false, Off),
            (Shared, true, Shared),
            (Shared, false, Shared),
        ] {
            let config = Config {
                copy_is_hardlink: asked,
                ..Config::default()
            };
            assert_eq!(wanted(&config, &server, is_noted), expected, "{asked:?}");
            assert_eq!(wanted(&config, &Extensions::default(), is_noted), Off);
            let config = Config {
                symlinks: Symlinks::Follow,
                ..config
            };
            assert_eq!(wanted(&config, &server, is_noted), Off, "{asked:?}");
        }
    }

    const WHOLE: Facts = Facts {
        offsets: (0, 0),
        len: 10,
        source_size: 10,
        target_size: 0,
        target_links: 1,
        are_regular: true,
        has_set_id: false,
        is_of_another: false,
        has_ways_of_its_own: false,
    };

    #[test]
    fn a_whole_file_into_an_empty_one_may_be_a_link() {
        assert!(WHOLE.is_whole_file());
        assert!(
            Facts {
                len: u64::MAX,
                ..WHOLE
            }
            .is_whole_file()
        );
    }

    #[test]
    fn a_file_of_more_than_the_kernel_asks_for_is_whole_with_all_that_it_asks_for() {
        let large = Facts {
            source_size: 9 << 30,
            len: LEN_MAX,
            ..WHOLE
        };
        assert!(large.is_whole_file());
        assert!(
            !Facts {
                len: LEN_MAX - 1,
                ..large
            }
            .is_whole_file()
        );
    }

    #[test]
    fn all_else_is_copied() {
        for facts in [
            Facts { len: 9, ..WHOLE },
            Facts {
                offsets: (1, 0),
                ..WHOLE
            },
            Facts {
                offsets: (0, 1),
                ..WHOLE
            },
            Facts {
                source_size: 0,
                ..WHOLE
            },
            Facts {
                target_size: 1,
                ..WHOLE
            },
            Facts {
                target_links: 2,
                ..WHOLE
            },
            Facts {
                are_regular: false,
                ..WHOLE
            },
            Facts {
                has_set_id: true,
                ..WHOLE
            },
            Facts {
                is_of_another: true,
                ..WHOLE
            },
            Facts {
                has_ways_of_its_own: true,
                ..WHOLE
            },
        ] {
            assert!(!facts.is_whole_file(), "{facts:?}");
        }
    }
}
