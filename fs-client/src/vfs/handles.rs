//! [`HandleTable`]: open files and directories by number. Numbers are never used again, also not by the
//! next daemon of the mount: each has a range of its own. Where there is a supervisor, it keeps a record
//! of what is open.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_proto::FsError;

use super::{OpenMode, open::OpenFile, open_dir::OpenDir};
use crate::supervisor::{OpenHandle, Record};

/// Numbers of one daemon.
const RANGE_BITS: u32 = 40;

const FLAG_READ: u64 = 1;
const FLAG_WRITE: u64 = 2;
const FLAG_APPEND: u64 = 4;
const FLAG_NOATIME: u64 = 8;
/// It is a directory's.
pub(super) const FLAG_DIRECTORY: u64 = 16;
/// A lock was taken through it.
pub(super) const FLAG_LOCKED: u64 = 32;

/// What a recorded handle is for.
pub(super) const fn mode_of(flags: u64) -> OpenMode {
    OpenMode {
        read: flags & FLAG_READ != 0,
        write: flags & FLAG_WRITE != 0,
        append: flags & FLAG_APPEND != 0,
        truncate: false,
        noatime: flags & FLAG_NOATIME != 0,
    }
}

fn flags_of(mode: OpenMode) -> u64 {
    let OpenMode { read, write, append, truncate: _, noatime } = mode;
    let flags =
        [(read, FLAG_READ), (write, FLAG_WRITE), (append, FLAG_APPEND), (noatime, FLAG_NOATIME)];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
}

/// The number of an open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

impl fmt::Display for Fh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone)]
enum Handle {
    File(Arc<OpenFile>),
    Dir(Arc<OpenDir>),
    /// Of an earlier daemon; its file is gone.
    Stale,
}

/// See the module's head.
pub struct HandleTable {
    last: AtomicU64,
    open: Mutex<HashMap<Fh, Handle>>,
    record: Option<Arc<Record>>,
}

impl HandleTable {
    /// An empty table, whose changes go to `record`.
    pub fn new(record: Option<Arc<Record>>) -> Self {
        let range = record.as_ref().map_or(0, |record| record.generation() << RANGE_BITS);
        Self { last: AtomicU64::new(range), open: Mutex::default(), record }
    }

    /// Enters an open file.
    pub fn add_file(&self, file: Arc<OpenFile>) -> Fh {
        let fh = self.number();
        if let Some(record) = &self.record {
            let (ino, flags) = (file.file().ino().get(), flags_of(file.mode));
            let (uid, gid) = (file.caller.uid, file.caller.gid);
            record.opened(OpenHandle { fh: fh.0, ino, flags, uid, gid });
        }
        self.lock().insert(fh, Handle::File(file));
        fh
    }

    /// Enters an open directory.
    pub fn add_dir(&self, dir: Arc<OpenDir>) -> Fh {
        let fh = self.number();
        if let Some(record) = &self.record {
            let ino = dir.ino.get();
            record.opened(OpenHandle { fh: fh.0, ino, flags: FLAG_DIRECTORY, uid: 0, gid: 0 });
        }
        self.lock().insert(fh, Handle::Dir(dir));
        fh
    }

    /// Enters an open file that is recorded already.
    pub(super) fn restore_file(&self, fh: Fh, file: Arc<OpenFile>) {
        self.lock().insert(fh, Handle::File(file));
    }

    /// Enters an open directory that is recorded already.
    pub(super) fn restore_dir(&self, fh: Fh, dir: Arc<OpenDir>) {
        self.lock().insert(fh, Handle::Dir(dir));
    }

    /// Enters a recorded handle whose file is gone.
    pub(super) fn restore_stale(&self, fh: Fh) {
        self.lock().insert(fh, Handle::Stale);
    }

    /// A lock was taken through `fh`.
    pub(super) fn took_lock(&self, fh: Fh) {
        if let Some(record) = &self.record {
            record.add_flags(fh.0, FLAG_LOCKED);
        }
    }

    /// The open file `fh`.
    ///
    /// # Errors
    /// `BadHandle` when there is none.
    pub fn file(&self, fh: Fh) -> Result<Arc<OpenFile>, FsError> {
        match self.lock().get(&fh) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            Some(Handle::Stale) => Err(FsError::Stale),
            Some(Handle::Dir(_)) | None => Err(FsError::BadHandle),
        }
    }

    /// The open directory `fh`.
    ///
    /// # Errors
    /// `BadHandle` when there is none.
    pub fn dir(&self, fh: Fh) -> Result<Arc<OpenDir>, FsError> {
        match self.lock().get(&fh) {
            Some(Handle::Dir(dir)) => Ok(Arc::clone(dir)),
            Some(Handle::Stale) => Err(FsError::Stale),
            Some(Handle::File(_)) | None => Err(FsError::BadHandle),
        }
    }

    /// Takes out the open file `fh`.
    ///
    /// # Errors
    /// `BadHandle` when there is none.
    pub fn remove_file(&self, fh: Fh) -> Result<Arc<OpenFile>, FsError> {
        let file = self.file(fh);
        self.remove(fh);
        file
    }

    /// Takes out the open directory `fh`.
    ///
    /// # Errors
    /// `BadHandle` when there is none.
    pub fn remove_dir(&self, fh: Fh) -> Result<Arc<OpenDir>, FsError> {
        let dir = self.dir(fh);
        self.remove(fh);
        dir
    }

    fn number(&self) -> Fh {
        Fh(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn remove(&self, fh: Fh) {
        if self.lock().remove(&fh).is_some()
            && let Some(record) = &self.record
        {
            record.closed(fh.0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fh, Handle>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
