//! What repair has moved, how fast it goes, and what went wrong last. Counted where it happens.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use cairn_proto::pb;

/// The speed is that of the last so many seconds.
const WINDOW: Duration = Duration::from_secs(5);
/// Samples of the window: more would only be forgotten unread.
const SAMPLES: usize = 64;
/// A failure is shown for this long.
const SHOWN: Duration = Duration::from_secs(60);

/// Numbers only grow, but for what runs now.
#[derive(Debug, Default)]
pub(super) struct Progress {
    chunks_moved: AtomicU64,
    bytes_moved: AtomicU64,
    chunks_dropped: AtomicU64,
    bytes_dropped: AtomicU64,
    pulls: AtomicU32,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    samples: VecDeque<(Instant, u64)>,
    problem: Option<(Instant, String)>,
}

/// Counts a pull as running until it is dropped.
pub(super) struct Pulling<'a>(&'a Progress);

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        self.0.pulls.fetch_sub(1, Relaxed);
    }
}

impl Progress {
    pub(super) fn pulling(&self) -> Pulling<'_> {
        self.pulls.fetch_add(1, Relaxed);
        Pulling(self)
    }

    pub(super) fn moved(&self, chunks: u64, bytes: u64) {
        self.chunks_moved.fetch_add(chunks, Relaxed);
        self.bytes_moved.fetch_add(bytes, Relaxed);
    }

    pub(super) fn dropped(&self, chunks: u64, bytes: u64) {
        self.chunks_dropped.fetch_add(chunks, Relaxed);
        self.bytes_dropped.fetch_add(bytes, Relaxed);
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something did not work.
    pub(super) fn problem(&self, why: String) {
        tracing::warn!(why, "repair");
        self.recent().problem = Some((Instant::now(), why));
    }

    /// Time has passed; called a few times a second at most.
    pub(super) fn sample(&self, now: Instant) {
        let bytes = self.bytes_moved.load(Relaxed);
        let samples = &mut self.recent().samples;
        samples.push_back((now, bytes));
        while samples.len() > SAMPLES
            || samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW)
        {
            samples.pop_front();
        }
    }

    fn speed(&self) -> u64 {
        let recent = self.recent();
        let (Some((first, before)), Some((last, after))) =
            (recent.samples.front(), recent.samples.back())
        else {
            return 0;
        };
        let ms = u64::try_from(last.saturating_duration_since(*first).as_millis()).unwrap_or(0);
        (after - before).saturating_mul(1000).checked_div(ms).unwrap_or(0)
    }

    /// Adds itself to what is known of the groups.
    pub(super) fn fill(&self, status: &mut pb::RepairStatus) {
        status.chunks_moved = self.chunks_moved.load(Relaxed);
        status.bytes_moved = self.bytes_moved.load(Relaxed);
        status.chunks_dropped = self.chunks_dropped.load(Relaxed);
        status.bytes_dropped = self.bytes_dropped.load(Relaxed);
        status.pulls = self.pulls.load(Relaxed);
        status.bytes_per_second = self.speed();
        status.eta_seconds = match status.bytes_per_second {
            0 => 0,
            speed => status.bytes_to_move.div_ceil(speed),
        };
        let recent = self.recent();
        let shown = recent.problem.as_ref().filter(|(at, _)| at.elapsed() < SHOWN);
        status.problem = shown.map(|(_, why)| why.clone()).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_the_last_seconds() {
        let (progress, t) = (Progress::default(), Instant::now());
        for second in 0..20 {
            progress.moved(1, if second < 10 { 1000 } else { 300 });
            progress.sample(t + Duration::from_secs(second));
        }
        let mut status = pb::RepairStatus { bytes_to_move: 3001, ..Default::default() };
        progress.fill(&mut status);
        assert_eq!((status.bytes_per_second, status.eta_seconds), (300, 11));
        assert_eq!((status.chunks_moved, status.bytes_moved), (20, 13_000));
        let pulling = progress.pulling();
        progress.fill(&mut status);
        assert_eq!(status.pulls, 1);
        drop(pulling);
        progress.fill(&mut status);
        assert_eq!(status.pulls, 0);
    }
}
