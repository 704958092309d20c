//! Byte ranges and chunk indexes. No other file divides an offset by the chunk size.

use std::ops::Range;

/// The part of one chunk that a byte range touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSpan {
    /// Index of the chunk in the file.
    pub index: u64,
    /// First byte within the chunk.
    pub start: u32,
    /// One past the last byte within the chunk; greater than `start`.
    pub end: u32,
}

impl ChunkSpan {
    /// Bytes covered; never 0.
    pub const fn len(&self) -> u32 {
        self.end - self.start
    }

    /// Always false; spans are made non-empty.
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// Splits `offset .. offset + len` at chunk borders. `offset + len` must not overflow.
pub fn spans(offset: u64, len: u64, chunk_size: u32) -> impl Iterator<Item = ChunkSpan> {
    let size = u64::from(chunk_size);
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let index = at / size;
        let base = index * size;
        let stop = end.min(base + size);
        #[expect(clippy::cast_possible_truncation, reason = "both are below the chunk size, a u32")]
        let span = ChunkSpan { index, start: (at - base) as u32, end: (stop - base) as u32 };
        at = stop;
        Some(span)
    })
}

/// Indexes of the chunks that `offset .. offset + len` touches.
pub fn indexes(offset: u64, len: u64, chunk_size: u32) -> Range<u64> {
    let size = u64::from(chunk_size);
    if len == 0 {
        return offset / size..offset / size;
    }
    offset / size..(offset + len).div_ceil(size)
}

/// Number of chunks that a file of `size` bytes spans.
pub const fn chunk_count(size: u64, chunk_size: u32) -> u64 {
    size.div_ceil(chunk_size as u64)
}

/// Byte offset at which chunk `index` begins. Saturates.
pub const fn chunk_start(index: u64, chunk_size: u32) -> u64 {
    index.saturating_mul(chunk_size as u64)
}

/// How many bytes of chunk `index` lie before the end of a file of `size` bytes.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the chunk size, a u32")]
pub fn len_within(index: u64, size: u64, chunk_size: u32) -> u32 {
    size.saturating_sub(chunk_start(index, chunk_size)).min(u64::from(chunk_size)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_cover_the_range_once_and_in_order(offset in 0u64..1 << 40, len in 0u64..1 << 22, bits in 12u32..20) {
            let size = 1u32 << bits;
            let mut at = offset;
            for span in spans(offset, len, size) {
                prop_assert_eq!(chunk_start(span.index, size) + u64::from(span.start), at);
                prop_assert!(span.start < span.end && span.end <= size);
                at += u64::from(span.len());
            }
            prop_assert_eq!(at, offset + len);
            let touched: Vec<_> = spans(offset, len, size).map(|s| s.index).collect();
            prop_assert_eq!(touched, indexes(offset, len, size).collect::<Vec<_>>());
        }
    }

    #[test]
    fn counts_and_tails() {
        assert_eq!(chunk_count(0, 4096), 0);
        assert_eq!(chunk_count(4097, 4096), 2);
        assert_eq!(len_within(1, 4097, 4096), 1);
        assert_eq!(len_within(2, 4097, 4096), 0);
        assert_eq!(len_within(0, 4097, 4096), 4096);
    }
}
