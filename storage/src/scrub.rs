//! [`Scrubber`]: reads everything again from time to time, so that damage is found while another node
//! still has a good copy.
//!
//! Each disk has its own pass, from the first id to the last, as slowly as the period allows but not
//! slower than [`SLOWEST`]; a pass that somebody asks for goes as fast as the bandwidth allows. How far it
//! is is stored now and then: a restart reads some chunks twice, none not at all. What is found is noted
//! by the store and healed by a repair, which is no business of this file.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    repair::rate::Rate,
    service::Stopping,
    store::{Store, scrub::Pass},
};

/// A pass that runs by itself reads at least so many bytes a second of each disk.
const SLOWEST: u64 = 4 * 1024 * 1024;
/// Chunks that are read at a time: 1 MiB of chunks of the usual size.
const STEP: usize = 16;
/// How far it is is stored this often.
const STORED_EVERY: Duration = Duration::from_secs(30);
/// A disk that has failed is looked at again after this time.
const FAILED: Duration = Duration::from_secs(60);

/// When and how fast.
#[derive(Clone, Copy, Debug)]
pub struct ScrubSettings {
    /// Everything is read once within this time; zero: only when asked for.
    pub period: Duration,
    /// Most bytes a second of each disk.
    pub bandwidth: u64,
}

struct Disk {
    asked: AtomicBool,
    wake: Notify,
    rate: Rate,
}

/// See the module.
pub struct Scrubber {
    store: Arc<Store>,
    settings: ScrubSettings,
    disks: Vec<Disk>,
}

/// Why reading stopped before the end of a pass.
enum Ended {
    Done,
    Asked,
    Failed,
}

impl Scrubber {
    /// Nothing is read before [`Scrubber::run`].
    pub fn new(store: Arc<Store>, settings: ScrubSettings) -> Self {
        let disk =
            |_| Disk { asked: AtomicBool::new(false), wake: Notify::new(), rate: Rate::default() };
        let disks = (0..store.disks()).map(disk).collect();
        Self { store, settings, disks }
    }

    /// Begins a pass of every disk now, from the beginning; whether one was running.
    pub fn begin(&self) -> bool {
        let was_running = self.store.scrub_status().running;
        for disk in &self.disks {
            disk.asked.store(true, Ordering::Release);
            disk.wake.notify_one();
        }
        was_running
    }

    /// Scrubs until the node stops.
    pub async fn run(&self, mut stopping: Stopping) {
        let disks = (0..self.disks.len()).map(|n| self.disk(n));
        tokio::select! {
            () = stopping.wait() => {}
            _ = join_all(disks) => {}
        }
        for n in 0..self.disks.len() {
            self.store_pass(n, None).await;
        }
    }

    async fn disk(&self, n: usize) {
        let disk = &self.disks[n];
        loop {
            let Some((pass, _)) = self.store.pass(n) else {
                sleep(FAILED).await;
                continue;
            };
            let asked = disk.asked.swap(false, Ordering::AcqRel);
            if asked || !pass.running {
                if !asked {
                    tokio::select! {
                        () = disk.wake.notified() => continue,
                        () = self.due(&pass) => {}
                    }
                }
                let Some(new) = self.store.new_pass(n, now()) else { continue };
                self.store_pass(n, Some(new)).await;
            }
            match self.read(n, asked).await {
                Ended::Done => self.finish(n).await,
                Ended::Asked => {}
                Ended::Failed => sleep(FAILED).await,
            }
        }
    }

    /// Returns when the next pass is to begin by itself.
    async fn due(&self, last: &Pass) {
        if self.settings.period.is_zero() {
            return std::future::pending().await;
        }
        let since = Duration::from_secs(now().saturating_sub(last.started));
        // A clock that was set back must not put it off for ever.
        sleep(self.settings.period.saturating_sub(since)).await;
    }

    /// Reads on to the end of the pass.
    async fn read(&self, n: usize, hurried: bool) -> Ended {
        let disk = &self.disks[n];
        let mut stored = Instant::now();
        loop {
            if disk.asked.load(Ordering::Acquire) {
                return Ended::Asked;
            }
            let Some((pass, bytes)) = self.store.pass(n) else { return Ended::Failed };
            disk.rate.set(self.pace(bytes, hurried));
            let store = Arc::clone(&self.store);
            let read = move || {
                let next = store.scrub_some(n, pass, STEP);
                if let Ok(Some(next)) = next {
                    store.set_pass(n, next, false);
                }
                next
            };
            match self.store.blocking(read).await {
                Ok(Some(next)) => disk.rate.take(next.bytes.saturating_sub(pass.bytes)).await,
                Ok(None) => return Ended::Done,
                Err(_) => return Ended::Failed,
            }
            if stored.elapsed() >= STORED_EVERY {
                stored = Instant::now();
                self.store_pass(n, None).await;
            }
        }
    }

    /// Bytes a second for a disk with so many bytes.
    fn pace(&self, bytes: u64, hurried: bool) -> u64 {
        let most = self.settings.bandwidth.max(1);
        if hurried || self.settings.period.is_zero() {
            return most;
        }
        // Done after three quarters of the period: disks may be busy or away for a while.
        let seconds = (self.settings.period.as_secs() * 3 / 4).max(1);
        (bytes / seconds).max(SLOWEST).min(most)
    }

    async fn finish(&self, n: usize) {
        let Some((pass, _)) = self.store.pass(n) else { return };
        let done = Pass { running: false, passes: pass.passes + 1, finished: now(), ..pass };
        let (chunks, damaged) = (done.checked, done.damaged);
        self.store_pass(n, Some(done)).await;
        tracing::info!(disk = n, chunks, damaged, "has read everything again");
    }

    /// Stores `pass`, or how far it is now, so that a restart knows.
    async fn store_pass(&self, n: usize, pass: Option<Pass>) {
        let Some((current, _)) = self.store.pass(n) else { return };
        let store = Arc::clone(&self.store);
        self.store.blocking(move || store.set_pass(n, pass.unwrap_or(current), true)).await;
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs().max(1))
}
