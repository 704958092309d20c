//! [`Ranges`]: which bytes of one chunk are meant. Pure.
//!
//! Invariant: sorted, disjoint, not touching, none empty. A chunk that an application fills in order
//! has exactly one range, so a small vector is the right container.

/// A set of byte positions within one chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// The set with the one range `start..end`.
    pub fn of(start: u32, end: u32) -> Self {
        let mut ranges = Self::default();
        ranges.insert(start, end);
        ranges
    }

    /// Adds `start..end`; merges with what it overlaps or touches.
    pub fn insert(&mut self, start: u32, end: u32) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|&(_, e)| e < start);
        let last = self.0.partition_point(|&(s, _)| s <= end);
        if first == last {
            self.0.insert(first, (start, end));
            return;
        }
        let merged = (start.min(self.0[first].0), end.max(self.0[last - 1].1));
        self.0.splice(first..last, [merged]);
    }

    /// Adds everything that `other` has.
    pub fn insert_all(&mut self, other: &Self) {
        for &(start, end) in &other.0 {
            self.insert(start, end);
        }
    }

    /// Removes every position at or above `end`.
    pub fn clip(&mut self, end: u32) {
        self.0.retain(|&(start, _)| start < end);
        if let Some(last) = self.0.last_mut() {
            last.1 = last.1.min(end);
        }
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }

    /// The ranges cut to `start..end`, in order.
    pub fn within(&self, start: u32, end: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.iter().map(move |(s, e)| (s.max(start), e.min(end))).filter(|(s, e)| s < e)
    }

    /// Whether every position of `start..end` is in the set.
    pub fn covers(&self, start: u32, end: u32) -> bool {
        start >= end || self.iter().any(|(s, e)| s <= start && end <= e)
    }

    /// One past the last position; 0 when empty.
    pub fn end(&self) -> u32 {
        self.0.last().map_or(0, |&(_, end)| end)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions(ranges: &Ranges) -> Vec<u32> {
        ranges.iter().flat_map(|(s, e)| s..e).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_positions(
            inserts in prop::collection::vec((0u32..64, 0u32..16), 0..12),
            window in (0u32..70, 0u32..70),
            clip in 0u32..80,
        ) {
            let mut ranges = Ranges::default();
            let mut model = std::collections::BTreeSet::new();
            for (start, len) in inserts {
                ranges.insert(start, start + len);
                model.extend(start..start + len);
            }
            prop_assert_eq!(positions(&ranges), model.iter().copied().collect::<Vec<_>>());
            for pair in ranges.0.windows(2) {
                prop_assert!(pair[0].1 < pair[1].0, "touching ranges are merged");
            }
            let (a, b) = window;
            prop_assert_eq!(ranges.covers(a, b), (a..b).all(|p| model.contains(&p)));
            let seen: Vec<u32> = ranges.within(a, b).flat_map(|(s, e)| s..e).collect();
            prop_assert_eq!(seen, model.iter().copied().filter(|p| (a..b).contains(p)).collect::<Vec<_>>());
            prop_assert_eq!(ranges.end(), model.last().map_or(0, |p| p + 1));
            ranges.clip(clip);
            prop_assert_eq!(positions(&ranges), model.into_iter().filter(|p| *p < clip).collect::<Vec<_>>());
        }
    }
}
