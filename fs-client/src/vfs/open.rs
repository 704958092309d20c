//! open and release: handles of files.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use cairn_proto::{Attr, FileKind, FsError, Ino, pb, pb::op::Kind};

use super::{Caller, Fh, Vfs, answers};
use crate::file::{File, Hold, ReadAhead, SeenErrors, ToldBy};

/// What a handle is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// Reading is allowed.
    pub read: bool,
    /// Writing is allowed.
    pub write: bool,
    /// Every write goes to the end of the file, wherever that is by then.
    pub append: bool,
    /// The file is emptied first.
    pub truncate: bool,
    /// Reads leave the time of the last read alone.
    pub noatime: bool,
}

impl OpenMode {
    /// For reading.
    pub const READ: Self = Self { read: true, ..Self::NOTHING };
    /// For writing, what is there stays.
    pub const WRITE: Self = Self { write: true, ..Self::NOTHING };
    /// For writing anew.
    pub const REPLACE: Self = Self { write: true, truncate: true, ..Self::NOTHING };
    const NOTHING: Self =
        Self { read: false, write: false, append: false, truncate: false, noatime: false };

    /// Whether this handle's writes go past a cache of pages that lies over this file system: only
    /// then may bytes end up at another place than the one that was written to.
    pub const fn is_uncached(self) -> bool {
        self.write && (self.append || !self.read)
    }

    /// From the flags of open(2).
    pub const fn from_flags(flags: i32) -> Self {
        let access = flags & libc::O_ACCMODE;
        let write = access == libc::O_WRONLY || access == libc::O_RDWR;
        Self {
            read: access != libc::O_WRONLY,
            write,
            append: write && flags & libc::O_APPEND != 0,
            truncate: flags & libc::O_TRUNC != 0,
            noatime: flags & libc::O_NOATIME != 0,
        }
    }
}

/// The answer to an open.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The new handle; give it back with [`Vfs::release`].
    pub fh: Fh,
    /// The attributes at this moment.
    pub attr: Attr,
    /// Whether pages that the kernel has cached still show what the file holds.
    pub pages_current: bool,
}

/// An open file.
pub struct OpenFile {
    pub(super) hold: Hold,
    pub(super) mode: OpenMode,
    pub(super) caller: Caller,
    seen: Mutex<SeenErrors>,
    pub(super) ahead: Mutex<ReadAhead>,
    /// A lock was taken through it at some time.
    pub(super) taken_locks: AtomicBool,
    /// Such a lock ended with an earlier daemon of the mount.
    lost_lock: AtomicBool,
}

impl OpenFile {
    fn new(hold: Hold, mode: OpenMode, caller: Caller) -> Self {
        let seen = Mutex::new(hold.file().error_cursor());
        Self {
            hold,
            mode,
            caller,
            seen,
            ahead: Mutex::new(ReadAhead::default()),
            taken_locks: AtomicBool::new(false),
            lost_lock: AtomicBool::new(false),
        }
    }

    pub(super) fn file(&self) -> &Arc<File> {
        self.hold.file()
    }

    pub(super) fn took_lock(&self) {
        self.taken_locks.store(true, Ordering::Release);
    }

    /// A lock that was taken through it ended with an earlier daemon.
    pub(super) fn lose_lock(&self) {
        self.lost_lock.store(true, Ordering::Release);
    }

    pub(super) fn has_lost_lock(&self) -> bool {
        self.lost_lock.load(Ordering::Acquire)
    }

    pub(super) fn has_taken_locks(&self) -> bool {
        self.taken_locks.load(Ordering::Acquire)
    }

    /// Tells write-back errors that this handle has not told in this way or a stronger one.
    pub(super) fn check_errors(&self, by: ToldBy) -> Result<(), FsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.file().check_errors(&mut seen, by)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let seen = self.seen.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.hold.file().end_cursor(seen);
    }
}

impl Vfs {
    /// Opens the regular file `ino`: asks the master for its state now, so that everything that was
    /// closed elsewhere before is seen.
    ///
    /// # Errors
    /// `Stale` when it is gone (its name may belong to another inode by now: look it up again).
    pub async fn open(&self, caller: Caller, ino: Ino, mode: OpenMode) -> Result<Opened, FsError> {
        let hold = self.files.hold(ino);
        if mode.truncate {
            // What other handles wrote before comes before the truncation.
            hold.file().flush().await?;
        }
        let op = pb::Open { ino: ino.get(), truncate: mode.truncate };
        let answer = self.ask(caller, Kind::Open(op)).await;
        let (attr, manifest) = match answer {
            Ok(pb::reply::Kind::Opened(o)) => (answers::attr(o.attr)?, o.manifest),
            Ok(other) => return Err(answers::unexpected(&other)),
            Err(FsError::NotFound) => return Err(FsError::Stale),
            Err(error) => return Err(error),
        };
        if mode.truncate {
            hold.file().resized(attr);
        }
        self.finish_open(hold, caller, attr, manifest, mode)
    }

    /// Makes a handle of an inode that the master counts as open for us already.
    pub(super) fn adopt(
        &self,
        caller: Caller,
        attr: Attr,
        manifest: Option<pb::ManifestPage>,
        mode: OpenMode,
    ) -> Result<Opened, FsError> {
        let hold = self.files.hold(attr.ino);
        self.finish_open(hold, caller, attr, manifest, mode)
    }

    fn finish_open(
        &self,
        hold: Hold,
        caller: Caller,
        attr: Attr,
        manifest: Option<pb::ManifestPage>,
        mode: OpenMode,
    ) -> Result<Opened, FsError> {
        let known = self.inodes.pages_version(attr.ino);
        let (open, pages_current) = Self::entered(hold, caller, (attr, known), manifest, mode)
            .ok_or(FsError::InvalidArgument)?;
        let attr = open.file().merged(attr);
        let fh = self.handles.add_file(Arc::new(open));
        Ok(Opened { fh, attr, pages_current })
    }

    /// A handle that is not in the table yet of what the master has opened, and whether pages of the
    /// version `known` are still right; `None` when it is no regular file.
    pub(super) fn entered(
        mut hold: Hold,
        caller: Caller,
        (attr, known): (Attr, u64),
        manifest: Option<pb::ManifestPage>,
        mode: OpenMode,
    ) -> Option<(OpenFile, bool)> {
        hold.opened();
        if attr.kind() != FileKind::Regular {
            return None;
        }
        let pages_current = hold.file().opened(attr, manifest, known);
        Some((OpenFile::new(hold, mode, caller), pages_current))
    }

    /// Gives a handle back. What it wrote and nobody flushed is committed; when it was the last of
    /// its inode, the master is told.
    ///
    /// # Errors
    /// `BadHandle`; a write-back error that this handle has told to no close and no sync.
    pub async fn release(self: &Arc<Self>, fh: Fh) -> Result<(), FsError> {
        let open = self.handles.remove_file(fh)?;
        if !open.has_taken_locks() {
            return self.end_handle(&open).await;
        }
        // In a task of its own: locks end also when nobody waits for it.
        let vfs = Arc::clone(self);
        let task = tokio::spawn(async move {
            let flushed = open.file().flush().await;
            vfs.release_locks(fh, &open).await;
            flushed.and(vfs.end_handle(&open).await)
        });
        task.await.unwrap_or(Err(FsError::Io))
    }

    async fn end_handle(&self, open: &OpenFile) -> Result<(), FsError> {
        let flushed = open.file().flush().await;
        let reported = open.check_errors(ToldBy::Close);
        if self.files.is_last(&open.hold) {
            self.inodes.set_pages_version(open.file().ino(), open.file().pages_version());
        }
        flushed.and(reported)
    }
}
