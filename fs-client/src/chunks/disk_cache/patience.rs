//! [`Patience`]: how long a reader waits for the cache's disk before the nodes are asked, too.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tracing::warn;

/// A disk that takes longer is late. Disks that spin up to a read need a fraction of it.
const PATIENCE: Duration = Duration::from_millis(250);
/// Nobody waits for a disk that was late, for so long.
const LOST: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Patience {
    began: Instant,
    /// Milliseconds after the beginning until which nobody waits.
    lost_until: AtomicU64,
    said: AtomicBool,
}

impl Default for Patience {
    fn default() -> Self {
        let (lost_until, said) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { began: Instant::now(), lost_until, said }
    }
}

impl Patience {
    /// Returns when the nodes shall be asked: the disk of the cache in `dir` has not answered.
    pub(super) async fn ends(&self, dir: &Path) {
        if self.now() < self.lost_until.load(Relaxed) {
            return;
        }
        sleep(PATIENCE).await;
        let lost = u64::try_from(LOST.as_millis()).unwrap_or(u64::MAX);
        self.lost_until.store(self.now().saturating_add(lost), Relaxed);
        if !self.said.swap(true, Relaxed) {
            warn!("the disk of the cache in {} is late: the nodes are asked, too", dir.display());
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_was_late_is_not_waited_for() {
        let patience = Patience::default();
        assert!(patience.ends(Path::new("/d")).now_or_never().is_none(), "there is some");
        patience.ends(Path::new("/d")).await;
        assert!(patience.began.elapsed() >= PATIENCE);
        assert!(patience.ends(Path::new("/d")).now_or_never().is_some(), "at once");
    }
}
