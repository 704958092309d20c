//! [`Readers`]: how much may be fetched ahead for one reader, beside the others.
//!
//! What is fetched ahead waits in the chunk cache until it is read. Half of the cache is for that, in equal shares
//! for all who read in order at the moment: with more, what was fetched would be gone before it is read. Nor is it more
//! than may be on its way ahead of readers at a time, so that nothing is left out. Who that is shows
//! by their reads: each counts once in each [`PERIOD`], and for the next one. Who reads more seldom takes room without
//! being counted; that is bounded by the window of each alone.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::readahead::{WINDOW_MAX, WINDOW_MIN};

/// Who has not read for so long, and at most twice that, takes no share.
const PERIOD: Duration = Duration::from_millis(200);

/// Of one reader: the last period it was counted in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen(u64);

/// See the head of this file.
pub(super) struct Readers {
    /// Bytes for all.
    room: u64,
    counts: Mutex<Counts>,
}

struct Counts {
    /// From 1.
    period: u64,
    began: Instant,
    now: u64,
    before: u64,
}

impl Readers {
    /// Who share half of a cache of `cache` bytes, and of the `download` bytes that may be on their way.
    pub(super) fn new(cache: usize, download: usize) -> Self {
        let room = cache.min(download) as u64 / 2;
        let counts = Counts { period: 1, began: Instant::now(), now: 0, before: 0 };
        Self { room, counts: Mutex::new(counts) }
    }

    /// How many bytes may be fetched ahead for a reader. Counts it if it reads in order.
    pub(super) fn share(&self, seen: Option<&mut Seen>, now: Instant) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(counts.began);
        if since >= PERIOD {
            counts.before = if since < 2 * PERIOD { counts.now } else { 0 };
            (counts.period, counts.began, counts.now) = (counts.period + 1, now, 0);
        }
        if let Some(seen) = seen
            && seen.0 != counts.period
        {
            seen.0 = counts.period;
            counts.now += 1;
        }
        let readers = counts.now.max(counts.before);
        drop(counts);
        (self.room / readers.max(1)).clamp(WINDOW_MIN, WINDOW_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: usize = 128 << 20;

    #[test]
    fn a_lone_reader_has_all_it_can_use_and_many_have_equal_shares() {
        let readers = Readers::new(CACHE, CACHE);
        let now = Instant::now();
        let mut seen = [Seen::default(); 16];
        assert_eq!(readers.share(Some(&mut seen[0]), now), WINDOW_MAX);
        assert_eq!(readers.share(Some(&mut seen[0]), now), WINDOW_MAX, "it counts once");
        let last = seen.iter_mut().map(|seen| readers.share(Some(seen), now)).last();
        assert_eq!(last, Some(4 << 20));
        // In the next period all of them are known already.
        let next = now + PERIOD;
        assert!(seen.iter_mut().all(|seen| readers.share(Some(seen), next) == 4 << 20));
        let mut more = [Seen::default(); 1000];
        assert_eq!(
            more.iter_mut().map(|seen| readers.share(Some(seen), next)).last(),
            Some(WINDOW_MIN)
        );
    }

    #[test]
    fn who_reads_no_more_takes_no_share() {
        let readers = Readers::new(CACHE, CACHE);
        let now = Instant::now();
        let mut seen = [Seen::default(); 16];
        seen.iter_mut().for_each(|seen| _ = readers.share(Some(seen), now));
        assert_eq!(readers.share(Some(&mut seen[0]), now + PERIOD), 4 << 20, "they may go on");
        assert_eq!(readers.share(Some(&mut seen[0]), now + 2 * PERIOD), WINDOW_MAX);
        seen.iter_mut().for_each(|seen| _ = readers.share(Some(seen), now + 3 * PERIOD));
        assert_eq!(
            readers.share(Some(&mut seen[0]), now + 5 * PERIOD),
            WINDOW_MAX,
            "after a rest too"
        );
    }

    #[test]
    fn a_small_cache_is_not_overrun() {
        assert_eq!(Readers::new(4 << 20, CACHE).share(None, Instant::now()), 2 << 20);
        assert_eq!(Readers::new(CACHE, 4 << 20).share(None, Instant::now()), 2 << 20, "on its way");
        assert_eq!(Readers::new(0, CACHE).share(None, Instant::now()), WINDOW_MIN);
    }
}
