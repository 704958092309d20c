//! [`ReadAhead`]: how far ahead of a reader to fetch. A pure state machine, one per handle.
//!
//! Reads that continue where the last one ended (or nearly: the kernel sends its own read-ahead out
//! of order) double the window up to [`WINDOW_MAX`]; any other read halves it, and below
//! [`WINDOW_MIN`] nothing is fetched ahead. So a random reader costs nothing extra after a few reads.

use std::ops::Range;

/// The first window after a sequential read.
pub const WINDOW_MIN: u64 = 512 * 1024;
/// The largest window.
pub const WINDOW_MAX: u64 = 8 * 1024 * 1024;
/// A read that begins this close to the expected place still counts as sequential.
const SLACK: u64 = 1024 * 1024;

/// What one handle's reads look like.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadAhead {
    expected: u64,
    window: u64,
    ahead_until: u64,
}

impl ReadAhead {
    /// Takes note of a read and says which bytes should be fetched ahead now; often none.
    pub fn observe(&mut self, offset: u64, len: u64, size: u64) -> Range<u64> {
        let end = offset.saturating_add(len);
        let near = offset <= self.expected.saturating_add(SLACK)
            && offset.saturating_add(SLACK) >= self.expected;
        if !near {
            self.window /= 2;
            if self.window < WINDOW_MIN {
                self.window = 0;
            }
            self.expected = end;
            self.ahead_until = 0;
            return 0..0;
        }
        self.expected = self.expected.max(end);
        self.window = (self.window * 2).clamp(WINDOW_MIN, WINDOW_MAX);
        // Topping up in halves keeps the batches large.
        let from = self.ahead_until.max(self.expected);
        let until = self.expected.saturating_add(self.window).min(size);
        if from >= until || (until < size && until - from < self.window / 2) {
            return 0..0;
        }
        self.ahead_until = until;
        from..until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 30;

    #[test]
    fn a_sequential_reader_is_always_ahead_and_never_fetches_twice() {
        let mut state = ReadAhead::default();
        let mut fetched = 0;
        for step in 0..512u64 {
            let offset = step * 128 * 1024;
            let range = state.observe(offset, 128 * 1024, SIZE);
            if !range.is_empty() {
                assert!(range.start >= fetched, "{range:?} was fetched already");
                fetched = range.end;
            }
            assert!(fetched > offset, "the reader has caught up at {offset}");
            assert!(fetched <= offset + 128 * 1024 + WINDOW_MAX);
        }
        assert!(fetched - 512 * 128 * 1024 > WINDOW_MAX / 2 - 1024 * 1024, "the window has grown");
    }

    #[test]
    fn stops_at_the_end_of_the_file() {
        let mut state = ReadAhead::default();
        assert_eq!(state.observe(0, 4096, 10_000), 4096..10_000);
        assert!(state.observe(4096, 4096, 10_000).is_empty());
    }

    #[test]
    fn a_random_reader_fetches_nothing_ahead() {
        let mut state = ReadAhead::default();
        state.observe(0, 4096, SIZE);
        for step in 1..50u64 {
            let offset = (step * 7_919 % 101) * 9 * 1024 * 1024 + (1 << 24);
            assert!(state.observe(offset, 4096, SIZE).is_empty(), "read at {offset}");
        }
    }

    #[test]
    fn reads_that_arrive_out_of_order_count_as_sequential() {
        let mut state = ReadAhead::default();
        state.observe(0, 131_072, SIZE);
        state.observe(262_144, 131_072, SIZE);
        assert!(state.window > WINDOW_MIN);
        state.observe(131_072, 131_072, SIZE);
        assert!(state.window > 2 * WINDOW_MIN);
    }
}
