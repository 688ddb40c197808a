//! A password, passphrase or key in memory that is neither swapped out nor dumped, and is wiped.
//!
//! **Invariant:** nothing here prints what a [`Secret`] holds.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize;

pub(super) use super::prompt::Prompter;

/// A password or passphrase. Copies share one piece of locked memory, which is wiped with the last of them.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Locked>);

impl Secret {
    /// Takes `bytes` over into locked memory and wipes them where they were. `None` if they are
    /// longer than 16 KiB.
    #[must_use]
    pub(crate) fn new(bytes: &mut [u8]) -> Option<Self> {
        let fits = bytes.len() <= SECRET_LEN_MAX;
        let secret = fits.then(|| Self(Arc::new(Locked::copy_of(bytes))));
        bytes.zeroize();
        secret
    }

    /// The bytes, as typed, without a line end.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.bytes()
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
#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_LEN]);

struct Locked {
    pages: Box<[Page]>,
    len: usize,
}

impl Locked {
    fn copy_of(bytes: &[u8]) -> Self {
        let pages = vec![Page([0; PAGE_LEN]); bytes.len().div_ceil(PAGE_LEN).max(1)];
        let mut locked = Self {
            pages: pages.into_boxed_slice(),
            len: bytes.len(),
        };
        // Before the secret is there, so that no copy of it was ever swapped out. A process that
        // may lock no memory (RLIMIT_MEMLOCK) goes on without.
        locked.advise(libc::mlock, libc::MADV_DONTDUMP);
        for (page, part) in locked.pages.iter_mut().zip(bytes.chunks(PAGE_LEN)) {
            if let Some(place) = page.0.get_mut(..part.len()) {
                place.copy_from_slice(part);
            }
        }
        locked
    }

    fn bytes(&self) -> &[u8] {
        let all = self.pages.as_ptr().cast::<u8>();
        #[expect(unsafe_code, reason = "the pages are one piece of memory without gaps")]
        // SAFETY: `Page` is `repr(C)` and holds nothing but its bytes, whose number is its
        // alignment; `len` is at most the size of all pages.
        unsafe {
            std::slice::from_raw_parts(all, self.len)
        }
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
        let len = size_of_val(self.pages.as_ref());
        let start = self.pages.as_mut_ptr().cast::<libc::c_void>();
        // SAFETY: the address and length are those of one allocation that `self` owns, aligned to
        // a page and some pages long; neither call changes what is in it.
        unsafe {
            lock(start, len);
            libc::madvise(start, len, advice);
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        for page in &mut self.pages {
            page.0.zeroize();
        }
        self.advise(libc::munlock, libc::MADV_DODUMP);
    }
}

const PAGE_LEN: usize = 4096;

/// A private key of RSA with 16384 bits takes 12 KiB, which nothing that is typed comes near: sshd
/// refuses passwords of more than 1024 bytes (auth-passwd.c).
pub(super) const SECRET_LEN_MAX: usize = 4 * PAGE_LEN;

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
    fn a_secret_may_take_several_pages() {
        let long: Vec<u8> = (0..PAGE_LEN + 5)
            .map(|n| u8::try_from(n % 251).unwrap())
            .collect();
        let secret = Secret::new(&mut long.clone()).unwrap();
        assert_eq!(secret.bytes(), long);
    }

    #[test]
    fn a_secret_longer_than_its_bound_is_refused_and_wiped() {
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
