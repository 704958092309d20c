//! [`Latency`]: how often something was done and how long it took, in fixed buckets.
//!
//! The crate's own histogram can only be printed; this one can be read as well, so that a status
//! answer, a profile and the metrics page show the same numbers. Recording is two additions without a
//! lock; a reader that comes in between sees one of them a moment before the other.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets in microseconds, from what memory answers to what a user gives up on.
pub const BOUNDS_US: [u64; 18] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
];
/// The bounds, and what takes longer than the last.
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Latency {
    /// It was done once and took `took`.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How often it was done.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Everything so far.
    pub fn snapshot(&self) -> Distribution {
        Distribution {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(),
            nanos: self.nanos.load(Relaxed),
        }
    }
}

/// What a [`Latency`] had recorded at one moment, or between two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// Count of each bucket of [`BOUNDS_US`]; the last has what took longer.
    pub buckets: Vec<u64>,
    /// Sum of all times in nanoseconds.
    pub nanos: u64,
}

impl Distribution {
    /// How often.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What came after `earlier`, which is of the same [`Latency`].
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().chain(std::iter::repeat(&0));
        Self {
            buckets: self.buckets.iter().zip(before).map(|(a, b)| a.saturating_sub(*b)).collect(),
            nanos: self.nanos.saturating_sub(earlier.nanos),
        }
    }

    /// The mean; `None` when there was nothing.
    pub fn mean(&self) -> Option<Duration> {
        self.nanos.checked_div(self.count()).map(Duration::from_nanos)
    }

    /// The time within which the share `q` (0 to 1) was done, estimated within its bucket; `None` when
    /// there was nothing.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (count as f64 * q).max(1.0);
        let mut below = 0.0;
        let mut lower = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            let upper = BOUNDS_US.get(i).copied().unwrap_or(lower);
            let here = *n as f64;
            if below + here >= rank {
                let part = (rank - below) / here;
                let micros = lower as f64 + (upper - lower) as f64 * part;
                return Some(Duration::from_nanos((micros * 1000.0) as u64));
            }
            below += here;
            lower = upper;
        }
        Some(Duration::from_micros(lower))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let latency = Latency::default();
        for took in [us(0), us(50), Duration::from_nanos(50_001), us(30_000_000), us(30_000_001)] {
            latency.record(took);
        }
        let all = latency.snapshot();
        assert_eq!((all.buckets[0], all.buckets[1]), (2, 1));
        assert_eq!((all.buckets[BUCKETS - 2], all.buckets[BUCKETS - 1]), (1, 1));
        assert_eq!((all.count(), latency.count()), (5, 5));
    }

    #[test]
    fn what_lies_between_two_moments_is_told_apart() {
        let latency = Latency::default();
        assert_eq!(latency.snapshot().quantile(0.99), None);
        assert_eq!(latency.snapshot().mean(), None);
        latency.record(us(10_000_000));
        let earlier = latency.snapshot();
        for _ in 0..99 {
            latency.record(us(80));
        }
        latency.record(us(1500));
        let between = latency.snapshot().since(&earlier);
        assert_eq!(between.count(), 100);
        assert_eq!(between.mean(), Some(Duration::from_nanos(94_200)));
        let median = between.quantile(0.5).unwrap();
        assert!(us(50) < median && median <= us(100), "{median:?}");
        assert!(between.quantile(0.99).unwrap() <= us(100));
        assert!(between.quantile(1.0).unwrap() > us(1000));
        assert_eq!(between.since(&Distribution::default()), between);
    }
}
