//! [`Tally`]: how far a pull is, told to its caller: at least every second, at each group's end, at the
//! end of all.
//!
//! Every message has the counts since the beginning, and the failures since the message before it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_proto::{Group, pb};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tonic::Status;

const EVERY: Duration = Duration::from_secs(1);
/// A caller that takes no message for so long is as good as gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most failures that wait to be told; more are only counted.
const FAILURES: usize = 100;

/// Where messages go.
pub type Progress = mpsc::Sender<Result<pb::PullProgress, Status>>;

/// See the module.
pub struct Tally {
    now: Mutex<pb::PullProgress>,
    progress: Progress,
}

impl Tally {
    /// Nothing is done yet.
    pub fn new(progress: Progress) -> Self {
        Self { now: Mutex::new(pb::PullProgress::default()), progress }
    }

    /// Work on a group begins.
    pub fn begin(&self, group: Group) {
        self.lock().group = group.0;
    }

    /// So many more are known to be missing.
    pub fn missing(&self, chunks: usize) {
        self.lock().chunks_missing += chunks as u64;
    }

    /// One that was missing is stored.
    pub fn pulled(&self, bytes: usize) {
        let mut now = self.lock();
        now.chunks_pulled += 1;
        now.bytes_pulled += bytes as u64;
        now.chunks_missing = now.chunks_missing.saturating_sub(1);
    }

    /// Something did not go well.
    pub fn failed(&self, why: String) {
        tracing::warn!("repair: {why}");
        let failures = &mut self.lock().failures;
        if failures.len() < FAILURES {
            failures.push(why);
        }
    }

    /// A group is through.
    pub async fn group_done(&self, group: Group) {
        let message = pb::PullProgress { group: group.0, group_done: true, ..self.take() };
        self.tell(message).await;
    }

    /// Everything is through.
    pub async fn done(&self) {
        let message = pb::PullProgress { done: true, ..self.take() };
        self.tell(message).await;
    }

    /// Tells every second how far it is. Never returns.
    pub async fn tick(&self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A caller that has not taken the last one is told with the next.
            if let Ok(place) = self.progress.try_reserve() {
                place.send(Ok(self.take()));
            }
        }
    }

    /// Returns when the caller is gone.
    pub async fn abandoned(&self) {
        self.progress.closed().await;
    }

    fn take(&self) -> pb::PullProgress {
        let mut now = self.lock();
        let failures = std::mem::take(&mut now.failures);
        pb::PullProgress { failures, ..now.clone() }
    }

    async fn tell(&self, message: pb::PullProgress) {
        // Whoever is gone does not want to know; the pull ends with the stream.
        let _ = self.progress.send_timeout(Ok(message), PATIENCE).await;
    }

    fn lock(&self) -> MutexGuard<'_, pb::PullProgress> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
