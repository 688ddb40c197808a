//! How many READ and WRITE requests may be without an answer on one connection: few at first,
//! more with every good answer. Pure state.
//!
//! Servers exist that never answer a connection with 64 large requests outstanding; they do answer
//! the first few. OpenSSH carries a 20 ms link with 16 and gains nothing from more than 64.

/// The size of the window, in requests.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
}

impl Window {
    pub(super) const fn new() -> Self {
        Self { size: SIZE_FIRST }
    }

    /// Notes a good answer; says how many places to add.
    pub(super) const fn answered(&mut self) -> usize {
        if self.size >= SIZE_MAX {
            return 0;
        }
        self.size += 1;
        1
    }
}

/// Places before the first answer.
pub(super) const SIZE_FIRST: usize = 8;
/// 64 requests of 255 KiB are 16 MiB, four times the bandwidth x delay of 1 Gbit/s at 30 ms.
const SIZE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_by_one_with_each_answer_and_stops_at_its_bound() {
        let mut window = Window::new();
        let added: usize = (0..1000).map(|_| window.answered()).sum();
        assert_eq!(SIZE_FIRST + added, SIZE_MAX);
    }
}
