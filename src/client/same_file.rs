//! Is a further handle, opened by path, of the same file as the first one? A path may lead to another
//! file by then.
//!
//! **Invariant:** in doubt it is not: then the file stays on the connections that it has.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::attrs;
use super::files::{Handle, Open, data, read_request};
use super::spread::Work;
use crate::error::Result;
use crate::sftp::{Attrs, FileKind};

/// What the first handle shows: asked for once, while further ones are opened. `None` if the file was
/// closed before.
pub(super) type FirstLook = Shared<BoxFuture<'static, Result<Option<Arc<Seen>>>>>;

/// One look at a file.
pub(super) struct Seen {
    attrs: Attrs,
    /// Of a file that is read, its first page.
    begin: Bytes,
}

/// Asks what the first handle shows. Sent at once, and holds no handle while it waits.
pub(super) fn look(open: &Weak<Open>, work: Work) -> FirstLook {
    let look = open.upgrade().map(|open| look_by(&Handle::of(open), work));
    let look = async {
        match look {
            Some(look) => Ok(Some(Arc::new(look.await?))),
            None => Ok(None),
        }
    };
    look.boxed().shared()
}

/// Sent at once.
fn look_by(handle: &Handle, work: Work) -> impl Future<Output = Result<Seen>> + Send + use<> {
    let seen = attrs(handle.submit_fstat());
    let begin = (work == Work::Read).then(|| {
        let request = read_request(handle, 0, SAMPLE_LEN);
        data(handle.connection().submit(&request), SAMPLE_LEN)
    });
    async move {
        let attrs = seen.await?;
        let begin = match begin {
            Some(begin) => begin.await?,
            None => Bytes::new(),
        };
        Ok(Seen { attrs, begin })
    }
}

/// A file that is read: it looks the same, and begins the same.
pub(super) async fn is_same_to_read(further: &Handle, first: FirstLook) -> Result<bool> {
    let there = look_by(further, Work::Read).await?;
    let Some(here) = first.await? else {
        return Ok(false);
    };
    Ok(are_whole(&here.attrs, &there.attrs)
        && here.attrs.size == there.attrs.size
        && modified(&here.attrs) == modified(&there.attrs)
        && here.begin == there.begin)
}

/// A file that is written: it grows as ours does. What is written meanwhile by the first handle is
/// seen through the further one.
pub(super) async fn is_same_to_write(
    open: &Weak<Open>,
    further: &Handle,
    first: FirstLook,
) -> Result<bool> {
    let Some(first) = first.await? else {
        return Ok(false);
    };
    let mut before = Arc::clone(&first);
    for _ in 0..GROWTH_LOOKS_MAX {
        // One after the other, so that each is of a later moment.
        let there = attrs(further.submit_fstat()).await?;
        let Some(after) = look(open, Work::Write).await? else {
            return Ok(false);
        };
        if !is_between(&before.attrs, &there, &after.attrs) {
            return Ok(false);
        }
        if first.attrs.size < there.size {
            return Ok(true);
        }
        before = after;
    }
    Ok(false)
}

/// Whether `there` is what a file that grows looked like between two looks at it.
pub(super) fn is_between(before: &Attrs, there: &Attrs, after: &Attrs) -> bool {
    are_whole(before, there)
        && are_whole(there, after)
        && before.size <= there.size
        && there.size <= after.size
        && modified(before) <= modified(there)
        && modified(there) <= modified(after)
}

fn modified(attrs: &Attrs) -> Option<u32> {
    attrs.times.map(|times| times.1)
}

/// Two looks that say all that is to be compared, at regular files of one owner and mode.
fn are_whole(one: &Attrs, other: &Attrs) -> bool {
    let is_whole = |attrs: &Attrs| {
        attrs.kind() == Some(FileKind::Regular)
            && attrs.size.is_some()
            && attrs.times.is_some()
            && attrs.owner.is_some()
    };
    is_whole(one)
        && is_whole(other)
        && one.permissions == other.permissions
        && one.owner == other.owner
}

/// A page.
const SAMPLE_LEN: u32 = 4 << 10;
/// Of looks at a file that should grow, each of two round trips.
const GROWTH_LOOKS_MAX: u32 = 8;
