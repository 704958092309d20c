//! [`ReadAhead`]: what to fetch ahead of a reader. A pure state machine, one per handle.
//!
//! - Reads that continue where the last one ended (or nearly: the kernel sends its own read-ahead out of
//!   order) double the window up to what the caller allows ([`super::readers`]), from the start of the file at
//!   once, elsewhere as soon as [`RUN_MIN`] bytes have followed one another. Less means nothing: where a random reader has been before, the
//!   kernel itself asks for the pages that lie between.
//! - Reads at equal distances, forwards over gaps or backwards, are known by the third such distance; the
//!   places of the next ones are fetched, further ahead each time, at most that many bytes of chunks and [`STRIDE_MAX`].
//! - Any other read halves the window, and below [`WINDOW_MIN`] nothing is fetched ahead. So a random
//!   reader costs nothing extra after a few reads.

use std::ops::Range;

use super::readers::Seen;

/// The first window after a sequential read.
pub const WINDOW_MIN: u64 = 512 * 1024;
/// The largest window. Measured: a lone reader has little of more.
pub const WINDOW_MAX: u64 = 16 * 1024 * 1024;
/// The largest for strides, whose end is not to be foreseen.
const STRIDE_MAX: u64 = 8 * 1024 * 1024;
/// A window is topped up when so much of it, or half, is used: less makes small batches, more leaves the nodes idle.
const TOP_UP: u64 = 2 * 1024 * 1024;
/// So many bytes in a row are sequential.
const RUN_MIN: u64 = 128 * 1024;
/// Who has read less in a row takes no share from others: there may be many small files.
const READER_MIN: u64 = 1024 * 1024;
/// A read that begins this close to the expected place still counts as sequential.
const SLACK: u64 = 1024 * 1024;
/// So many equal distances in a row are a stride.
const STRIDES: u32 = 3;
/// Reads over smaller gaps count as sequential: what lies between is mostly in the same chunks.
const GAP: u64 = 128 * 1024;
/// What one read of a stride costs at least, in bytes: its chunk.
const UNIT: u64 = 64 * 1024;

/// What one handle's reads look like.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadAhead {
    expected: u64,
    window: u64,
    ahead_until: u64,
    /// Bytes that have followed one another so far.
    run: u64,
    stride: Stride,
    seen: Seen,
}

/// The distance between one read and the next.
#[derive(Clone, Copy, Debug, Default)]
struct Stride {
    last: u64,
    distance: i64,
    /// How often in a row.
    seen: u32,
    /// Of the reads to come so many have been fetched already.
    fetched: u64,
}

impl ReadAhead {
    /// For the count of those who read in order, if this one does.
    pub(super) fn in_order(&mut self) -> Option<&mut Seen> {
        let strides = self.stride.seen >= STRIDES && self.stride.distance != 0;
        (self.run >= READER_MIN || strides).then_some(&mut self.seen)
    }

    /// Takes note of a read and says which bytes should be fetched ahead now, in this order; often none.
    /// None of the ranges is empty. At most `most` bytes may be on their way and wait for the reader.
    pub fn observe(&mut self, offset: u64, len: u64, size: u64, most: u64) -> Vec<Range<u64>> {
        self.stride.observe(offset);
        if self.stride.counts(len) {
            (self.expected, self.window, self.ahead_until) = (offset.saturating_add(len), 0, 0);
            return self.stride.ahead(len, size, most);
        }
        let range = self.sequential(offset, len, size, most);
        if range.is_empty() { Vec::new() } else { vec![range] }
    }

    fn sequential(&mut self, offset: u64, len: u64, size: u64, most: u64) -> Range<u64> {
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
            self.run = len;
            return 0..0;
        }
        self.expected = self.expected.max(end);
        self.run = if offset == 0 { RUN_MIN } else { self.run.saturating_add(len) };
        if self.run < RUN_MIN {
            return 0..0;
        }
        self.window = (self.window * 2).max(WINDOW_MIN).min(most);
        let from = self.ahead_until.max(self.expected);
        let until = self.expected.saturating_add(self.window);
        // Large windows end between two runs of chunks, which are asked for as a whole.
        let until =
            if self.window >= 2 * TOP_UP { until / TOP_UP * TOP_UP } else { until }.min(size);
        if from >= until || (until < size && until - from < TOP_UP.min(self.window / 2)) {
            return 0..0;
        }
        self.ahead_until = until;
        from..until
    }
}

impl Stride {
    fn observe(&mut self, offset: u64) {
        // Offsets of files are below 2^63.
        let distance = offset.wrapping_sub(self.last).cast_signed();
        if distance == self.distance {
            self.seen = self.seen.saturating_add(1);
            self.fetched = self.fetched.saturating_sub(1);
        } else {
            (self.distance, self.seen, self.fetched) = (distance, 1, 0);
        }
        self.last = offset;
    }

    /// Whether reads of `len` bytes at this distance are better fetched one by one than with all between.
    fn counts(&self, len: u64) -> bool {
        let forwards_over_gaps = self.distance > 0 && self.distance.unsigned_abs() >= len + GAP;
        self.seen >= STRIDES && (self.distance < 0 || forwards_over_gaps)
    }

    fn ahead(&mut self, len: u64, size: u64, most: u64) -> Vec<Range<u64>> {
        // Short steps share chunks: they are looked ahead for as far as their chunks allow.
        let cost = self.distance.unsigned_abs().min(len.max(UNIT)).max(1);
        let most = (most.min(STRIDE_MAX) / cost).max(1);
        let grown = 1u64.checked_shl(self.seen - STRIDES + 2).unwrap_or(most);
        let wanted = if cost < UNIT { most } else { grown.min(most) };
        if wanted - self.fetched.min(wanted) < wanted.div_ceil(2) {
            return Vec::new();
        }
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for n in self.fetched + 1..=wanted {
            let by = i64::try_from(n).ok().and_then(|n| self.distance.checked_mul(n));
            let Some(start) = by.and_then(|by| self.last.checked_add_signed(by)) else { break };
            if start >= size {
                break;
            }
            let range = start..start.saturating_add(len).min(size);
            match ranges.last_mut() {
                Some(last) if range.end >= last.start && range.start < last.start => {
                    last.start = range.start;
                }
                _ => ranges.push(range),
            }
        }
        self.fetched = wanted;
        ranges
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZE: u64 = 1 << 30;

    #[test]
    fn a_sequential_reader_is_always_ahead_and_never_fetches_twice() {
        const LEN: u64 = 128 * 1024;
        for most in [WINDOW_MIN, 1 << 20, 2 << 20, 2_800_000, 4 << 20, 8 << 20, WINDOW_MAX] {
            let mut state = ReadAhead::default();
            let mut fetched = LEN;
            for step in 0..512u64 {
                let offset = step * LEN;
                assert!(fetched >= offset + LEN, "with {most} it has caught up at {offset}");
                for range in state.observe(offset, LEN, SIZE, most) {
                    assert_eq!(
                        range.start, fetched,
                        "with {most}: nothing twice, nothing left out"
                    );
                    fetched = range.end;
                }
                assert!(fetched <= offset + LEN + most);
            }
            assert!(fetched - 512 * LEN + TOP_UP >= most / 2, "the window has grown to {most}");
        }
    }

    #[test]
    fn stops_at_the_end_of_the_file() {
        let mut state = ReadAhead::default();
        assert_eq!(state.observe(0, 4096, 10_000, WINDOW_MAX), vec![4096..10_000]);
        assert!(state.observe(4096, 4096, 10_000, WINDOW_MAX).is_empty());
    }

    #[test]
    fn a_random_reader_fetches_nothing_ahead() {
        let mut state = ReadAhead::default();
        state.observe(0, 4096, SIZE, WINDOW_MAX);
        for step in 1..50u64 {
            let offset = (step * 7_919 % 101) * 9 * 1024 * 1024 + (1 << 24);
            assert!(state.observe(offset, 4096, SIZE, WINDOW_MAX).is_empty(), "read at {offset}");
        }
    }

    #[test]
    fn a_few_pages_in_a_row_at_random_places_are_no_sequence() {
        let mut state = ReadAhead::default();
        for _ in 0..2 {
            for step in 1..200u64 {
                let offset = (step * 7_919 % 101) * 9 * 1024 * 1024 + (1 << 24);
                for (at, len) in [(offset, 4096), (offset + 4096, 16_384), (offset - 8192, 8192)] {
                    assert!(state.observe(at, len, SIZE, WINDOW_MAX).is_empty(), "read at {at}");
                }
            }
            // Nor are they after a long sequence.
            (0..100).for_each(|n| drop(state.observe(n * 131_072, 131_072, SIZE, WINDOW_MAX)));
        }
    }

    #[test]
    fn a_sequence_that_begins_anywhere_is_known_soon() {
        let mut state = ReadAhead::default();
        state.observe(0, 4096, SIZE, WINDOW_MAX);
        let fetches =
            (0..64u64).map(|n| state.observe((300 << 20) + n * 16_384, 16_384, SIZE, WINDOW_MAX));
        let first = fetches.into_iter().position(|ranges| !ranges.is_empty());
        assert_eq!(first, Some(7), "with 128 KiB");
    }

    #[test]
    fn reads_that_arrive_out_of_order_count_as_sequential() {
        let mut state = ReadAhead::default();
        state.observe(0, 131_072, SIZE, WINDOW_MAX);
        state.observe(262_144, 131_072, SIZE, WINDOW_MAX);
        assert!(state.window > WINDOW_MIN);
        state.observe(131_072, 131_072, SIZE, WINDOW_MAX);
        assert!(state.window > 2 * WINDOW_MIN);
    }

    /// Reads at `offsets`, each of `len` bytes; how many of the last half were fetched before, and how many
    /// bytes of chunks were fetched that nobody has read.
    fn fetched_before(offsets: &[u64], len: u64) -> (usize, usize) {
        const CHUNK: u64 = 64 * 1024;
        let chunks = |r: Range<u64>| r.start / CHUNK..r.end.div_ceil(CHUNK);
        let (mut state, mut fetched, mut hits) = (ReadAhead::default(), BTreeSet::new(), 0);
        let mut read = BTreeSet::new();
        for (n, &offset) in offsets.iter().enumerate() {
            let mine = chunks(offset..offset + len);
            hits +=
                usize::from(n >= offsets.len() / 2 && mine.clone().all(|c| fetched.contains(&c)));
            read.extend(mine);
            for range in state.observe(offset, len, SIZE, WINDOW_MAX) {
                assert!(!range.is_empty() && range.end <= SIZE, "{range:?}");
                fetched.extend(chunks(range));
            }
        }
        (hits, fetched.difference(&read).count())
    }

    #[test]
    fn a_backwards_reader_is_always_ahead() {
        for len in [4096, 65_536, 131_072, 1 << 20] {
            let offsets: Vec<_> = (0..200).rev().map(|n| (64 << 20) + n * len).collect();
            let (hits, wasted) = fetched_before(&offsets, len);
            assert_eq!(hits, 100, "length {len}");
            assert!(wasted <= 2 * 128, "length {len}: {wasted} chunks for nothing");
        }
    }

    #[test]
    fn strides_fetch_what_will_be_read_and_nothing_between() {
        for (stride, len) in [(1 << 20, 4096), (300_000, 65_536), (10 << 20, 1 << 20)] {
            let offsets: Vec<_> = (0..80).map(|n| n * stride).collect();
            let (hits, wasted) = fetched_before(&offsets, len);
            assert_eq!(hits, 40, "stride {stride}");
            // What the first reads took for sequential, and what lies past the last one.
            assert!(wasted <= 3 * 128, "stride {stride}: {wasted} chunks for nothing");
            let back: Vec<_> = offsets.into_iter().rev().collect();
            assert_eq!(fetched_before(&back, len).0, 40, "stride -{stride}");
        }
    }

    #[test]
    fn strides_end_with_the_file() {
        let mut state = ReadAhead::default();
        let all: Vec<_> =
            (0..10).flat_map(|n| state.observe(n << 20, 4096, 10 << 20, WINDOW_MAX)).collect();
        assert!(all.iter().all(|r| r.end <= 10 << 20));
        let mut state = ReadAhead::default();
        let back = (0..10).rev().flat_map(|n| state.observe(n << 20, 4096, 10 << 20, WINDOW_MAX));
        assert_eq!(back.last().map(|r| r.start), Some(0), "the beginning is fetched too");
    }

    #[test]
    fn what_is_read_again_and_again_is_no_stride() {
        let mut state = ReadAhead::default();
        let far = SIZE / 2;
        state.observe(far, 4096, SIZE, WINDOW_MAX);
        let again: usize = (0..20).map(|_| state.observe(far, 4096, SIZE, WINDOW_MAX).len()).sum();
        assert!(again <= 5, "{again} times");
    }
}
