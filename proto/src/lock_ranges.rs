//! [`Ranges`]: the locks of one owner on one file, as fcntl(2) keeps them. Pure.
//!
//! Spans are in order, do not overlap, and equal neighbours are one. Setting a span replaces whatever
//! was there: locks split, merge, are upgraded and downgraded.

/// The last byte of the longest file.
pub const LAST_BYTE: u64 = i64::MAX.unsigned_abs();

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
}

impl Mode {
    /// Whether two owners may not have these on the same byte.
    pub fn excludes(self, other: Self) -> bool {
        self == Self::Write || other == Self::Write
    }
}

/// Locked bytes, or bytes that somebody wants to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
    /// How.
    pub mode: Mode,
    /// The process that asked, for people.
    pub pid: u32,
}

impl Span {
    /// Whether two owners may not have both.
    pub fn excludes(&self, other: &Self) -> bool {
        self.mode.excludes(other.mode) && self.start <= other.end && other.start <= self.end
    }
}

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Span>);

impl Ranges {
    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of spans.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The first span that `wanted` of another owner cannot be had beside.
    pub fn excluding(&self, wanted: &Span) -> Option<Span> {
        self.0.iter().find(|held| held.excludes(wanted)).copied()
    }

    /// Nothing in `start..=end` is locked any more.
    pub fn remove(&mut self, start: u64, end: u64) {
        let mut kept = Vec::with_capacity(self.0.len() + 1);
        for span in self.0.drain(..) {
            if span.end < start || span.start > end {
                kept.push(span);
                continue;
            }
            if span.start < start {
                kept.push(Span { end: start - 1, ..span });
            }
            if span.end > end {
                kept.push(Span { start: end + 1, ..span });
            }
        }
        self.0 = kept;
    }

    /// `span` is locked, whatever was there before.
    pub fn set(&mut self, span: Span) {
        self.remove(span.start, span.end);
        let at = self.0.partition_point(|held| held.start < span.start);
        self.0.insert(at, span);
        self.join(at + 1);
        self.join(at);
    }

    /// Makes one of the span `at` and the one before when they are alike and touch.
    fn join(&mut self, at: usize) {
        let (Some(left), Some(right)) =
            (at.checked_sub(1).and_then(|before| self.0.get(before)), self.0.get(at))
        else {
            return;
        };
        if left.mode == right.mode && left.end.checked_add(1) == Some(right.start) {
            let joined = Span { start: left.start, ..*right };
            self.0[at] = joined;
            self.0.remove(at - 1);
        }
    }

    /// All spans, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Span> {
        self.0.iter()
    }

    /// What of `start..=end` is locked.
    pub fn within(&self, start: u64, end: u64) -> Self {
        let clip = |span: &Span| {
            let (start, end) = (span.start.max(start), span.end.min(end));
            (start <= end).then_some(Span { start, end, ..*span })
        };
        Self(self.0.iter().filter_map(clip).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES: u64 = 24;
    const READ: Option<Mode> = Some(Mode::Read);
    const WRITE: Option<Mode> = Some(Mode::Write);

    fn modes(ranges: &Ranges) -> Vec<Option<Mode>> {
        let of = |byte| ranges.0.iter().find(|s| s.start <= byte && byte <= s.end).map(|s| s.mode);
        (0..BYTES).map(of).collect()
    }

    fn step() -> impl Strategy<Value = (u64, u64, Option<Mode>)> {
        let mode = prop_oneof![Just(None), Just(READ), Just(WRITE)];
        (0..BYTES, 0..BYTES, mode).prop_map(|(a, b, mode)| (a.min(b), a.max(b), mode))
    }

    proptest! {
        #[test]
        fn ranges_are_what_a_table_of_bytes_says(steps in prop::collection::vec(step(), 1..60)) {
            let mut ranges = Ranges::default();
            let mut bytes = vec![None; BYTES as usize];
            for (start, end, mode) in steps {
                bytes[start as usize..=end as usize].fill(mode);
                match mode {
                    Some(mode) => ranges.set(Span { start, end, mode, pid: 1 }),
                    None => ranges.remove(start, end),
                }
                prop_assert_eq!(&modes(&ranges), &bytes);
                let mut runs = 0;
                for (at, mode) in bytes.iter().enumerate() {
                    runs += usize::from(mode.is_some() && (at == 0 || bytes[at - 1] != *mode));
                }
                prop_assert_eq!(ranges.len(), runs, "equal neighbours are one");
                let part = modes(&ranges.within(start, end));
                for (byte, mode) in (0..).zip(part) {
                    let inside = start <= byte && byte <= end;
                    prop_assert_eq!(mode, bytes[byte as usize].filter(|_| inside));
                }
            }
        }

        #[test]
        fn what_excludes_is_found(steps in prop::collection::vec(step(), 1..20), want in step()) {
            let mut ranges = Ranges::default();
            for (start, end, mode) in steps {
                match mode {
                    Some(mode) => ranges.set(Span { start, end, mode, pid: 1 }),
                    None => ranges.remove(start, end),
                }
            }
            let (start, end, mode) = want;
            let mode = mode.unwrap_or(Mode::Read);
            let wanted = Span { start, end, mode, pid: 2 };
            let bytes = &modes(&ranges)[start as usize..=end as usize];
            let clash = bytes.iter().flatten().any(|held| held.excludes(mode));
            prop_assert_eq!(ranges.excluding(&wanted).is_some(), clash);
        }
    }

    #[test]
    fn the_end_of_all_files_has_no_byte_after_it() {
        let mut ranges = Ranges::default();
        ranges.set(Span { start: 5, end: u64::MAX, mode: Mode::Read, pid: 1 });
        ranges.set(Span { start: 0, end: 4, mode: Mode::Read, pid: 1 });
        assert_eq!(ranges.len(), 1);
        ranges.remove(0, u64::MAX);
        assert!(ranges.is_empty());
    }
}
