//! [`HandleTable`]: open files and directories by number. Numbers are never used again.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_proto::FsError;

use super::{open::OpenFile, open_dir::OpenDir};

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
}

/// See the module's head.
#[derive(Default)]
pub struct HandleTable {
    last: AtomicU64,
    open: Mutex<HashMap<Fh, Handle>>,
}

impl HandleTable {
    /// Enters an open file.
    pub fn add_file(&self, file: Arc<OpenFile>) -> Fh {
        self.add(Handle::File(file))
    }

    /// Enters an open directory.
    pub fn add_dir(&self, dir: Arc<OpenDir>) -> Fh {
        self.add(Handle::Dir(dir))
    }

    /// The open file `fh`.
    ///
    /// # Errors
    /// `BadHandle` when there is none.
    pub fn file(&self, fh: Fh) -> Result<Arc<OpenFile>, FsError> {
        match self.lock().get(&fh) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
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
            Some(Handle::File(_)) | None => Err(FsError::BadHandle),
        }
    }

    /// Takes out the open file `fh`.
    ///
    /// # Errors
    /// `BadHandle` when there is none.
    pub fn remove_file(&self, fh: Fh) -> Result<Arc<OpenFile>, FsError> {
        let file = self.file(fh)?;
        self.lock().remove(&fh);
        Ok(file)
    }

    /// Takes out the open directory `fh`.
    ///
    /// # Errors
    /// `BadHandle` when there is none.
    pub fn remove_dir(&self, fh: Fh) -> Result<Arc<OpenDir>, FsError> {
        let dir = self.dir(fh)?;
        self.lock().remove(&fh);
        Ok(dir)
    }

    fn add(&self, handle: Handle) -> Fh {
        let fh = Fh(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.lock().insert(fh, handle);
        fh
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fh, Handle>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
