//! The content of files: what is written, what is read, and when it reaches nodes and master.
//!
//! All handles of an inode on this mount share one [`File`]. Its uncommitted bytes lie in two layers,
//! over the chunks that the master's manifest names:
//!
//! 1. *dirty*: written by an application, in memory only ([`dirty`]);
//! 2. *in flight*: cut into a new chunk, being put to the nodes or put and waiting for its commit
//!    ([`flight`]). At most one version of a chunk is in flight.
//!
//! A chunk that is dirty from end to end goes into flight at once, while the application goes on;
//! the others when the file is flushed: at close, fsync, truncation, when they are five seconds old,
//! when there are many, when the byte budget is used up. Chunks in flight are committed in the order in
//! which they took off, in batches, one commit at a time ([`commit`]). Bytes are kept until the master
//! has answered. When another client has changed a chunk meanwhile, our bytes are merged over its
//! version and the commit is tried again.
//!
//! Bytes appended through an `O_APPEND` handle are apart ([`append`]): where they belong is known only
//! when they are committed.
//!
//! An error that time does not heal drops everything that is not committed, so that the file remains
//! what it was at some moment; every handle tells of it ([`errors`]).
//!
//! [`extents`], [`dirty`], [`cut`], [`flight`], [`readahead`], [`errors`] and [`manifests`] are pure.
//! Lock order: `appending`, `fetching` (async), then the state (never across an await), then the
//! list of dirty files in [`context`].

pub mod append;
pub mod commit;
pub mod context;
pub mod cut;
pub mod dirty;
pub mod errors;
pub mod extents;
pub mod flight;
pub mod flush;
pub mod holes;
pub mod manifests;
pub mod read;
pub mod readahead;
mod readers;
pub mod slices;
pub mod state;
pub mod table;
pub mod write;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cairn_proto::{Attr, ChunkRef, FsError, Ino, Timestamp, pb, range::chunk_start};
use tokio::sync::Notify;

pub use self::{
    context::FileContext,
    errors::{SeenErrors, ToldBy},
    readahead::ReadAhead,
    slices::Slices,
    table::{Files, Hold},
};
use self::{manifests::PAGE_REFS, state::State};
use crate::rpc::Caller;

/// Who wrote, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// On whose behalf.
    pub caller: Caller,
    /// The commit shall clear the set-user-id and set-group-id bits.
    pub kill_suid_sgid: bool,
}

/// References asked for at once: 64 MiB of a file with chunks of 64 KiB.
const FETCH_REFS: u32 = 1024;
/// A manifest that changes under every answer is given up after this many.
const FETCH_TRIES: u32 = 100;

/// The content of one inode. See the module's head.
pub struct File {
    ino: Ino,
    context: Arc<FileContext>,
    state: Mutex<State>,
    /// Something was committed, or failed.
    progress: Notify,
    /// Held while the place of appended bytes is being decided.
    appending: tokio::sync::Mutex<()>,
    /// Held while the manifest is being fetched.
    fetching: tokio::sync::Mutex<()>,
}

impl File {
    pub(super) fn new(ino: Ino, context: Arc<FileContext>) -> Self {
        let state = State::new(context.chunk_size, context.manifests.new_epoch());
        Self {
            ino,
            context,
            state: Mutex::new(state),
            progress: Notify::new(),
            appending: tokio::sync::Mutex::new(()),
            fetching: tokio::sync::Mutex::new(()),
        }
    }

    /// The inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The length, uncommitted bytes included, as far as this client knows.
    pub fn size(&self) -> u64 {
        self.lock().size()
    }

    /// Whether bytes wait to be committed.
    pub fn has_uncommitted(&self) -> bool {
        self.lock().has_uncommitted()
    }

    /// Bytes that were not committed are gone with an earlier daemon: all handles so far hear of it.
    pub fn lost_with_the_daemon(&self) {
        self.lock().errors.record(FsError::Io);
    }

    /// The cursor of a handle that is opened now.
    pub fn error_cursor(&self) -> SeenErrors {
        self.lock().errors.cursor()
    }

    /// The handle with this cursor is gone.
    pub fn end_cursor(&self, seen: &SeenErrors) {
        let mut state = self.lock();
        state.errors.end(seen);
        self.context.forget_lost(self.ino, &state);
    }

    /// Tells write-back errors that `seen` has not told in this way or a stronger one.
    ///
    /// # Errors
    /// The last of them.
    pub fn check_errors(&self, seen: &mut SeenErrors, by: ToldBy) -> Result<(), FsError> {
        let mut state = self.lock();
        let told = state.errors.check(seen, by);
        if told.is_err() {
            self.context.forget_lost(self.ino, &state);
        }
        told
    }

    /// Which version of the data the kernel's pages show, as far as all handles were used through one
    /// kernel; 0 when that is not known.
    pub fn pages_version(&self) -> u64 {
        self.lock().pages_version
    }

    /// A handle is opened: `attr` and `manifest` are the master's state now, `known_pages` the version
    /// that the kernel's pages showed when the file was last closed. Whether they still do.
    pub fn opened(&self, attr: Attr, manifest: Option<pb::ManifestPage>, known_pages: u64) -> bool {
        let mut state = self.lock();
        state.absorb(&attr, &self.context.manifests);
        if let Some(page) = manifest
            && page.data_version == state.manifest_version
        {
            // Not worth failing an open for: a page that cannot be used is fetched again.
            let _ = self.context.manifests.insert(self.ino, state.manifest_epoch, 0, page);
        }
        let shown = state.pages_version.max(known_pages);
        state.pages_version = attr.data_version;
        shown != 0 && shown == attr.data_version
    }

    /// `attr` is the master's state in the moment in which a lock was granted. Whether the pages that
    /// the kernel has cached still show what the file holds.
    pub fn relocked(&self, attr: Attr) -> bool {
        let mut state = self.lock();
        state.absorb(&attr, &self.context.manifests);
        state.pages_version != 0 && state.pages_version == attr.data_version
    }

    /// The kernel has dropped its pages when the file was of `version`, or a later one.
    pub fn pages_dropped(&self, version: u64) {
        self.lock().pages_version = version;
    }

    /// Whether bytes that are not committed were written under a lock that is lost: they cannot be.
    pub fn is_fenced_off(&self) -> bool {
        self.fenced_off(&self.lock())
    }

    /// From now on bytes are written under locks of the session of generation `fence`; `None`: under
    /// none.
    pub fn set_fence(&self, fence: Option<u64>) {
        self.lock().fence = fence;
    }

    /// Takes note of newer attributes.
    pub fn absorb(&self, attr: Attr) {
        self.lock().absorb(&attr, &self.context.manifests);
    }

    /// This client changed the length, or the references, by an operation of its own.
    pub fn resized(&self, attr: Attr) {
        self.lock().replaced(&attr, &self.context.manifests);
    }

    /// Whether what is not committed yet clears set-user-id and set-group-id.
    pub fn loses_set_ids(&self) -> bool {
        self.lock().loses_set_ids()
    }

    /// `attr` with what is not committed yet; takes note of it.
    pub fn merged(&self, attr: Attr) -> Attr {
        let mut state = self.lock();
        state.absorb(&attr, &self.context.manifests);
        state.merged(attr)
    }

    /// Somebody reads: `noted` is shown the attributes and answers the new time of the last read if
    /// there is one.
    pub fn was_read(&self, noted: impl FnOnce(&Attr) -> Option<Timestamp>) {
        self.lock().was_read(noted);
    }

    /// The reference that the manifest has for chunk `index`.
    async fn resolve(&self, caller: Caller, index: u64) -> Result<Option<ChunkRef>, FsError> {
        for _ in 0..FETCH_TRIES {
            if let Some(known) = self.known_ref(index) {
                return Ok(known);
            }
            self.fetch_manifest(caller, index).await?;
        }
        Err(FsError::TryAgain)
    }

    fn known_ref(&self, index: u64) -> Option<Option<ChunkRef>> {
        self.known_in(&self.lock(), index)
    }

    fn known_in(&self, state: &State, index: u64) -> Option<Option<ChunkRef>> {
        if chunk_start(index, self.context.chunk_size) >= state.committed_size() {
            return Some(None);
        }
        self.context.manifests.get(self.ino, state.manifest_epoch, index)
    }

    /// Fetches the page with `index` unless somebody else has done so meanwhile.
    async fn fetch_manifest(&self, caller: Caller, index: u64) -> Result<(), FsError> {
        let _one = self.fetching.lock().await;
        if self.known_ref(index).is_some() {
            return Ok(());
        }
        let first = index / PAGE_REFS * PAGE_REFS;
        let page = self.context.manifest_page(caller, self.ino, first, FETCH_REFS).await?;
        let mut state = self.lock();
        if page.data_version < state.manifest_version {
            // Overtaken by a commit of our own, whose answer is here already.
            return Ok(());
        }
        if page.data_version > state.manifest_version {
            state.forget_manifest(page.data_version, &self.context.manifests);
        }
        self.context.manifests.insert(self.ino, state.manifest_epoch, first, page)
    }

    /// The manifest turned out to be no longer true.
    fn distrust_manifest(&self) {
        let mut state = self.lock();
        let version = state.manifest_version;
        state.forget_manifest(version, &self.context.manifests);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.ino)
    }
}
