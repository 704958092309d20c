//! [`GarbageFilter`]: which chunks of one placement group are referred to, as a Bloom filter. It never
//! says no of a chunk that was put in; of others it says yes about once in two thousand times, and not
//! of the same ones with another salt, so that garbage that is missed once goes with the next cycle.

use bytes::{Bytes, BytesMut};

use crate::ChunkId;

/// Bits for each reference.
const BITS_PER_KEY: u64 = 16;
/// Bits that one chunk sets; near the optimum for that many bits.
const HASHES: u64 = 8;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GarbageFilter {
    salt: u64,
    bits: BytesMut,
}

/// Bytes of a filter for this many references: whole words of 64 bits.
pub const fn filter_bytes(references: u64) -> u64 {
    references.saturating_mul(BITS_PER_KEY).div_ceil(64).saturating_mul(8)
}

/// A bijection that spreads every bit of the input over the output (the end of splitmix64).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl GarbageFilter {
    /// A filter with room for `references` chunks. With none nothing can be put in.
    pub fn with_room_for(references: u64, salt: u64) -> Self {
        let bytes = usize::try_from(filter_bytes(references)).unwrap_or(usize::MAX);
        Self { salt, bits: BytesMut::zeroed(bytes) }
    }

    /// The filter with these bits, as [`GarbageFilter::into_bits`] gave them.
    pub fn from_bits(bits: BytesMut, salt: u64) -> Self {
        Self { salt, bits }
    }

    /// The bits as they travel.
    pub fn into_bits(self) -> Bytes {
        self.bits.freeze()
    }

    /// The places of `id`.
    fn places(&self, id: &ChunkId) -> impl Iterator<Item = u64> + use<> {
        let words = id.as_bytes().as_chunks::<8>().0;
        // Not the first word: the group is in it.
        let first = mix(u64::from_le_bytes(words[1]) ^ self.salt);
        let step = mix(u64::from_le_bytes(words[2]) ^ self.salt.rotate_left(32)) | 1;
        let size = self.bits.len() as u64 * 8;
        let scaled = move |hash: u64| ((u128::from(hash) * u128::from(size)) >> 64) as u64;
        (0..HASHES).map(move |i| scaled(first.wrapping_add(i.wrapping_mul(step))))
    }

    /// The chunk is referred to.
    pub fn insert(&mut self, id: &ChunkId) {
        for place in self.places(id) {
            if let Some(byte) = self.bits.get_mut((place / 8) as usize) {
                *byte |= 1 << (place % 8);
            }
        }
    }

    /// Whether the chunk may be referred to; no is certain.
    pub fn contains(&self, id: &ChunkId) -> bool {
        !self.bits.is_empty()
            && self.places(id).all(|place| {
                self.bits
                    .get((place / 8) as usize)
                    .is_some_and(|byte| byte & (1 << (place % 8)) != 0)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> ChunkId {
        ChunkId::of(&n.to_le_bytes())
    }

    #[test]
    fn everything_put_in_is_found_and_nearly_nothing_else() {
        const KEYS: u64 = 20_000;
        let mut wrong = [0u64; 2];
        for (salt, wrong) in [7, 8].into_iter().zip(&mut wrong) {
            let mut filter = GarbageFilter::with_room_for(KEYS, salt);
            (0..KEYS).for_each(|n| filter.insert(&id(n)));
            let bits = filter.into_bits();
            assert_eq!(bits.len() as u64, filter_bytes(KEYS));
            let filter = GarbageFilter::from_bits(BytesMut::from(bits.as_ref()), salt);
            assert!((0..KEYS).all(|n| filter.contains(&id(n))));
            *wrong = (KEYS..5 * KEYS).filter(|n| filter.contains(&id(*n))).count() as u64;
            assert!(*wrong < 4 * KEYS / 1000, "{wrong} of {}", 4 * KEYS);
        }
        let both = |salt| {
            let mut filter = GarbageFilter::with_room_for(KEYS, salt);
            (0..KEYS).for_each(|n| filter.insert(&id(n)));
            filter
        };
        let (one, two) = (both(7), both(8));
        let missed = (KEYS..5 * KEYS).filter(|n| one.contains(&id(*n)) && two.contains(&id(*n)));
        assert!(missed.count() as u64 <= wrong[0] / 4, "another salt does not help");
    }

    #[test]
    fn an_empty_filter_holds_nothing() {
        let mut filter = GarbageFilter::with_room_for(0, 1);
        filter.insert(&id(1));
        assert!(!filter.contains(&id(1)));
    }

    /// Masters and nodes of different releases must agree for ever.
    #[test]
    fn the_bits_never_change() {
        let mut filter = GarbageFilter::with_room_for(4, 0x1234_5678_9abc_def0);
        filter.insert(&id(1));
        filter.insert(&id(2));
        let hex: String = filter.into_bits().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "0242120a020a0243");
    }
}
