//! [`Walk`]: everything below a directory of the store, one entry after the other.
//!
//! Directories come before what is in them. Held: one page of entries for each level of the tree.

use std::vec;

use cairn_proto::{Attr, FileKind, Ino};

use super::{
    failure::Failure,
    store::{Store, StorePath},
};
use crate::vfs::DirItem;

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: StorePath,
    pub(super) item: DirItem,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Walk {
    levels: Vec<Level>,
    recursive: bool,
}

#[derive(Debug)]
struct Level {
    path: StorePath,
    dir: Ino,
    position: u64,
    page: vec::IntoIter<DirItem>,
}

impl Walk {
    /// Of the directory `dir`, whose path is `path`; only its own entries unless `recursive`.
    pub(super) fn new(path: StorePath, dir: Ino, recursive: bool) -> Self {
        Self { levels: vec![Level::new(path, dir)], recursive }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// A sentence with the directory that cannot be read.
    pub(super) async fn next(&mut self, store: &Store) -> Result<Option<Entry>, Failure> {
        while let Some(level) = self.levels.last_mut() {
            let Some(item) = level.next(store).await? else {
                self.levels.pop();
                continue;
            };
            let path = level.path.join(&item.name);
            if self.recursive && item.kind == FileKind::Directory {
                self.levels.push(Level::new(path.clone(), item.ino));
            }
            return Ok(Some(Entry { path, item }));
        }
        Ok(None)
    }
}

impl Entry {
    /// Its attributes. They come with every entry of a listing that asks for them.
    ///
    /// # Errors
    /// A sentence, when the master left them out.
    pub(super) fn attr(&self) -> Result<Attr, Failure> {
        self.item.attr.ok_or_else(|| {
            Failure::new(format!("the master lists {} without attributes", self.path))
        })
    }
}

impl Level {
    fn new(path: StorePath, dir: Ino) -> Self {
        Self { path, dir, position: 0, page: Vec::new().into_iter() }
    }

    async fn next(&mut self, store: &Store) -> Result<Option<DirItem>, Failure> {
        if self.page.len() == 0 {
            self.page = store.entries(&self.path, self.dir, self.position).await?.into_iter();
        }
        let item = self.page.next();
        if let Some(item) = &item {
            self.position = item.position;
        }
        Ok(item)
    }
}
