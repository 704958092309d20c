//! [`LockTable`]: the locks that this mount holds, and the handles through which they were taken.
//!
//! The entries of one owner on one file are changed by one exchange with the master at a time (`turn`),
//! so that what is noted here is what the master has. An entry of an earlier session is kept, as lost,
//! until its handles are closed.
//!
//! Lock order: `turn` (async), then the table, then an entry; neither of the two across an await.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cairn_proto::{Ino, lock_ranges::Ranges};
use tokio::sync::Notify;

use super::LockOwner;
use crate::vfs::Fh;

/// What one owner holds on one file.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Of which session.
    pub(super) generation: u64,
    pub(super) ranges: Ranges,
    /// The handles through which it took them.
    pub(super) handles: HashSet<Fh>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    held: Mutex<Held>,
}

impl Entry {
    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Owners = HashMap<LockOwner, Arc<Entry>>;

/// See the module's head.
#[derive(Debug, Default)]
pub struct LockTable {
    files: Mutex<HashMap<Ino, Owners>>,
    /// Handles with locks that are being given back, by file.
    releases: Mutex<HashMap<Ino, usize>>,
    released: Notify,
}

impl LockTable {
    fn files(&self) -> MutexGuard<'_, HashMap<Ino, Owners>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn entry(&self, ino: Ino, owner: LockOwner) -> Arc<Entry> {
        Arc::clone(self.files().entry(ino).or_default().entry(owner).or_default())
    }

    /// Whether `owner` holds, or has lost, locks on `ino`.
    pub fn holds(&self, ino: Ino, owner: LockOwner) -> bool {
        self.files()
            .get(&ino)
            .and_then(|owners| owners.get(&owner))
            .is_some_and(|entry| !entry.held().ranges.is_empty())
    }

    /// Who took locks on `ino` through `fh`.
    pub(super) fn through(&self, ino: Ino, fh: Fh) -> Vec<LockOwner> {
        let files = self.files();
        let owners = files.get(&ino).into_iter().flatten();
        owners
            .filter(|(_, entry)| entry.held().handles.contains(&fh))
            .map(|(owner, _)| *owner)
            .collect()
    }

    /// Whether a lock that was taken on `ino` through `fh` was lost with an earlier session.
    pub fn lost(&self, ino: Ino, fh: Fh, generation: u64) -> bool {
        self.files().get(&ino).into_iter().flatten().any(|(_, entry)| {
            let held = entry.held();
            held.generation != generation && !held.ranges.is_empty() && held.handles.contains(&fh)
        })
    }

    /// Whether anybody holds a lock on `ino` in the session of `generation`.
    pub(super) fn is_locked(&self, ino: Ino, generation: u64) -> bool {
        self.files().get(&ino).into_iter().flatten().any(|(_, entry)| {
            let held = entry.held();
            held.generation == generation && !held.ranges.is_empty()
        })
    }

    /// Forgets `owner` when it holds nothing and nobody is about to change that.
    pub(super) fn prune(&self, ino: Ino, owner: LockOwner, entry: Arc<Entry>) {
        let mut files = self.files();
        // The table's and ours.
        let unused = Arc::strong_count(&entry) <= 2 && entry.held().ranges.is_empty();
        if unused && let Some(owners) = files.get_mut(&ino) {
            owners.remove(&owner);
            if owners.is_empty() {
                files.remove(&ino);
            }
        }
    }

    fn releases(&self) -> MutexGuard<'_, HashMap<Ino, usize>> {
        self.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle of `ino` with locks is being given back, until the answer is dropped.
    pub(super) fn begin_release(self: &Arc<Self>, ino: Ino) -> Releasing {
        *self.releases().entry(ino).or_default() += 1;
        Releasing { table: Arc::clone(self), ino }
    }

    /// Waits until no handle of `ino` with locks is being given back. False when none was: the kernel
    /// does not wait for the end of a handle, so a program may be ahead of its own.
    pub(super) async fn until_released(&self, ino: Ino) -> bool {
        let mut waited = false;
        loop {
            let mut told = std::pin::pin!(self.released.notified());
            told.as_mut().enable();
            if !self.releases().contains_key(&ino) {
                return waited;
            }
            waited = true;
            told.await;
        }
    }
}

/// See [`LockTable::begin_release`].
#[derive(Debug)]
pub(super) struct Releasing {
    table: Arc<LockTable>,
    ino: Ino,
}

impl Drop for Releasing {
    fn drop(&mut self) {
        let mut releases = self.table.releases();
        if let Some(count) = releases.get_mut(&self.ino) {
            *count -= 1;
            if *count == 0 {
                releases.remove(&self.ino);
            }
        }
        drop(releases);
        self.table.released.notify_waiters();
    }
}
