//! [`FileContext`]: what all files of a mount share: connections, budgets, the list of dirty files.
//!
//! Lock order: a file's state, then the list of dirty files; nothing is held across an await.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_proto::{FsError, Ino, pb};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

use super::{
    File,
    dirty::{Permit, cost_at_most},
    manifests::ManifestCache,
    readers::Readers,
    state::State,
};
use crate::{
    chunks::Chunks,
    config::ClientConfig,
    rpc::{Caller, Session},
    supervisor::Record,
};

/// Bytes of chunks that are cut and handed to the nodes at the same time; more wait their turn
/// without their deadline running.
const UPLOAD_BYTES: usize = 32 << 20;

/// How often who waits for room has the files flushed.
const FLUSH_AGAIN: Duration = Duration::from_secs(1);

/// See the module's head.
pub struct FileContext {
    session: Session,
    chunks: Chunks,
    pub(super) chunk_size: u32,
    pub(super) deadline: Duration,
    /// Bytes that may be uncommitted, over all files.
    budget: Arc<Semaphore>,
    budget_total: usize,
    pub(super) uploads: Semaphore,
    pub(super) manifests: ManifestCache,
    pub(super) readers: Readers,
    /// Files with uncommitted bytes.
    dirty: Mutex<HashMap<Ino, Arc<File>>>,
    /// Where a successor looks which files had some, or have lost some.
    record: Option<Arc<Record>>,
    pub(super) runtime: Handle,
}

impl FileContext {
    /// `dirty_bytes` bounds the memory of what may be written and not yet be committed.
    /// Must be called within the runtime that shall do the work.
    pub fn new(
        session: Session,
        chunks: Chunks,
        dirty_bytes: usize,
        config: &ClientConfig,
    ) -> Self {
        let chunk_size = session.chunk_size();
        let chunk = (chunk_size as usize).max(1);
        // A write of 1 MiB must fit at once, whatever the chunk size, and so must four chunks.
        let least = cost_at_most(1 << 20, chunk_size).max(4 * chunk);
        let budget_total = dirty_bytes.clamp(least, Semaphore::MAX_PERMITS);
        Self {
            session,
            chunks,
            chunk_size,
            deadline: config.deadline,
            budget: Arc::new(Semaphore::new(budget_total)),
            budget_total,
            uploads: Semaphore::new((UPLOAD_BYTES / chunk).max(4)),
            manifests: ManifestCache::default(),
            readers: Readers::new(config.cache_bytes, config.download_bytes),
            dirty: Mutex::default(),
            record: config.record.clone(),
            runtime: Handle::current(),
        }
    }

    /// How long a remote answer is waited for.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Access to chunks.
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// The session with the master.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Bytes in the whole budget.
    pub(super) fn budget_total(&self) -> usize {
        self.budget_total
    }

    /// How many chunks that are dirty from end to end it has room for.
    pub(super) fn chunks_within_budget(&self) -> usize {
        self.budget_total / (self.chunk_size as usize).max(1)
    }

    /// Bytes of memory that uncommitted bytes take now, and at most.
    pub fn dirty_bytes(&self) -> (usize, usize) {
        (self.budget_total.saturating_sub(self.budget.available_permits()), self.budget_total)
    }

    /// `count` bytes of the budget if they are free now.
    pub(super) fn try_take(&self, count: usize) -> Option<Permit> {
        let count = u32::try_from(count).ok()?;
        Arc::clone(&self.budget).try_acquire_many_owned(count).ok()
    }

    /// `count` bytes of the budget; writes back what is dirty when there are none.
    pub(super) async fn take(&self, count: usize) -> Result<Permit, FsError> {
        if let Some(permit) = self.try_take(count) {
            return Ok(permit);
        }
        let count = u32::try_from(count).map_err(|_| FsError::NoMemory)?;
        let taking = Arc::clone(&self.budget).acquire_many_owned(count);
        let mut taking = pin!(timeout(self.deadline, taking));
        loop {
            // Again and again: a flush that is under way leaves out what was written after it began.
            for file in self.dirty_files() {
                file.flush_in_background();
            }
            match timeout(FLUSH_AGAIN, taking.as_mut()).await {
                Ok(Ok(permit)) => return permit.map_err(|_| FsError::Io),
                Ok(Err(_)) => return Err(FsError::TimedOut),
                Err(_) => {}
            }
        }
    }

    pub(super) fn register_dirty(&self, file: &Arc<File>) {
        let mut dirty = self.lock();
        if let Some(record) = &self.record {
            record.dirty(file.ino().get());
        }
        dirty.insert(file.ino(), Arc::clone(file));
    }

    /// Nothing of a file in this state is uncommitted any longer.
    pub(super) fn unregister_dirty(&self, ino: Ino, state: &State) {
        self.lock().remove(&ino);
        self.forget_lost(ino, state);
    }

    /// A successor tells the handles of recorded files that bytes were lost. So a file stays recorded
    /// until every handle has told what it has to.
    pub(super) fn forget_lost(&self, ino: Ino, state: &State) {
        if let Some(record) = &self.record
            && !state.has_uncommitted()
            && state.errors.all_told()
        {
            record.clean(ino.get());
        }
    }

    pub(super) fn dirty_files(&self) -> Vec<Arc<File>> {
        self.lock().values().cloned().collect()
    }

    /// References of `ino` from `first_index` on.
    pub(super) async fn manifest_page(
        &self,
        caller: Caller,
        ino: Ino,
        first_index: u64,
        max_refs: u32,
    ) -> Result<pb::ManifestPage, FsError> {
        let op = pb::GetFileManifest { ino: ino.get(), first_index, max_refs };
        match self.session.call(caller, pb::op::Kind::GetFileManifest(op)).await?.kind {
            pb::reply::Kind::ManifestPage(page) if page.end || page.next_index > first_index => {
                Ok(page)
            }
            _ => Err(FsError::Protocol),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Arc<File>>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
