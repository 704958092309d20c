//! Roots of backups of the master's metadata: a few hundred bytes each, one file for each generation in
//! every data directory of the node. A node does not look into them; whoever restores a master does.
//!
//! ```text
//! DIR/backups/GENERATION   16 hex digits; a SealedBackup message
//! ```
//!
//! Written under another name, synced, renamed, the directory synced: a file under its own name is whole.
//! The newest is never dropped, whatever the master asks for.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cairn_proto::{ChunkId, pb};
use prost::Message;

use crate::failpoints::{self, IN_BACKUP};

const DIRECTORY: &str = "backups";
/// Longest root that is kept.
const ROOT_MAX: usize = 1 << 20;
/// Most generations kept; more than any master asks for.
const GENERATIONS_MAX: usize = 64;

/// Why a root was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It is none.
    #[error("this is no root of a backup: {0}")]
    Malformed(&'static str),
    /// No disk took it.
    #[error("cannot keep it in {}: {}", .0.display(), cairn_daemon::io_error::explain(.1))]
    Io(PathBuf, io::Error),
}

/// The roots that the node keeps.
#[derive(Debug)]
pub struct Backups {
    directories: Vec<PathBuf>,
    /// One writer at a time: two of one generation would share a temporary name.
    writing: Mutex<()>,
}

impl Backups {
    /// In each of the data directories `data`.
    pub fn new<'a>(data: impl Iterator<Item = &'a Path>) -> Self {
        Self { directories: data.map(|d| d.join(DIRECTORY)).collect(), writing: Mutex::new(()) }
    }

    /// Keeps a root; durable on at least one disk when this returns. Blocks.
    ///
    /// # Errors
    /// When it is damaged, or no disk takes it.
    pub fn keep(&self, backup: &pb::SealedBackup, drop_below: u64) -> Result<(), KeepError> {
        if backup.root.len() > ROOT_MAX {
            return Err(KeepError::Malformed("it is too long"));
        }
        if !is_whole(backup) {
            return Err(KeepError::Malformed("its checksum does not match"));
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = backup.encode_to_vec();
        let (mut kept, mut failure) = (false, None);
        for directory in &self.directories {
            match write(directory, backup.generation, &bytes) {
                Ok(()) => {
                    kept = true;
                    drop_old(directory, drop_below);
                }
                Err(error) => failure = Some(KeepError::Io(directory.clone(), error)),
            }
        }
        match failure {
            Some(failure) if !kept => Err(failure),
            Some(failure) => {
                tracing::warn!(generation = backup.generation, %failure, "a disk has no copy of the root of a backup");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// All that are whole, the newest first. Blocks.
    pub fn all(&self) -> Vec<pb::SealedBackup> {
        let mut found = BTreeMap::new();
        for directory in &self.directories {
            for (generation, path) in listed(directory) {
                match read(&path) {
                    Some(backup) if backup.generation == generation => {
                        found.insert(generation, backup);
                    }
                    _ => tracing::warn!(path = %path.display(), "this root of a backup is damaged"),
                }
            }
        }
        found.into_values().rev().collect()
    }
}

fn is_whole(backup: &pb::SealedBackup) -> bool {
    ChunkId::of(&backup.root).as_bytes()[..] == backup.sha256[..]
}

fn read(path: &Path) -> Option<pb::SealedBackup> {
    let bytes = fs::read(path).ok()?;
    pb::SealedBackup::decode(bytes.as_slice()).ok().filter(is_whole)
}

/// Files by generation, ascending.
fn listed(directory: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let generation = |path: PathBuf| {
        let name = path.file_name()?.to_str().filter(|name| name.len() == 16)?;
        Some((u64::from_str_radix(name, 16).ok()?, path))
    };
    let mut files: Vec<_> = entries.filter_map(|entry| generation(entry.ok()?.path())).collect();
    files.sort();
    files
}

fn write(directory: &Path, generation: u64, bytes: &[u8]) -> io::Result<()> {
    if !directory.is_dir() {
        DirBuilder::new().mode(0o700).create(directory)?;
        directory.parent().map_or(Ok(()), |data| File::open(data)?.sync_all())?;
    }
    let path = directory.join(format!("{generation:016x}"));
    let fresh = directory.join(format!("{generation:016x}.new"));
    let fill = || {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    // On a full disk nothing half done may stay.
    fill().inspect_err(|_| _ = fs::remove_file(&fresh))?;
    failpoints::hit(IN_BACKUP);
    fs::rename(&fresh, &path)?;
    File::open(directory)?.sync_all()
}

fn drop_old(directory: &Path, below: u64) {
    let files = listed(directory);
    let surplus = files.len().saturating_sub(GENERATIONS_MAX);
    let newest = files.last().map(|(generation, _)| *generation);
    for (n, (generation, path)) in files.iter().enumerate() {
        let goes = *generation < below || n < surplus;
        if goes
            && Some(*generation) != newest
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old root");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(generation: u64, root: &'static [u8]) -> pb::SealedBackup {
        let sha256 = ChunkId::of(root).to_wire();
        pb::SealedBackup { generation, root: root.into(), sha256 }
    }

    #[test]
    fn roots_are_kept_on_every_disk_until_they_are_dropped() {
        let tmp = tempfile::tempdir().unwrap();
        let disks = [tmp.path().join("a"), tmp.path().join("b")];
        disks.iter().for_each(|disk| fs::create_dir(disk).unwrap());
        let backups = Backups::new(disks.iter().map(PathBuf::as_path));
        assert!(backups.all().is_empty());
        for generation in [3, 1, 2] {
            backups.keep(&sealed(generation, b"root"), 0).unwrap();
        }
        let generations = || backups.all().iter().map(|b| b.generation).collect::<Vec<_>>();
        assert_eq!(generations(), [3, 2, 1]);
        fs::write(disks[0].join("backups/0000000000000003"), b"damaged").unwrap();
        assert_eq!(generations(), [3, 2, 1], "the other disk has it");
        fs::remove_dir_all(disks[1].join("backups")).unwrap();
        assert_eq!(generations(), [2, 1]);
        backups.keep(&sealed(4, b"newer"), 9).unwrap();
        assert_eq!(generations(), [4], "the newest stays");
        assert_eq!(backups.all()[0], sealed(4, b"newer"));
        let damaged = pb::SealedBackup { generation: 5, ..sealed(4, b"x") };
        backups.keep(&damaged, 0).unwrap();
        let damaged = pb::SealedBackup { root: b"y".as_slice().into(), ..sealed(6, b"x") };
        assert!(backups.keep(&damaged, 0).is_err());
    }
}
