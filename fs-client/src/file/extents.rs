//! [`Extents`]: bytes of ours within one chunk, and where they belong. Pure.
//!
//! Invariant: sorted, disjoint, not touching, none empty. A chunk that an application fills in order has
//! exactly one extent; one that it writes here and there takes little more memory than what was written.

use bytes::Bytes;

/// What an extent takes beside its bytes, rounded up.
pub const EXTENT: usize = 128;

/// Bytes that follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Extent<B> {
    start: u32,
    bytes: B,
}

/// See the module's head. Of `Vec<u8>` while they grow, of [`Bytes`] when they are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents<B>(Vec<Extent<B>>);

impl<B> Default for Extents<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B: AsRef<[u8]>> Extent<B> {
    fn end(&self) -> u32 {
        // Chunks have at most 16 MiB.
        self.start + self.bytes.as_ref().len() as u32
    }
}

impl<B: AsRef<[u8]>> Extents<B> {
    /// Positions and bytes, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.0.iter().map(|extent| (extent.start, extent.bytes.as_ref()))
    }

    /// The same, cut to `start..end`.
    pub fn within(&self, start: u32, end: u32) -> impl Iterator<Item = (u32, &[u8])> {
        self.0.iter().filter_map(move |extent| {
            let (from, to) = (extent.start.max(start), extent.end().min(end));
            let cut = |at: u32| (at - extent.start) as usize;
            (from < to).then(|| (from, &extent.bytes.as_ref()[cut(from)..cut(to)]))
        })
    }

    /// Whether every position of `start..end` is ours.
    pub fn covers(&self, start: u32, end: u32) -> bool {
        start >= end || self.0.iter().any(|e| e.start <= start && end <= e.end())
    }

    /// Whether any position of `start..end` is.
    pub fn touches(&self, start: u32, end: u32) -> bool {
        self.within(start, end).next().is_some()
    }

    /// One past the last position; 0 when there is none.
    pub fn end(&self) -> u32 {
        self.0.last().map_or(0, Extent::end)
    }

    /// Copies our bytes over `out`, which begins at position `start` of the chunk.
    pub fn overlay(&self, start: u32, out: &mut [u8]) {
        let end = start.saturating_add(u32::try_from(out.len()).unwrap_or(u32::MAX));
        for (at, bytes) in self.within(start, end) {
            out[(at - start) as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// A copy of what lies within `start..end`.
    pub fn part(&self, start: u32, end: u32) -> Extents<Bytes> {
        let copy = |(start, bytes): (u32, &[u8])| Extent { start, bytes: bytes.to_vec().into() };
        Extents(self.within(start, end).map(copy).collect())
    }
}

impl Extents<Vec<u8>> {
    /// Enters `bytes` at `start`, over what is there. Nothing lies beyond `limit`, ever.
    pub fn write(&mut self, start: u32, bytes: &[u8], limit: u32) {
        if bytes.is_empty() {
            return;
        }
        let end = start + bytes.len() as u32;
        let first = self.0.partition_point(|e| e.end() < start);
        let last = self.0.partition_point(|e| e.start <= end);
        match &mut self.0[first..last] {
            [] => self.0.insert(first, Extent { start, bytes: bytes.to_vec() }),
            [one] if one.start <= start => one.write(start, bytes, limit),
            some => {
                let from = start.min(some[0].start);
                let to = end.max(some[some.len() - 1].end());
                let mut merged = vec![0; (to - from) as usize];
                for extent in some {
                    let at = (extent.start - from) as usize;
                    merged[at..][..extent.bytes.len()].copy_from_slice(&extent.bytes);
                }
                merged[(start - from) as usize..][..bytes.len()].copy_from_slice(bytes);
                self.0.splice(first..last, [Extent { start: from, bytes: merged }]);
            }
        }
    }

    /// Bytes of memory that writing `start..end` takes, about.
    pub fn lacks(&self, start: u32, end: u32) -> usize {
        let there: usize = self.within(start, end).map(|(_, bytes)| bytes.len()).sum();
        let apart = self.0.iter().all(|e| e.end() < start || end < e.start);
        (end - start) as usize - there + if apart { EXTENT } else { 0 }
    }

    /// What was written; nothing is added to it.
    pub fn freeze(self) -> Extents<Bytes> {
        let freeze = |Extent { start, mut bytes }: Extent<Vec<u8>>| {
            // It may live long in a cache that counts its length.
            if bytes.capacity() - bytes.len() > bytes.len() / 8 {
                bytes.shrink_to_fit();
            }
            Extent { start, bytes: Bytes::from(bytes) }
        };
        Extents(self.0.into_iter().map(freeze).collect())
    }
}

impl Extent<Vec<u8>> {
    /// Enters `bytes` at `start`, which is within this one or where it ends.
    fn write(&mut self, start: u32, bytes: &[u8], limit: u32) {
        let at = (start - self.start) as usize;
        let wanted = at + bytes.len();
        if wanted > self.bytes.capacity() {
            let most = (limit - self.start) as usize;
            let capacity = wanted.max(self.bytes.capacity() * 2).min(most);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        let (over, beyond) = bytes.split_at(bytes.len().min(self.bytes.len() - at));
        self.bytes[at..][..over.len()].copy_from_slice(over);
        self.bytes.extend_from_slice(beyond);
    }
}

impl Extents<Bytes> {
    /// The one extent `bytes` at `start`.
    pub fn of(start: u32, bytes: Bytes) -> Self {
        let empty = bytes.is_empty();
        Self(if empty { Vec::new() } else { vec![Extent { start, bytes }] })
    }

    /// The bytes, when they are one extent that begins with the chunk.
    pub fn whole(&self) -> Option<Bytes> {
        match &self.0[..] {
            [Extent { start: 0, bytes }] => Some(bytes.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map_of_positions(
            writes in prop::collection::vec((0u32..64, 0usize..16), 0..12),
            window in (0u32..70, 0u32..70),
        ) {
            let mut extents = Extents::default();
            let mut model = BTreeMap::new();
            for (n, (start, len)) in writes.into_iter().enumerate() {
                let byte = u8::try_from(n + 1).unwrap();
                let end = start + len as u32;
                let fresh = (start..end).filter(|p| !model.contains_key(p)).count();
                let lacks = extents.lacks(start, end);
                prop_assert!(lacks == fresh || lacks == fresh + EXTENT);
                extents.write(start, &vec![byte; len], 80);
                model.extend((start..end).map(|p| (p, byte)));
            }
            for pair in extents.0.windows(2) {
                prop_assert!(pair[0].end() < pair[1].start, "touching extents are merged");
            }
            prop_assert!(extents.0.iter().all(|e| e.start as usize + e.bytes.capacity() <= 80));
            let flat = |list: &Extents<Bytes>| -> Vec<(u32, u8)> {
                list.iter().flat_map(|(s, b)| (s..).zip(b.iter().copied()).collect::<Vec<_>>()).collect()
            };
            let frozen = extents.clone().freeze();
            prop_assert_eq!(flat(&frozen), model.iter().map(|(p, b)| (*p, *b)).collect::<Vec<_>>());
            let (a, b) = window;
            let inside: Vec<_> =
                model.iter().filter(|(p, _)| (a..b).contains(*p)).map(|(p, b)| (*p, *b)).collect();
            prop_assert_eq!(flat(&frozen.part(a, b)), inside.clone());
            prop_assert_eq!(frozen.touches(a, b), !inside.is_empty());
            prop_assert_eq!(frozen.covers(a, b), (a..b).all(|p| model.contains_key(&p)));
            prop_assert_eq!(frozen.end(), model.last_key_value().map_or(0, |(p, _)| p + 1));
            let mut out = vec![0; (b.max(a) - a) as usize];
            frozen.overlay(a, &mut out);
            let expected = (a..b).map(|p| model.get(&p).copied().unwrap_or(0));
            prop_assert_eq!(out, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_filled_in_order_is_one_extent_that_is_not_copied_at_the_end() {
        let mut extents = Extents::default();
        for n in 0..16 {
            extents.write(n * 4, &[7; 4], 64);
        }
        let at = extents.0[0].bytes.as_ptr();
        assert_eq!(extents.0[0].bytes.capacity(), 64);
        assert_eq!(extents.freeze().whole().unwrap().as_ptr(), at);
    }

    #[test]
    fn the_window_is_respected() {
        let mut out = [0; 4];
        Extents::of(2, Bytes::from_static(&[9; 3])).overlay(3, &mut out);
        assert_eq!(out, [9, 9, 0, 0]);
    }
}
