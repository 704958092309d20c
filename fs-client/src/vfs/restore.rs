//! What an earlier daemon of this mount had open, opened again under the same numbers.
//!
//! The files are opened in the new session while the old one still holds them, so files without a name
//! stay; then the old session is ended, which frees its locks for others. A handle through which a lock
//! was held has lost it, and reports EIO as after any loss of a lock. Bytes that were written and not
//! committed are gone with the daemon: every handle of such a file tells of it. A file that cannot
//! be opened again is stale through its handles.

use std::{collections::HashMap, sync::Arc};

use cairn_proto::{FsError, Ino, pb};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Mutex;

use super::{
    Caller, Fh, OpenMode, Vfs, answers,
    handles::{FLAG_DIRECTORY, FLAG_LOCKED, mode_of},
    open_dir::OpenDir,
};
use crate::{
    config::ClientConfig,
    file::Hold,
    rpc,
    supervisor::{OpenHandle, Record},
};

/// Files that are opened at the same time.
const AT_ONCE: usize = 32;

/// What was found when a daemon followed another one.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Handles that go on.
    pub handles: usize,
    /// Handles whose file is gone.
    pub stale: usize,
    /// Inodes that have lost bytes: what the kernel has cached of them is not what is stored.
    pub damaged: Vec<Ino>,
}

impl Vfs {
    /// Opens what `record` says, and ends session `old`. To be called before anything is served.
    pub async fn restore(&self, config: &ClientConfig, record: &Record, old: u64) -> Restored {
        let mut restored = Restored::default();
        let mut files: HashMap<Ino, Vec<OpenHandle>> = HashMap::new();
        for handle in record.handles() {
            match Ino::new(handle.ino) {
                Some(ino) if handle.flags & FLAG_DIRECTORY != 0 => {
                    self.listings.opened(ino);
                    let dir = OpenDir { ino, page: Mutex::new(None) };
                    self.handles.restore_dir(Fh(handle.fh), Arc::new(dir));
                    restored.handles += 1;
                }
                Some(ino) => files.entry(ino).or_default().push(handle),
                None => record.closed(handle.fh),
            }
        }
        let dirty = record.dirty_inodes();
        let mut opened = stream::iter(files)
            .map(async |(ino, handles)| (ino, self.reopen(ino, &handles).await, handles))
            .buffer_unordered(AT_ONCE);
        while let Some((ino, hold, handles)) = opened.next().await {
            let lost = dirty.contains(&ino.get());
            match hold {
                Ok(()) => {
                    restored.handles += handles.len();
                    if lost && let Some(file) = self.files.get(ino) {
                        file.lost_with_the_daemon();
                    }
                }
                Err(error) => {
                    tracing::warn!(%ino, %error, "an open file cannot be opened again");
                    handles.iter().for_each(|h| self.handles.restore_stale(Fh(h.fh)));
                    restored.stale += handles.len();
                }
            }
        }
        drop(opened);
        for ino in dirty.into_iter().filter_map(Ino::new) {
            if self.files.get(ino).is_none() {
                // Nobody is left who could be told.
                record.clean(ino.get());
            }
            restored.damaged.push(ino);
        }
        if old != 0 && old != record.session() {
            rpc::end_session(config, self.session.fs_uuid(), old).await;
        }
        restored
    }

    /// All handles of one file, with one question to the master.
    async fn reopen(&self, ino: Ino, handles: &[OpenHandle]) -> Result<(), FsError> {
        let first = handles.first().ok_or(FsError::Stale)?;
        let caller = |handle: &OpenHandle| Caller { uid: handle.uid, gid: handle.gid, pid: 0 };
        let hold = self.files.hold(ino);
        let op = pb::Open { ino: ino.get(), truncate: false };
        let (attr, manifest) = match self.ask(caller(first), pb::op::Kind::Open(op)).await? {
            pb::reply::Kind::Opened(o) => (answers::attr(o.attr)?, o.manifest),
            other => return Err(answers::unexpected(&other)),
        };
        let mut manifest = Some(manifest);
        for handle in handles {
            let page = manifest.take().flatten();
            let mode: OpenMode = mode_of(handle.flags);
            let own: Hold = self.files.hold(ino);
            // The daemon that knew the kernel's pages is gone.
            let (open, _) =
                Self::entered(own, caller(handle), (attr, 0), page, mode).ok_or(FsError::Stale)?;
            if handle.flags & FLAG_LOCKED != 0 {
                open.lose_lock();
            }
            self.handles.restore_file(Fh(handle.fh), Arc::new(open));
        }
        drop(hold);
        Ok(())
    }
}
