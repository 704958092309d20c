//! `cairn rm`: remove without a mount.

use std::{collections::VecDeque, ffi::OsString};

use cairn_proto::{FileKind, FileName, FsError, Ino};
use clap::Args;
use futures_util::{TryStreamExt, stream};

use super::{
    connection::Connection,
    failure::Failure,
    progress::Progress,
    store::{Store, StorePath},
};
use crate::vfs::DirItem;

/// Remove files, with -r directories and everything in them
#[derive(Args, Debug)]
pub struct Rm {
    /// Paths in the store
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,

    /// Remove directories with everything in them
    #[arg(short, long)]
    recursive: bool,

    /// A path that does not exist is no error
    #[arg(short, long)]
    force: bool,
}

/// Removals that are under way at the same time.
const AT_ONCE: usize = 64;

impl Rm {
    /// # Errors
    /// The first thing that cannot be removed.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let store = Store::open(connection, "cairn rm").await?;
        let progress = Progress::counts(self.recursive);
        progress.begin("removed", None);
        let result = self.remove_all(&store, &progress).await;
        drop(progress);
        store.end(result).await
    }

    async fn remove_all(&self, store: &Store, progress: &Progress) -> Result<(), Failure> {
        for path in &self.paths {
            self.remove(store, &StorePath::new(path), progress).await?;
        }
        Ok(())
    }

    async fn remove(
        &self,
        store: &Store,
        path: &StorePath,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let at = |e| Failure::at(path, e);
        if path.is_root() {
            return Err(Failure::new("the root directory cannot be removed: name what is in it"));
        }
        let attr = match store.find(path).await? {
            Some(attr) => attr,
            None if self.force => return Ok(()),
            None => return Err(at(FsError::NotFound)),
        };
        let parent = store.vfs.resolve_parent(store.caller, path.as_bytes(), None).await;
        let (parent, name) = parent.map_err(at)?;
        if attr.kind() != FileKind::Directory {
            return store.vfs.unlink(store.caller, parent, &name).await.map_err(at);
        }
        if !self.recursive {
            return Err(Failure::new(format!("{path} is a directory: add -r to remove it")));
        }
        empty(store, path.clone(), attr.ino, progress).await?;
        store.vfs.rmdir(store.caller, parent, &name).await.map_err(at)
    }
}

/// One directory that is being emptied.
struct Level {
    path: StorePath,
    ino: Ino,
    /// Its name in the level above; absent for the first.
    name: Option<FileName>,
    /// How far it has been read. Going on from there passes over the names that were removed.
    position: u64,
    /// Directories of the page that was read last.
    below: VecDeque<(FileName, Ino)>,
}

impl Level {
    fn new(path: StorePath, ino: Ino, name: Option<FileName>) -> Self {
        Self { path, ino, name, position: 0, below: VecDeque::new() }
    }
}

/// Removes everything below the directory `ino`, the deepest directory first. Holds one page of
/// entries for each level.
async fn empty(
    store: &Store,
    path: StorePath,
    ino: Ino,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut levels = vec![Level::new(path, ino, None)];
    while let Some(level) = levels.last_mut() {
        if let Some((name, ino)) = level.below.pop_front() {
            let path = level.path.join(name.as_bytes());
            levels.push(Level::new(path, ino, Some(name)));
            continue;
        }
        let entries = store.entries(&level.path, level.ino, level.position).await?;
        if let Some(last) = entries.last() {
            level.position = last.position;
            let (dirs, files): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|e| e.kind == FileKind::Directory);
            for dir in dirs {
                level.below.push_back((name_of(&level.path, &dir)?, dir.ino));
            }
            unlink_all(store, level, &files, progress).await?;
            continue;
        }
        let done = levels.pop().expect("it was the last a moment ago");
        if let (Some(name), Some(parent)) = (done.name, levels.last()) {
            let removed = store.vfs.rmdir(store.caller, parent.ino, &name).await;
            removed.map_err(|e| Failure::at(&done.path, e))?;
            progress.add(1);
        }
    }
    Ok(())
}

async fn unlink_all(
    store: &Store,
    level: &Level,
    files: &[DirItem],
    progress: &Progress,
) -> Result<(), Failure> {
    stream::iter(files.iter().map(Ok::<_, Failure>))
        .try_for_each_concurrent(AT_ONCE, |file| async {
            let name = name_of(&level.path, file)?;
            let removed = store.vfs.unlink(store.caller, level.ino, &name).await;
            progress.add(1);
            removed.map_err(|e| Failure::at(level.path.join(&file.name), e))
        })
        .await
}

fn name_of(path: &StorePath, item: &DirItem) -> Result<FileName, Failure> {
    FileName::try_from(item.name.clone()).map_err(|e| Failure::at(path.join(&item.name), e))
}
