//! [`Rate`]: so many bytes a second, for all who take from it together.
//!
//! Who takes reserves its time and waits for it; waiters are served in order of arrival.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Time that is not used is kept for so long, so that an uneven flow still reaches the rate.
const KEPT: Duration = Duration::from_millis(200);

#[derive(Default)]
struct State {
    /// 0: no bound.
    per_second: u64,
    /// When everything that was taken is paid for.
    paid: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub struct Rate(Mutex<State>);

impl Rate {
    /// From now on this many bytes a second; 0: no bound.
    pub fn set(&self, per_second: u64) {
        self.lock().per_second = per_second;
    }

    /// Returns when `bytes` may flow.
    pub async fn take(&self, bytes: u64) {
        if let Some(when) = self.reserve(bytes, Instant::now()) {
            sleep_until(when).await;
        }
    }

    fn reserve(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        if state.per_second == 0 {
            state.paid = None;
            return None;
        }
        let micros = u128::from(bytes) * 1_000_000 / u128::from(state.per_second);
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(KEPT).unwrap_or(now);
        let begin = state.paid.map_or(earliest, |paid| paid.max(earliest));
        // Slower than this is a mistake, not a rate.
        state.paid = Some(begin + cost.min(Duration::from_secs(3600)));
        Some(begin.max(now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_takers_together_keep_to_the_rate() {
        let rate = Rate::default();
        let start = Instant::now() + Duration::from_secs(10);
        assert_eq!(rate.reserve(1 << 30, start), None);
        rate.set(1 << 20);
        let waits = (0..10).map(|_| rate.reserve(1 << 19, start).unwrap().duration_since(start));
        let waits: Vec<_> = waits.collect();
        // The first goes at once and pays with the time that was kept.
        assert_eq!(waits[0], Duration::ZERO);
        assert_eq!(waits[9], Duration::from_millis(9 * 500) - KEPT);
        assert!(waits.is_sorted());
    }
}
