//! A child process as a byte duplex: its standard input and output are one end of a socket pair,
//! its standard error becomes the diagnosis.
//!
//! **Invariant:** when the stream reports its end, the diagnosis is complete; when the stream is
//! dropped, the child and its process group end.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Pid, getpgrp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::process::{ChildStderr, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Diagnosis;
use super::loan::Loan;

/// A running child.
pub(super) struct Child {
    /// What it reads and writes.
    pub(super) stream: ChildStream,
}

impl Child {
    /// Starts a command; must be called inside a tokio runtime.
    ///
    /// Each line of its standard error is shown to `hear`, which says whether it belongs into the
    /// diagnosis; `hear` is dropped when the child has ended and all was read. With `may_ask`, the
    /// terminal, if there is one, is the child's until its first byte comes.
    pub(super) fn start(
        mut command: Command,
        name: String,
        diagnosis: Diagnosis,
        may_ask: bool,
        hear: impl FnMut(&str) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        for end in [&ours, &theirs] {
            setsockopt(end, sockopt::SndBuf, &SOCKET_BUFFER)?;
        }
        ours.set_nonblocking(true)?;
        command
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut process = command.spawn()?;
        // The command owns the child's end of the pair; kept open here, it would hide the child's.
        drop(command);
        let group = Group(
            process
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .map(Pid::from_raw),
        );
        let borrower = group.0.filter(|_| may_ask);
        let loan = Arc::new(Mutex::new(borrower.and_then(Loan::to)));
        let (dropped_sender, dropped) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let mouth = Mouth {
            stderr: process.stderr.take(),
            name: name.clone(),
            diagnosis,
            hear,
        };
        let watch = Watch {
            process,
            group,
            loan: loan.clone(),
            socket: ours.try_clone()?,
        };
        tokio::spawn(async move {
            watch.until_the_end(mouth, dropped).await;
            // A stream that was dropped does not wait for the end.
            let _ = ended_sender.send(());
        });
        let socket = UnixStream::from_std(ours)?;
        Ok(Self {
            stream: ChildStream {
                socket,
                loan: Some(loan),
                ended,
                _dropped: dropped_sender,
            },
        })
    }
}

/// Our end of the socket pair.
pub(super) struct ChildStream {
    socket: UnixStream,
    /// Gone after the first byte.
    loan: Option<Arc<Mutex<Option<Loan>>>>,
    /// Comes when the child has ended and all that it said was read.
    ended: oneshot::Receiver<()>,
    /// Its end tells the watching task that this stream was dropped.
    _dropped: oneshot::Sender<()>,
}

impl AsyncRead for ChildStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.socket).poll_read(context, buffer));
        if buffer.filled().len() > before {
            if let Some(loan) = self.loan.take() {
                give_back(&loan);
            }
            return Poll::Ready(result);
        }
        // The end. Why is known when the child is gone, which takes a moment more.
        if !self.ended.is_terminated() {
            let _ = ready!(Pin::new(&mut self.ended).poll(context));
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for ChildStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// What the watching task holds. If the runtime ends before it, dropping this kills the child.
struct Watch {
    process: tokio::process::Child,
    group: Group,
    loan: Arc<Mutex<Option<Loan>>>,
    /// A second descriptor of our end.
    socket: StdStream,
}

impl Watch {
    async fn until_the_end<H: FnMut(&str) -> bool>(
        mut self,
        mut mouth: Mouth<H>,
        dropped: oneshot::Receiver<()>,
    ) {
        let (name, diagnosis) = (mouth.name.clone(), mouth.diagnosis.clone());
        let mut hearing = pin!(mouth.hear_all());
        let mut heard = false;
        let mut exit = pin!(wait(&mut self.process, self.group, dropped));
        let exit = loop {
            tokio::select! {
                () = &mut hearing, if !heard => heard = true,
                exit = &mut exit => break exit,
            }
        };
        // Whatever the child left behind in its group goes with it, and if that still holds the
        // other end of the socket, the stream ends all the same.
        self.group.signal(Signal::SIGTERM);
        if !heard {
            // A grandchild that lives on may hold standard error open for ever.
            let _ = timeout(LAST_WORDS, hearing).await;
        }
        let interrupted = give_back(&self.loan)
            && matches!(&exit, Exit::Itself(status) if status.signal() == Some(Signal::SIGINT as i32));
        if let (Exit::Itself(status), true) = (exit, diagnosis.text().is_empty()) {
            diagnosis.note(match status.signal() {
                Some(signal) if signal == Signal::SIGINT as i32 => {
                    format!("{name} was interrupted")
                }
                _ => format!("{name} ended ({status})"),
            });
        }
        // A socket that is closed on the other side needs no shutting down.
        let _ = self.socket.shutdown(Shutdown::Both);
        if interrupted {
            // Ctrl-C went to the child alone, as it had the terminal; it was meant for all of us.
            let _ = killpg(getpgrp(), Signal::SIGINT);
        }
    }
}

/// How a child ended.
enum Exit {
    Itself(ExitStatus),
    /// We ended it, or do not know.
    Ours,
}

/// Waits for the child's end; if the stream is dropped first, sees to it.
async fn wait(
    process: &mut tokio::process::Child,
    group: Group,
    dropped: oneshot::Receiver<()>,
) -> Exit {
    tokio::select! {
        exit = process.wait() => return exit.map_or(Exit::Ours, Exit::Itself),
        _ = dropped => {}
    }
    group.signal(Signal::SIGTERM);
    if timeout(TERM_TO_KILL, process.wait()).await.is_err() {
        group.signal(Signal::SIGKILL);
        // It cannot refuse; an error means that somebody else has reaped it.
        let _ = process.wait().await;
    }
    Exit::Ours
}

/// A child's process group; its number is the child's own.
#[derive(Clone, Copy)]
struct Group(Option<Pid>);

impl Group {
    fn signal(self, signal: Signal) {
        if let Some(group) = self.0 {
            // A group that is gone needs no signal.
            let _ = killpg(group, signal);
        }
    }
}

/// A child's standard error.
struct Mouth<H> {
    stderr: Option<ChildStderr>,
    name: String,
    diagnosis: Diagnosis,
    hear: H,
}

impl<H: FnMut(&str) -> bool> Mouth<H> {
    /// Reads lines until the end.
    async fn hear_all(&mut self) {
        let Some(mut stderr) = self.stderr.take() else {
            return;
        };
        let mut line = Vec::new();
        let mut chunk = [0; 1024];
        // An unreadable pipe says no more than a closed one.
        while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
            for &byte in chunk.iter().take(count) {
                if byte == b'\n' {
                    self.hear_line(&line);
                    line.clear();
                } else if line.len() < LINE_MAX {
                    line.push(byte);
                }
            }
        }
        self.hear_line(&line);
    }

    /// A server may have a say in these lines (its banner): nothing in them may drive a terminal.
    fn hear_line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line: String = line
            .trim_end()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        if line.is_empty() {
            return;
        }
        if !(self.hear)(&line) {
            log::debug!("{}: {line}", self.name);
            return;
        }
        log::info!("{}: {line}", self.name);
        self.diagnosis.note(line);
    }
}

/// Ends a loan of the terminal; whether there was one.
fn give_back(loan: &Mutex<Option<Loan>>) -> bool {
    loan.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        .is_some()
}

/// An I/O error in a person's words, without the number that std adds.
pub(super) fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |n| Errno::from_raw(n).desc().to_owned(),
    )
}

/// As much as the kernel gives without privileges.
const SOCKET_BUFFER: usize = 1 << 20;

/// A line of standard error is cut here.
const LINE_MAX: usize = 1024;

/// From a polite end to a forced one.
const TERM_TO_KILL: Duration = Duration::from_secs(2);

/// How long standard error may stay open after the child's end.
const LAST_WORDS: Duration = Duration::from_millis(300);
