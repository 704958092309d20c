//! [`LocalWalk`]: what is to be copied, found by walking local directories.
//!
//! Directories come before what is in them. Held: one open directory for each level, and the first
//! name of each file that has several.

use std::{
    collections::HashMap,
    fs::{Metadata, ReadDir},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use cairn_daemon::io_error::explain;

use crate::cli::{failure::Failure, store::StorePath};

/// One thing to copy.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) source: PathBuf,
    pub(super) target: StorePath,
    pub(super) metadata: Metadata,
}

/// A further name of a file that was found before.
#[derive(Debug)]
pub(super) struct HardLink {
    pub(super) existing: StorePath,
    pub(super) target: StorePath,
}

/// What the walk comes upon.
#[derive(Debug)]
pub(super) enum Found {
    Directory(Item),
    /// Anything that is neither a directory nor a further name.
    File(Item),
    Link(HardLink),
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct LocalWalk {
    pending: Vec<Pending>,
    recursive: bool,
    first_names: HashMap<(u64, u64), StorePath>,
}

#[derive(Debug)]
enum Pending {
    Named(PathBuf, StorePath),
    Inside(PathBuf, ReadDir, StorePath),
}

impl LocalWalk {
    /// Of `named` (source and target) and, with `recursive`, everything below.
    pub(super) fn new(named: &[(PathBuf, StorePath)], recursive: bool) -> Self {
        let pending = named.iter().rev().cloned().map(|(s, t)| Pending::Named(s, t)).collect();
        Self { pending, recursive, first_names: HashMap::new() }
    }

    fn step(&mut self) -> Result<Option<Found>, Failure> {
        loop {
            match self.pending.pop() {
                None => return Ok(None),
                Some(Pending::Named(source, target)) => {
                    return self.visit(source, target).map(Some);
                }
                Some(Pending::Inside(directory, mut entries, target)) => {
                    let Some(entry) = entries.next() else { continue };
                    let entry = entry.map_err(|e| cannot_read(&directory, &e))?;
                    let below = target.join(entry.file_name().as_bytes());
                    self.pending.push(Pending::Inside(directory, entries, target));
                    return self.visit(entry.path(), below).map(Some);
                }
            }
        }
    }

    fn visit(&mut self, source: PathBuf, target: StorePath) -> Result<Found, Failure> {
        // What is named on the command line is followed if it is a link, as cp does without -r.
        let metadata = if self.recursive { source.symlink_metadata() } else { source.metadata() };
        let metadata = metadata.map_err(|e| cannot_read(&source, &e))?;
        let item = Item { source, target, metadata };
        if !item.metadata.is_dir() {
            return Ok(self.file(item));
        }
        if !self.recursive {
            return Err(Failure::new(format!(
                "{} is a directory: add -r to copy it with everything in it",
                item.source.display()
            )));
        }
        let entries = item.source.read_dir().map_err(|e| cannot_read(&item.source, &e))?;
        let inside = Pending::Inside(item.source.clone(), entries, item.target.clone());
        self.pending.push(inside);
        Ok(Found::Directory(item))
    }

    fn file(&mut self, item: Item) -> Found {
        if item.metadata.nlink() > 1 {
            let identity = (item.metadata.dev(), item.metadata.ino());
            if let Some(existing) = self.first_names.get(&identity) {
                return Found::Link(HardLink { existing: existing.clone(), target: item.target });
            }
            self.first_names.insert(identity, item.target.clone());
        }
        Found::File(item)
    }
}

impl Iterator for LocalWalk {
    type Item = Result<Found, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// `path` cannot be opened or read.
pub(super) fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {}", path.display(), explain(error)))
}
