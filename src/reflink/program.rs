//! The program's own process, until it is the program: it takes the filter upon itself, says under
//! which number the listener is, and waits until all is ready.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::signal::{SigSet, SigmaskHow};

use super::{FAILED, complain, filter, kernel};

/// env(1), "EXIT STATUS".
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

const USAGE: &str = "usage: sftpfs reflink [--] COMMAND [ARG...]";

/// A command and its arguments.
pub(super) struct Program {
    words: Vec<CString>,
}

impl Program {
    pub(super) fn new(command: Vec<OsString>) -> Result<Self, String> {
        let Some(first) = command.first() else {
            return Err(format!("no command; {USAGE}"));
        };
        if first.as_encoded_bytes().starts_with(b"-") {
            return Err(format!("unknown option '{}'; {USAGE}", first.display()));
        }
        let words = command
            .into_iter()
            .map(|word| CString::new(word.into_vec()));
        let words = words.collect::<Result<_, _>>();
        words
            .map(|words| Self { words })
            .map_err(|_| "a NUL in an argument".into())
    }

    /// Becomes the program, or says why not and with which code to exit.
    pub(super) fn execute(&self) -> u8 {
        // Rust ignores it before main; what was set before is not known any more.
        kernel::reset_signal(libc::SIGPIPE);
        let name = self
            .words
            .first()
            .map(CString::as_c_str)
            .unwrap_or_default();
        let Err::<Infallible, _>(errno) = nix::unistd::execvp(name, &self.words);
        complain(&format!("{}: {}", name.to_string_lossy(), errno.desc()));
        if errno == Errno::ENOENT {
            NOT_FOUND
        } else {
            NOT_EXECUTABLE
        }
    }

    /// [`Program::execute`] under the filter. `told` takes the listener's number, as an i32, and
    /// one byte from `go` says that it is answered.
    pub(super) fn execute_filtered(&self, mask: SigSet, mut told: File, mut go: File) -> u8 {
        let listener = match listen() {
            Ok(listener) => listener,
            Err(why) => {
                complain(&why);
                return FAILED;
            }
        };
        let number = listener.as_raw_fd().to_ne_bytes();
        let said = told
            .write_all(&number)
            .and_then(|()| go.read_exact(&mut [0]));
        drop(listener);
        if said.is_err() {
            // Whoever hung up has said why.
            return FAILED;
        }
        // Fails for what is no mask only.
        let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
        self.execute()
    }
}

/// The filter on this process. Root needs no `PR_SET_NO_NEW_PRIVS` for it, and then set-user-ID
/// programs keep working.
fn listen() -> Result<OwnedFd, String> {
    let Some(arch) = filter::ARCH else {
        return Err("not supported on this kind of machine".into());
    };
    let program = filter::program(arch);
    let listener = match kernel::listen(&program) {
        Err(Errno::EACCES) => set_no_new_privs().and_then(|()| kernel::listen(&program)),
        other => other,
    };
    listener.map_err(explain)
}

fn explain(errno: Errno) -> String {
    match errno {
        Errno::EBUSY => "the system calls of this process are supervised already, by a container \
                         manager perhaps, and the kernel allows only one"
            .into(),
        Errno::EINVAL | Errno::ENOSYS => {
            "this kernel cannot pass on system calls: Linux 5.6 or later is needed, with \
             CONFIG_SECCOMP_FILTER"
                .into()
        }
        other => format!("seccomp(2) is refused here: {}", other.desc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_at_least_one_word_and_it_is_no_option() {
        assert!(Program::new(Vec::new()).is_err());
        assert!(Program::new(vec!["-v".into(), "cp".into()]).is_err());
        assert_eq!(
            Program::new(vec!["cp".into()]).unwrap().words,
            [c"cp".to_owned()]
        );
    }
}
