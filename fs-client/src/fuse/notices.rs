//! [`Notices`]: what the kernel has to forget, told to it unasked.
//!
//! The kernel limits reads to the length that it has cached. So before an open is answered whose file
//! is not of the version that the kernel was told last, the cached attributes are dropped; the first
//! read or stat after the open asks for them anew. Only attributes: the kernel drops the pages itself
//! at an open without `FOPEN_KEEP_CACHE`, while dropping them from here could wait for a page that a
//! request in the air has locked. Dropping attributes waits for no request, and replies to requests
//! that the kernel sent before are not cached any longer.
//!
//! With a lock it is different: the file is open already, so when it has changed its pages are dropped
//! from here. Waiting for a request in the air is right then, for it may have asked for old bytes; it
//! cannot be a request that waits for this one, since none waits for the answer to a lock. Shared
//! mappings write their pages back first, through requests that other threads take.

use std::sync::{Arc, OnceLock};

use cairn_proto::Ino;
use fuser::{INodeNo, Notifier};

use crate::vfs::{Locked, Opened, Vfs};

/// See the module's head. Silent until it is connected.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<OnceLock<Notifier>>);

impl Notices {
    /// From now on notices reach the kernel.
    pub fn connect(&self, notifier: Notifier) {
        // Connected once, when the mount is made.
        let _ = self.0.set(notifier);
    }

    /// To be awaited before `opened` is answered. The kernel is told on a thread that may wait: it
    /// may be about to drop the same inode and want something from us for it.
    pub(super) async fn opened(&self, vfs: &Vfs, opened: &Opened) {
        let attr = &opened.attr;
        let told = vfs.inodes().told_version(attr.ino);
        if told == Some(attr.data_version) {
            return;
        }
        self.drop_cached(attr.ino, Cached::Attributes).await;
        vfs.inodes().forget_told(attr.ino);
    }

    /// To be awaited before a lock that was granted is answered.
    pub(super) async fn locked(&self, vfs: &Vfs, locked: &Locked) {
        let attr = &locked.attr;
        if !locked.pages_current {
            self.drop_cached(attr.ino, Cached::AttributesAndPages).await;
        } else if vfs.inodes().told_version(attr.ino) != Some(attr.data_version) {
            self.drop_cached(attr.ino, Cached::Attributes).await;
        } else {
            return;
        }
        vfs.cache_dropped(locked);
    }

    /// What the kernel has cached of `ino` is not what is stored.
    pub async fn forget_all(&self, ino: Ino) {
        self.drop_cached(ino, Cached::AttributesAndPages).await;
    }

    async fn drop_cached(&self, ino: Ino, what: Cached) {
        let kernel = Arc::clone(&self.0);
        // Before the first byte there are no pages, only attributes; no length is up to the end.
        let (offset, len) = match what {
            Cached::Attributes => (-1, 0),
            Cached::AttributesAndPages => (0, 0),
        };
        let notice = tokio::task::spawn_blocking(move || {
            let Some(notifier) = kernel.get() else { return };
            if let Err(error) = notifier.inval_inode(INodeNo(ino.get()), offset, len)
                && error.raw_os_error() != Some(libc::ENOENT)
            {
                tracing::debug!(%ino, %error, "the kernel does not take a notice");
            }
        });
        // It only fails when the runtime is being shut down.
        let _ = notice.await;
    }
}

/// What the kernel shall drop.
enum Cached {
    Attributes,
    AttributesAndPages,
}
