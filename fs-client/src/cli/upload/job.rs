//! [`Job`]: an upload under way: what its copies share, how far it is, and how it is cleaned up.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use cairn_proto::{FileName, Ino};
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cli::{
    progress::Progress,
    store::Store,
    temporary::{LeftOvers, Staged, Temporaries},
};

/// How often the line is brought up to date.
const LOOK: Duration = Duration::from_millis(100);
/// How long cleaning up may take.
const CLEAN: Duration = Duration::from_secs(1);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) store: Store,
    pub(super) progress: Progress,
    pub(super) names: Temporaries,
    /// Temporary names of this upload, by directory.
    pub(super) staged: Staged<(Ino, FileName)>,
    /// Those of killed ones.
    pub(super) left_overs: LeftOvers<Ino>,
    pub(super) done: Done,
}

/// What has been copied.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) files: AtomicU64,
    /// Lengths of regular files.
    pub(super) bytes: AtomicU64,
    /// Bytes of them that lie in holes.
    pub(super) holes: AtomicU64,
}

impl Job {
    pub(super) fn new(store: Store, progress: Progress) -> Self {
        Self {
            store,
            progress,
            names: Temporaries::new(".uploading-"),
            staged: Staged::new(),
            left_overs: LeftOvers::new(),
            done: Done::default(),
        }
    }

    /// Keeps the line up to date: what counts is what the nodes have, not what was read.
    pub(super) async fn follow(&self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let traffic = self.store.vfs.chunks().traffic();
            let holes = self.done.holes.load(Relaxed);
            self.progress.reach(traffic.sent + traffic.present + holes);
        }
    }

    /// Removes what was left half done, as far as the master answers at once. No copy may be
    /// under way any longer.
    pub(super) async fn clean_up(&self) {
        let store = &self.store;
        let staged = self.staged.take();
        let removals = staged.iter().map(|(dir, name)| store.vfs.unlink(store.caller, *dir, name));
        // What remains has a name that the next upload knows.
        let _ = timeout(CLEAN, join_all(removals)).await;
    }
}
