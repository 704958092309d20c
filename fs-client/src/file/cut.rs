//! Cutting: our bytes and the chunk that is there make the new chunk. Pure.
//!
//! Base bytes past the base's content never come back: the caller passes only its logical length.

use bytes::Bytes;

use super::extents::Extents;

/// Whether the bytes of a base of `base_len` bytes of content are needed to write `ours` over it.
pub fn needs_base(ours: &Extents<Bytes>, base_len: u32) -> bool {
    !ours.covers(0, base_len)
}

/// The new content: `base`, zeros up to the end of `ours`, and `ours` over them.
pub fn cut(ours: &Extents<Bytes>, base: &[u8]) -> Bytes {
    let end = ours.end() as usize;
    if base.len() <= end
        && let Some(whole) = ours.whole()
    {
        return whole;
    }
    let mut merged = Vec::with_capacity(base.len().max(end));
    merged.extend_from_slice(base);
    merged.resize(base.len().max(end), 0);
    ours.overlay(0, &mut merged);
    merged.into()
}

/// Whether `content` is nothing but zeros, which a hole says as well.
pub fn is_zero(content: &[u8]) -> bool {
    content.chunks(256).all(|part| part.iter().fold(0, |seen, byte| seen | byte) == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn our_bytes_win_over_the_base_and_gaps_are_zero(
            base in prop::collection::vec(1u8..=255, 0..40),
            writes in prop::collection::vec((0u32..40, 1usize..12), 1..5),
        ) {
            let mut ours = Extents::default();
            let mut model = base.clone();
            for (i, &(start, len)) in writes.iter().enumerate() {
                let byte = 100 + u8::try_from(i).unwrap();
                let (from, to) = (start as usize, start as usize + len);
                ours.write(start, &vec![byte; len], 64);
                model.resize(model.len().max(to), 0);
                model[from..to].fill(byte);
            }
            let ours = ours.freeze();
            prop_assert_eq!(&cut(&ours, &base)[..], &model[..]);
            let len = u32::try_from(base.len()).unwrap();
            if !needs_base(&ours, len) {
                // Without the base's bytes the result is the same.
                prop_assert_eq!(&cut(&ours, &[])[..], &model[..]);
            }
        }
    }

    #[test]
    fn a_whole_chunk_is_not_copied() {
        let data = Bytes::from(vec![7; 64]);
        let cut = cut(&Extents::of(0, data.clone()), &[1; 64]);
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
}
