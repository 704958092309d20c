//! The order of events within repair: which question was asked after which doubt arose. No time of day.

/// A moment; later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

impl Tick {
    /// Before everything.
    pub(super) const NEVER: Self = Self(0);
}

/// Hands out moments.
#[derive(Debug, Default)]
pub(super) struct Clock(u64);

impl Clock {
    /// A moment after all before.
    pub(super) fn tick(&mut self) -> Tick {
        self.0 += 1;
        Tick(self.0)
    }
}
