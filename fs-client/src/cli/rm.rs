//! `cairn rm`: remove without a mount.

use std::ffi::OsString;

use cairn_proto::{FileKind, FileName, FsError, Ino};
use clap::Args;
use futures_util::{TryStreamExt, stream};

use super::{
    connection::Connection,
    failure::Failure,
    store::{Store, StorePath},
};

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
        for path in &self.paths {
            self.remove(&store, &StorePath::new(path)).await?;
        }
        store.close().await
    }

    async fn remove(&self, store: &Store, path: &StorePath) -> Result<(), Failure> {
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
        empty(store, path.clone(), attr.ino).await?;
        store.vfs.rmdir(store.caller, parent, &name).await.map_err(at)
    }
}

/// Removes everything below the directory `ino`, the deepest directory first. Holds one page of
/// entries for each level.
async fn empty(store: &Store, path: StorePath, ino: Ino) -> Result<(), Failure> {
    struct Level {
        path: StorePath,
        ino: Ino,
        name: Option<FileName>,
    }
    let mut levels = vec![Level { path, ino, name: None }];
    while let Some(level) = levels.last() {
        let entries = store.entries(&level.path, level.ino, 0).await?;
        let (path, dir) = (level.path.clone(), level.ino);
        if entries.is_empty() {
            let done = levels.pop().expect("it was the last a moment ago");
            if let (Some(name), Some(parent)) = (done.name, levels.last()) {
                let removed = store.vfs.rmdir(store.caller, parent.ino, &name).await;
                removed.map_err(|e| Failure::at(&done.path, e))?;
            }
            continue;
        }
        let name_of = |bytes: &bytes::Bytes| {
            FileName::try_from(bytes.clone()).map_err(|e| Failure::at(path.join(bytes), e))
        };
        let (dirs, files): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|e| e.kind == FileKind::Directory);
        stream::iter(files.iter().map(Ok::<_, Failure>))
            .try_for_each_concurrent(AT_ONCE, |file| {
                let name = name_of(&file.name);
                async {
                    let name = name?;
                    let removed = store.vfs.unlink(store.caller, dir, &name).await;
                    removed.map_err(|e| Failure::at(&path, e))
                }
            })
            .await?;
        // One directory at a time keeps the number of levels the depth of the tree.
        if let Some(next) = dirs.first() {
            let name = name_of(&next.name)?;
            levels.push(Level { path: path.join(&next.name), ino: next.ino, name: Some(name) });
        }
    }
    Ok(())
}
