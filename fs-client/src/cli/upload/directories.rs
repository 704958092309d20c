//! [`Directories`]: the store's directories that an upload goes into.
//!
//! Each is looked up or made once. Held: one entry for each directory of the upload.

use std::{collections::HashMap, time::Duration};

use cairn_proto::{Attr, FileKind, FileName, FsError, Ino};

use super::job::Job;
use crate::cli::{
    failure::Failure,
    store::{Store, StorePath},
    walk::Walk,
};

#[derive(Clone, Copy, Debug)]
struct Known {
    ino: Ino,
    /// It may hold what killed uploads have left.
    unseen: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Directories {
    known: HashMap<StorePath, Known>,
}

impl Directories {
    /// The directory `path`; it and those above it are made if they are missing.
    ///
    /// # Errors
    /// A sentence with the path.
    pub(super) async fn enter(&mut self, store: &Store, path: &StorePath) -> Result<Ino, Failure> {
        let mut missing = Vec::new();
        let mut at = path.clone();
        let mut ino = loop {
            if let Some(known) = self.known.get(&at) {
                break known.ino;
            }
            if at.is_root() {
                let ino = store.vfs.session().root();
                self.known.insert(at, Known { ino, unseen: true });
                break ino;
            }
            let parent = at.parent();
            missing.push(std::mem::replace(&mut at, parent));
        };
        for path in missing.into_iter().rev() {
            let known = make(store, ino, &path).await?;
            ino = known.ino;
            self.known.insert(path, known);
        }
        Ok(ino)
    }

    /// As [`Directories::enter`]; what killed uploads have left there is known to `job` afterwards.
    ///
    /// # Errors
    /// A sentence with the path.
    pub(super) async fn open(&mut self, job: &Job, path: &StorePath) -> Result<Ino, Failure> {
        let ino = self.enter(&job.store, path).await?;
        if let Some(known) = self.known.get_mut(path)
            && std::mem::take(&mut known.unseen)
        {
            find_left_overs(job, path, ino).await?;
        }
        Ok(ino)
    }
}

async fn make(store: &Store, parent: Ino, path: &StorePath) -> Result<Known, Failure> {
    let at = |e| Failure::at(path, e);
    let name = FileName::try_from(path.name()).map_err(at)?;
    match store.vfs.mkdir(store.caller, parent, &name, 0o755).await {
        Ok(attr) => Ok(Known { ino: attr.ino, unseen: false }),
        Err(FsError::Exists) => {
            let attr = store.vfs.lookup(store.caller, parent, &name).await.map_err(at)?;
            if attr.kind() != FileKind::Directory {
                return Err(at(FsError::NotDirectory));
            }
            Ok(Known { ino: attr.ino, unseen: true })
        }
        Err(e) => Err(at(e)),
    }
}

async fn find_left_overs(job: &Job, path: &StorePath, dir: Ino) -> Result<(), Failure> {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let mut walk = Walk::new(path.clone(), dir, false);
    while let Some(entry) = walk.next(&job.store).await? {
        let age = entry.item.attr.map_or(Duration::ZERO, |attr| age(&attr, now));
        if let Some(stem) = job.names.left_over(&entry.item.name, age) {
            job.left_overs.add(dir, stem, &entry.item.name);
        }
    }
    Ok(())
}

fn age(attr: &Attr, now: Duration) -> Duration {
    let changed = u64::try_from(attr.ctime.seconds.max(attr.mtime.seconds)).unwrap_or(0);
    now.saturating_sub(Duration::from_secs(changed))
}
