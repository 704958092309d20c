//! Cutting: dirty bytes and the chunk that is there make the new chunk. Pure.
//!
//! Base bytes past the base's content never come back: the caller passes only its logical length.

use bytes::Bytes;

use super::ranges::Ranges;

/// Whether the bytes of a base of `base_len` bytes of content are needed to write `dirty` over it.
pub fn needs_base(dirty: &Ranges, base_len: u32) -> bool {
    !dirty.covers(0, base_len)
}

/// The new content: `base`, zeros up to the end of the dirty bytes, and over them the bytes of
/// `data` that `dirty` names. `data` is indexed like the chunk and must be zero outside `dirty`.
pub fn cut(dirty: &Ranges, data: Bytes, base: &[u8]) -> Bytes {
    let end = dirty.end() as usize;
    debug_assert!(data.len() >= end, "dirty ranges lie within the data");
    if base.len() <= end && dirty.covers(0, u32::try_from(base.len()).unwrap_or(u32::MAX)) {
        return data.slice(..end);
    }
    let mut merged = Vec::with_capacity(base.len().max(end));
    merged.extend_from_slice(base);
    merged.resize(base.len().max(end), 0);
    overlay(dirty, &data, 0, &mut merged);
    merged.into()
}

/// Whether `content` is nothing but zeros, which a hole says as well.
pub fn is_zero(content: &[u8]) -> bool {
    content.chunks(256).all(|part| part.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// Copies the bytes of `data` that `dirty` names over `out`, which begins at position `start` of the
/// chunk.
pub fn overlay(dirty: &Ranges, data: &[u8], start: u32, out: &mut [u8]) {
    let end = start.saturating_add(u32::try_from(out.len()).unwrap_or(u32::MAX));
    for (s, e) in dirty.within(start, end) {
        let (from, to) = ((s - start) as usize, (e - start) as usize);
        out[from..to].copy_from_slice(&data[s as usize..e as usize]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn dirty_bytes_win_over_the_base_and_gaps_are_zero(
            base in prop::collection::vec(1u8..=255, 0..40),
            writes in prop::collection::vec((0u32..40, 1u32..12), 1..5),
        ) {
            let mut dirty = Ranges::default();
            let mut data = Vec::new();
            let mut model = base.clone();
            for (i, &(start, len)) in writes.iter().enumerate() {
                let byte = 100 + u8::try_from(i).unwrap();
                let (from, to) = (start as usize, (start + len) as usize);
                dirty.insert(start, start + len);
                for buffer in [&mut data, &mut model] {
                    let len = buffer.len().max(to);
                    buffer.resize(len, 0);
                    buffer[from..to].fill(byte);
                }
            }
            let data = Bytes::from(data);
            prop_assert_eq!(&cut(&dirty, data.clone(), &base)[..], &model[..]);
            let len = u32::try_from(base.len()).unwrap();
            if !needs_base(&dirty, len) {
                // Without the base's bytes the result is the same but for what lies behind the end.
                prop_assert_eq!(&cut(&dirty, data, &[])[..], &model[..]);
            }
        }
    }

    #[test]
    fn a_whole_chunk_is_not_copied() {
        let data = Bytes::from(vec![7; 64]);
        let cut = cut(&Ranges::of(0, 64), data.clone(), &[1; 64]);
        assert_eq!(cut.as_ptr(), data.as_ptr());
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        assert!(is_zero(&[]) && is_zero(&[0; 1000]));
        for at in [0, 255, 256, 999] {
            let mut content = [0; 1000];
            content[at] = 1;
            assert!(!is_zero(&content), "{at}");
        }
    }

    #[test]
    fn overlay_respects_the_window() {
        let mut out = [0; 4];
        overlay(&Ranges::of(2, 5), &[9; 8], 3, &mut out);
        assert_eq!(out, [9, 9, 0, 0]);
    }
}
