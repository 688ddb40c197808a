//! A password or passphrase in memory that is neither swapped out nor dumped, and is wiped.
//!
//! **Invariant:** nothing here prints what a [`Secret`] holds.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize;

pub(super) use super::prompt::Prompter;

/// A password or passphrase. Copies share one locked page, which is wiped with the last of them.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Locked>);

impl Secret {
    /// Takes `bytes` over into locked memory and wipes them where they were. `None` if they are
    /// longer than 4096 bytes.
    #[must_use]
    pub(crate) fn new(bytes: &mut [u8]) -> Option<Self> {
        let fits = bytes.len() <= SECRET_LEN_MAX;
        let secret = fits.then(|| Self(Arc::new(Locked::copy_of(bytes))));
        bytes.zeroize();
        secret
    }

    /// The bytes, as typed, without a line end.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.page.0.get(..self.0.len).unwrap_or_default()
    }

    /// The bytes as the SSH protocol wants them (RFC 4252 section 8). What is not UTF-8 can be no
    /// password of a server that follows it, and `None` says so.
    pub(super) fn text(&self) -> Option<&str> {
        str::from_utf8(self.bytes()).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A page of its own: locking and unlocking it touches nobody else's memory.
#[repr(C, align(4096))]
struct Page([u8; SECRET_LEN_MAX]);

struct Locked {
    page: Box<Page>,
    len: usize,
}

impl Locked {
    fn copy_of(bytes: &[u8]) -> Self {
        let mut locked = Self {
            page: Box::new(Page([0; SECRET_LEN_MAX])),
            len: bytes.len(),
        };
        // Before the secret is there, so that no copy of it was ever swapped out. A process that
        // may lock no memory (RLIMIT_MEMLOCK) goes on without.
        locked.advise(libc::mlock, libc::MADV_DONTDUMP);
        if let Some(place) = locked.page.0.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
        }
        locked
    }

    #[expect(
        unsafe_code,
        reason = "mlock(2), munlock(2) and madvise(2) take an address"
    )]
    fn advise(
        &mut self,
        lock: unsafe extern "C" fn(*const libc::c_void, usize) -> libc::c_int,
        advice: libc::c_int,
    ) {
        let page = std::ptr::from_mut(self.page.as_mut()).cast::<libc::c_void>();
        // SAFETY: the address and length are those of one allocation that `self` owns, aligned to
        // and as long as a page; neither call changes what is in it.
        unsafe {
            lock(page, size_of::<Page>());
            libc::madvise(page, size_of::<Page>(), advice);
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.page.0.zeroize();
        self.advise(libc::munlock, libc::MADV_DODUMP);
    }
}

/// One page. sshd refuses passwords of more than 1024 bytes (auth-passwd.c).
pub(super) const SECRET_LEN_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        let secret = Secret::new(&mut b"hunter2".to_vec()).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
        assert_eq!(secret.text(), Some("hunter2"));
    }

    #[test]
    fn the_place_a_secret_came_from_is_wiped() {
        let mut typed = b"hunter2".to_vec();
        let secret = Secret::new(&mut typed).unwrap();
        assert_eq!(typed, [0; 7]);
        assert_eq!(secret.clone().bytes(), b"hunter2");
    }

    #[test]
    fn a_secret_longer_than_its_page_is_refused_and_wiped() {
        let mut typed = vec![b'x'; SECRET_LEN_MAX + 1];
        assert!(Secret::new(&mut typed).is_none());
        assert!(typed.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_secret_lies_in_memory_that_is_locked_and_not_dumped() {
        let secret = Secret::new(&mut b"hunter2".to_vec()).unwrap();
        let address = secret.bytes().as_ptr().addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            if let Some((start, end)) = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'))
            {
                let bound = |text| usize::from_str_radix(text, 16).unwrap_or(0);
                inside = (bound(start)..bound(end)).contains(&address);
            } else if inside && line.starts_with("VmFlags:") {
                assert!(line.contains(" lo") && line.contains(" dd"), "{line}");
                return;
            }
        }
        panic!("the address {address:x} is in no mapping");
    }
}
