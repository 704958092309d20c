//! [`Plan`]: what is to be copied, found by walking the local directories.

use std::{
    collections::{HashMap, HashSet},
    fs::Metadata,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use crate::cli::{failure::Failure, store::StorePath};

/// One thing to copy.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) source: PathBuf,
    pub(super) target: StorePath,
    pub(super) metadata: Metadata,
}

/// A further name of a file that is in the plan already.
#[derive(Debug)]
pub(super) struct HardLink {
    pub(super) existing: StorePath,
    pub(super) target: StorePath,
}

/// Everything to copy; directories come before what is in them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) directories: Vec<Item>,
    pub(super) files: Vec<Item>,
    pub(super) links: Vec<HardLink>,
    /// The targets that were named on the command line.
    pub(super) roots: HashSet<StorePath>,
    first_names: HashMap<(u64, u64), StorePath>,
}

impl Plan {
    /// Adds `source` and, with `recursive`, everything below it.
    ///
    /// # Errors
    /// A sentence with the path that cannot be read.
    pub(super) fn add(
        &mut self,
        source: &Path,
        target: StorePath,
        recursive: bool,
    ) -> Result<(), Failure> {
        self.roots.insert(target.clone());
        let mut pending = vec![(source.to_owned(), target)];
        while let Some((source, target)) = pending.pop() {
            // What is named on the command line is followed if it is a link, as cp does without -r.
            let metadata = if recursive { source.symlink_metadata() } else { source.metadata() }
                .map_err(|e| cannot_read(&source, &e))?;
            if metadata.is_dir() {
                if !recursive {
                    return Err(Failure::new(format!(
                        "{} is a directory: add -r to copy it with everything in it",
                        source.display()
                    )));
                }
                for entry in source.read_dir().map_err(|e| cannot_read(&source, &e))? {
                    let entry = entry.map_err(|e| cannot_read(&source, &e))?;
                    pending.push((entry.path(), target.join(entry.file_name().as_bytes())));
                }
                self.directories.push(Item { source, target, metadata });
            } else {
                self.add_file(Item { source, target, metadata });
            }
        }
        Ok(())
    }

    fn add_file(&mut self, item: Item) {
        if item.metadata.nlink() > 1 {
            let identity = (item.metadata.dev(), item.metadata.ino());
            if let Some(existing) = self.first_names.get(&identity) {
                self.links.push(HardLink { existing: existing.clone(), target: item.target });
                return;
            }
            self.first_names.insert(identity, item.target.clone());
        }
        self.files.push(item);
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()))
}
