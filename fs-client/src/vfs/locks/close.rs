//! What a close takes with it: a process that closes any descriptor of a file loses its fcntl(2) locks
//! on it; what was taken through a handle (flock(2), open file description locks) ends with the handle.

use std::sync::Arc;

use cairn_proto::{FsError, lock_ranges::LAST_BYTE};

use super::{LockOwner, LockRequest, LockSpace, held::Releasing};
use crate::vfs::{Caller, Fh, Vfs, open::OpenFile};

impl Vfs {
    /// Whether [`Vfs::close`] has nothing to do.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn closes_at_once(&self, fh: Fh, process: u64) -> Result<bool, FsError> {
        let open = self.handles.file(fh)?;
        let owner = LockOwner { space: LockSpace::Posix, id: process };
        Ok(!open.mode.write && !self.locks.holds(open.file().ino(), owner))
    }

    /// What close(2) does, of a descriptor of `fh` by the process `process`.
    ///
    /// # Errors
    /// As [`Vfs::flush`].
    pub async fn close(
        self: &Arc<Self>,
        caller: Caller,
        fh: Fh,
        process: u64,
    ) -> Result<(), FsError> {
        let open = self.handles.file(fh)?;
        let owner = LockOwner { space: LockSpace::Posix, id: process };
        if !self.locks.holds(open.file().ino(), owner) {
            return self.flush(fh).await;
        }
        // In a task of its own: the lock ends also when the closing process does not wait.
        let vfs = Arc::clone(self);
        let closing = tokio::spawn(async move {
            let flushed = vfs.flush(fh).await;
            vfs.unlock_all(caller, fh, &open, owner).await;
            flushed
        });
        closing.await.unwrap_or(Err(FsError::Io))
    }

    /// To be called as soon as it is known that `fh` is at its end, before [`Vfs::release`]: who asks
    /// for a lock from now on waits for the end of those taken through it.
    pub fn begin_release(&self, fh: Fh) -> Option<ReleasingLocks> {
        let open = self.handles.file(fh).ok().filter(|open| open.has_taken_locks())?;
        Some(ReleasingLocks { _mark: self.locks.begin_release(open.file().ino()) })
    }

    /// Ends what was locked through `fh`.
    pub(in crate::vfs) async fn release_locks(self: &Arc<Self>, fh: Fh, open: &Arc<OpenFile>) {
        if !open.has_taken_locks() {
            return;
        }
        for owner in self.locks.through(open.file().ino(), fh) {
            self.unlock_all(open.caller, fh, open, owner).await;
        }
    }

    async fn unlock_all(
        self: &Arc<Self>,
        caller: Caller,
        fh: Fh,
        open: &Arc<OpenFile>,
        owner: LockOwner,
    ) {
        self.forget_lost(fh, open, owner);
        let all = LockRequest { owner, start: 0, end: LAST_BYTE, mode: None, pid: 0, wait: false };
        let mut unlock = self.set_lock_through(caller, fh, Arc::clone(open), all);
        if let Err(error) = unlock.outcome().await {
            tracing::warn!(ino = %open.file().ino(), %error, "a lock is given back late, if at all");
        }
    }

    /// A lock that was lost is forgotten with the last handle through which it was held.
    fn forget_lost(&self, fh: Fh, open: &OpenFile, owner: LockOwner) {
        let ino = open.file().ino();
        let entry = self.locks.entry(ino, owner);
        {
            let mut held = entry.held();
            if held.generation != self.session.session_generation() {
                held.handles.remove(&fh);
                if held.handles.is_empty() {
                    held.ranges.remove(0, LAST_BYTE);
                }
            }
        }
        self.locks.prune(ino, owner, entry);
    }
}

/// Keeps those who ask for a lock waiting for the end of a handle. See [`Vfs::begin_release`].
#[derive(Debug)]
pub struct ReleasingLocks {
    _mark: Releasing,
}
