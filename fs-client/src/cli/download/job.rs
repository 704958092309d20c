//! [`Job`]: a download under way: what its copies share, and how it is cleaned up.

use std::{fs, path::PathBuf};

use crate::cli::{
    progress::Progress,
    store::Store,
    temporary::{LeftOvers, Staged, Temporaries},
};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) store: Store,
    pub(super) progress: Progress,
    pub(super) names: Temporaries,
    /// Temporary files of this download.
    pub(super) staged: Staged<PathBuf>,
    /// Those of killed ones, by directory.
    pub(super) left_overs: LeftOvers<PathBuf>,
}

impl Job {
    pub(super) fn new(store: Store, progress: Progress) -> Self {
        Self {
            store,
            progress,
            names: Temporaries::new(".downloading-"),
            staged: Staged::new(),
            left_overs: LeftOvers::new(),
        }
    }

    /// Removes what was left half done. No copy may be under way any longer.
    pub(super) fn clean_up(&self) {
        for path in self.staged.take() {
            // It may not have been made yet, and a failure here must not hide the one before.
            let _ = fs::remove_file(path);
        }
    }
}
