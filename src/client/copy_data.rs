//! A copy made by the server itself: copy-data (draft-ietf-secsh-filexfer-extensions-00, section 7;
//! OpenSSH 9.0), in pieces each of which is verified and after each of which it can be stopped.
//!
//! **Invariant:** nothing is copied between two handles before it is certain that they are two
//! files. OpenSSH before 10.4 does not notice one file under two names.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use nix::errno::Errno;

use super::connection::Ticket;
use super::files::{Handle, open_on};
use super::pieces::{Pace, Piece, Pieces, Span};
use super::{Client, attrs, done};
use crate::clock;
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, OpenFlags, StatusCode};

/// A file of a copy: a handle that is open on it, and its path if it has one, so that it can be
/// opened once more on the connection for copies.
#[derive(Clone)]
pub(crate) struct CopyEnd {
    pub handle: Handle,
    pub path: Option<Bytes>,
}

/// How far the server copied. The bytes are there for certain, from the beginning of the span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyData {
    /// Fewer than asked for: stopped by `go_on`, the source's end, or an error that the next call
    /// meets again.
    Copied(u64),
    /// The server cannot go on from here, or must not: what is left is to be streamed.
    Unable(u64),
}

impl CopyData {
    /// The same, after so many bytes that were there before.
    const fn after(self, done: u64) -> Self {
        match self {
            Self::Copied(more) => Self::Copied(done.saturating_add(more)),
            Self::Unable(more) => Self::Unable(done.saturating_add(more)),
        }
    }
}

impl Client {
    /// Copies on the server. Nobody need look at the files before: no more is copied than the source
    /// has, and nothing if both may be one file. The caller's own writes to both are answered.
    ///
    /// `go_on` is told the number of bytes so far after each verified piece of about a quarter of a
    /// second; when it says false nothing more is begun, what is on its way (one piece at most) is
    /// waited for, and counts.
    ///
    /// Up to 1 MiB between handles of one connection takes two round trips. More is copied on a
    /// connection of its own, if there is one: a login before the first such copy, four round trips
    /// before the first of two files, one before it is continued.
    ///
    /// # Errors
    /// What the server said, if nothing was copied and writing would not go better. A plain FAILURE
    /// may mean much and is [`CopyData::Unable`].
    pub(crate) async fn copy_data(
        &self,
        source: &CopyEnd,
        target: &CopyEnd,
        span: Span,
        mut go_on: impl FnMut(u64) -> bool + Send,
    ) -> Result<CopyData> {
        let refused = self.copies_refused.load(Ordering::Relaxed);
        if !self.features.extensions.copy_data || refused {
            return Ok(CopyData::Unable(0));
        }
        let span = span.possible();
        if let Some(pair) = self.known_on_the_lane(source, target).await {
            return self.copy_far(&pair, target, span, go_on).await;
        }
        let is_near = source.handle.shares_connection(&target.handle);
        if is_near {
            let pair = self.look(&source.handle, &target.handle).await?;
            let is_small = span.within(pair.source_size).len <= SMALL;
            // While a connection for copies is being made this one serves.
            if !pair.are_apart || is_small || !self.lanes.copies().soon() {
                return self.copy_near(&pair, span, go_on).await;
            }
        } else if span.len <= TINY {
            // To open both files once more takes longer than so little takes through here.
            return Ok(CopyData::Unable(0));
        }
        let (far, begun) = self.on_the_lane(source, target, span).await?;
        let (rest, go_on) = (span.after(begun), |copied| go_on(begun + copied));
        let copied = if let Some(pair) = far {
            self.copy_far(&pair, target, rest, go_on).await
        } else if is_near {
            let pair = self.look(&source.handle, &target.handle).await?;
            self.copy_near(&pair, rest, go_on).await
        } else {
            Ok(CopyData::Unable(0))
        };
        match copied {
            Err(_) if begun > 0 => Ok(CopyData::Copied(begun)),
            other => Ok(other?.after(begun)),
        }
    }

    /// Copies on the connection for copies.
    async fn copy_far(
        &self,
        pair: &Pair,
        target: &CopyEnd,
        span: Span,
        go_on: impl FnMut(u64) -> bool + Send,
    ) -> Result<CopyData> {
        let mut pace = Pace::of_a_lane(target.handle.piece_len());
        let copied = self.copy(pair, span, &mut pace, go_on).await;
        target.handle.keep_piece_len(pace.len());
        copied
    }

    /// Copies where the handles are, so that others hardly wait.
    async fn copy_near(
        &self,
        pair: &Pair,
        span: Span,
        go_on: impl FnMut(u64) -> bool + Send,
    ) -> Result<CopyData> {
        self.copy(pair, span, &mut Pace::among_others(), go_on)
            .await
    }

    /// Both files on the connection for copies, if an earlier copy opened them there.
    async fn known_on_the_lane(&self, source: &CopyEnd, target: &CopyEnd) -> Option<Pair> {
        let lane = self.lanes.copies().now()?;
        let source = source.handle.twin_on(&lane, OpenFlags::READ)?;
        let target = target.handle.twin_on(&lane, OpenFlags::WRITE)?;
        self.look(&source, &target).await.ok()
    }

    /// Both files on the connection for copies, and how much of the copy was made on the way there.
    ///
    /// They are opened by path, and a path may lead to another file by now. So the first bytes are
    /// copied through the handles that were given, and must be seen through those that were opened.
    async fn on_the_lane(
        &self,
        source: &CopyEnd,
        target: &CopyEnd,
        span: Span,
    ) -> Result<(Option<Pair>, u64)> {
        let (Some(source_path), Some(target_path)) = (source.path.clone(), target.path.clone())
        else {
            return Ok((None, 0));
        };
        let Some(lane) = self.lanes.copies().connection().await else {
            return Ok((None, 0));
        };
        let first = Span {
            len: span.len.min(FIRST_BYTES),
            ..span
        };
        let (from, to, begun) = tokio::join!(
            open_on(&lane, source_path, OpenFlags::READ),
            open_on(&lane, target_path, OpenFlags::WRITE),
            self.stream(&source.handle, &target.handle, first, |_| true),
        );
        let begun = begun?;
        let (Ok(from), Ok(to)) = (from, to) else {
            return Ok((None, begun));
        };
        let (here_from, here_to, pair) = tokio::join!(
            self.fstat(&source.handle),
            self.fstat(&target.handle),
            self.look(&from, &to),
        );
        let (Ok(here_from), Ok(here_to), Ok(pair)) = (here_from, here_to, pair) else {
            return Ok((None, begun));
        };
        if !is_same(&here_from, &pair.source_attrs) || !is_same(&here_to, &pair.target_attrs) {
            return Ok((None, begun));
        }
        source.handle.keep_twin(from, OpenFlags::READ);
        target.handle.keep_twin(to, OpenFlags::WRITE);
        Ok((Some(pair), begun))
    }

    /// Looks at two files, in one round trip.
    async fn look(&self, source: &Handle, target: &Handle) -> Result<Pair> {
        // Sent in this order before any is waited for, and answered as if done in it.
        let seen = |handle: &Handle| attrs(handle.submit_fstat());
        let (before, between, after) = (seen(source), seen(target), seen(source));
        let (before, target_attrs, source_attrs) = (before.await?, between.await?, after.await?);
        let (Some(source_size), Some(target_size)) = (source_attrs.size, target_attrs.size) else {
            return Err(Error::Protocol("an open file without a size"));
        };
        let are_apart = is_same(&before, &source_attrs) && are_unlike(&source_attrs, &target_attrs);
        Ok(Pair {
            source: source.clone(),
            target: target.clone(),
            source_attrs,
            target_attrs,
            source_size,
            target_size,
            are_apart,
        })
    }

    /// Copies between two handles of one connection; what cannot be verified, at most the last
    /// 64 KiB, goes through the client.
    async fn copy(
        &self,
        pair: &Pair,
        span: Span,
        pace: &mut Pace,
        go_on: impl FnMut(u64) -> bool + Send,
    ) -> Result<CopyData> {
        // Files of /proc say that they are empty, and are not.
        if pair.source_size == 0 {
            return Ok(CopyData::Unable(0));
        }
        let span = span.within(pair.source_size);
        if span.len == 0 {
            return Ok(CopyData::Copied(0));
        }
        if !pair.are_apart {
            return Ok(CopyData::Unable(0));
        }
        let mut pieces = Pieces::new(span, pair.target_size);
        let end = copy_pieces(pair, &mut pieces, pace, go_on).await;
        let copied = pieces.verified();
        match end {
            End::Stopped => Ok(CopyData::Copied(copied)),
            End::Reached => {
                let rest = span.after(copied);
                match self
                    .stream(&pair.source, &pair.target, rest, |_| true)
                    .await
                {
                    Err(error) if copied == 0 => Err(error),
                    more => Ok(CopyData::Copied(copied + more.unwrap_or(0))),
                }
            }
            End::Failed(error) => {
                let whole = span.target_offset + copied;
                self.take_back(&pair.target, Some(&pair.target_attrs), whole)
                    .await;
                if copied > 0 {
                    return Ok(CopyData::Copied(copied));
                }
                self.refusal(error)
            }
        }
    }

    /// What it means that the server copied nothing.
    fn refusal(&self, error: Option<Error>) -> Result<CopyData> {
        let Some(error) = error else {
            return Ok(CopyData::Unable(0));
        };
        if matches!(error.errno(Operation::Write), Errno::ENOSPC | Errno::EDQUOT) {
            return Err(error);
        }
        self.refused_copy(&error);
        Ok(CopyData::Unable(0))
    }

    /// Remembers if the server says that it never copies.
    pub(super) fn refused_copy(&self, error: &Error) {
        let never = [StatusCode::OP_UNSUPPORTED, StatusCode::PERMISSION_DENIED];
        if never.iter().any(|code| error.is_refused_with(*code))
            && !self.copies_refused.swap(true, Ordering::Relaxed)
        {
            log::info!("the server does not copy, though it says it can: {error}");
        }
    }
}

/// Two handles on one connection, and what they are.
struct Pair {
    source: Handle,
    target: Handle,
    source_attrs: Attrs,
    target_attrs: Attrs,
    source_size: u64,
    target_size: u64,
    /// They are two files, for certain.
    are_apart: bool,
}

/// A piece on its way.
struct Asked {
    piece: Piece,
    when: Instant,
    copied: Ticket,
    /// FSTAT of the target, done after the copy.
    seen: Ticket,
}

/// Why no more pieces are asked for.
enum End {
    /// All that pieces can prove is there.
    Reached,
    /// The caller said so.
    Stopped,
    /// A piece is not there, with what the server said if it admits that.
    Failed(Option<Error>),
}

async fn copy_pieces(
    pair: &Pair,
    pieces: &mut Pieces,
    pace: &mut Pace,
    mut go_on: impl FnMut(u64) -> bool + Send,
) -> End {
    let mut under_way = VecDeque::new();
    let (mut end, mut last) = (None, None);
    loop {
        while end.is_none() && under_way.len() < PIECES_MAX {
            let Some(piece) = pieces.next(pace.len()) else {
                break;
            };
            under_way.push_back(ask(pair, pieces.span_of(piece), piece));
        }
        let Some(asked) = under_way.pop_front() else {
            return end.unwrap_or(End::Reached);
        };
        let copied = done(asked.copied).await;
        let size = attrs(asked.seen).await.ok().and_then(|attrs| attrs.size);
        let now = clock::now();
        // It waited for the piece before it.
        let began = last
            .replace(now)
            .map_or(asked.when, |last| asked.when.max(last));
        pace.note(asked.piece.len, now.saturating_duration_since(began));
        if !pieces.settle(asked.piece, copied.is_ok(), size) {
            if !matches!(end, Some(End::Failed(_))) {
                end = Some(End::Failed(copied.err()));
            }
        } else if end.is_none() && !go_on(pieces.verified()) {
            end = Some(End::Stopped);
        }
    }
}

fn ask(pair: &Pair, span: Span, piece: Piece) -> Asked {
    Asked {
        piece,
        when: clock::now(),
        copied: pair.source.submit_copy(&pair.target, span),
        seen: pair.target.submit_fstat(),
    }
}

/// What is looked at to tell files apart. Reading moves the time of access.
fn marks(attrs: &Attrs) -> [Option<u64>; 5] {
    let (owner, group) = attrs.owner.unzip();
    [
        attrs.size,
        attrs.permissions.map(u64::from),
        attrs.times.map(|(_, modified)| u64::from(modified)),
        owner.map(u64::from),
        group.map(u64::from),
    ]
}

/// Whether nothing speaks against it that they are one file.
fn is_same(one: &Attrs, other: &Attrs) -> bool {
    !are_unlike(one, other)
}

/// Whether two files that were looked at in one moment are certainly not one.
fn are_unlike(one: &Attrs, other: &Attrs) -> bool {
    marks(one)
        .into_iter()
        .zip(marks(other))
        .any(|(one, other)| one.is_some() && other.is_some() && one != other)
}

/// One is copied while the next one is on its way to the server.
const PIECES_MAX: usize = 2;
/// So little is copied where the handles are: others wait for it a few milliseconds.
const SMALL: u64 = 1 << 20;
const TINY: u64 = 64 << 10;
/// A page: enough to be seen in the target's size or time.
const FIRST_BYTES: u64 = 4 << 10;
