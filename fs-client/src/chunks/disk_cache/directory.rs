//! [`Directory`]: the place of a disk cache, and to whom it belongs.
//!
//! ```text
//! DIR/FORMAT     JSON, see [`Format`]
//! DIR/LOCK       flock while a mount uses it
//! DIR/table      see [`super::slots`]
//! DIR/chunks     see [`super::slots`]
//! ```
//!
//! A directory that is missing or empty becomes a cache. One with anything else in it is left alone. A
//! FORMAT that makes no sense is written anew when nothing but a cache's files is beside it: they are
//! only copies.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version that this release writes, and the newest that it reads.
const VERSION: u32 = 1;
const KIND: &str = "cairn-mount-cache";
const FORMAT: &str = "FORMAT";
const TEMPORARY: &str = "FORMAT.new";
const LOCK: &str = "LOCK";
/// The file of records.
pub(super) const TABLE: &str = "table";
/// The file of chunks.
pub(super) const CHUNKS: &str = "chunks";
/// What a cache's directory may hold. Disks of their own come with the last one.
const OURS: [&str; 6] = [FORMAT, TEMPORARY, LOCK, TABLE, CHUNKS, "lost+found"];

/// Content of a FORMAT file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    /// Version of the layout of the directory.
    format_version: u32,
    /// `cairn-mount-cache`.
    kind: String,
    /// UUID of the file system whose chunks these are.
    fs_uuid: String,
    /// Largest chunk in bytes.
    chunk_size: u32,
}

/// Why a directory cannot be a mount's cache: a sentence with the remedy.
#[derive(Debug, Error)]
pub enum CacheRefused {
    /// Another mount has locked it.
    #[error("{} is the cache of another mount that is there now: give each mount a --cache-dir of its own", .0.display())]
    InUse(PathBuf),
    /// It holds chunks of another file system.
    #[error("{} is the cache of file system {found}, this one is {ours}: give each its own --cache-dir, or remove the directory", .dir.display())]
    OtherFileSystem {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Which one is mounted.
        ours: String,
    },
    /// Written by a newer release.
    #[error("{} is a cache of format version {found}, this release knows up to {VERSION}: use the newer release, or remove the directory", .dir.display())]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It holds something else.
    #[error("{} is not empty and no cache of a mount ({found} is in it): give --cache-dir an empty or a new directory", .dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
}

/// Why there is no cache.
#[derive(Debug)]
pub(super) enum NoCache {
    /// The user has to decide.
    Refused(CacheRefused),
    /// The disk does not do it.
    Failed(io::Error),
}

impl From<io::Error> for NoCache {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<CacheRefused> for NoCache {
    fn from(refused: CacheRefused) -> Self {
        Self::Refused(refused)
    }
}

/// A directory that this process has locked. The lock ends with the value.
#[derive(Debug)]
pub(super) struct Directory {
    _lock: File,
}

impl Directory {
    /// Makes `dir` the cache of file system `fs`, or takes it up again. Waits while another mount has
    /// it, after a call of `waiting`.
    pub(super) fn open(
        dir: &Path,
        fs: &str,
        chunk_size: u32,
        waiting: impl FnOnce(),
    ) -> Result<Self, NoCache> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let ours = Format {
            format_version: VERSION,
            kind: KIND.to_owned(),
            fs_uuid: fs.to_owned(),
            chunk_size,
        };
        // Before anything is made in it.
        is_made(dir, &ours)?;
        let lock = private().create(true).truncate(false).open(dir.join(LOCK))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            waiting();
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
        }
        if !is_made(dir, &ours)? {
            make(dir, &ours)?;
        }
        Ok(Self { _lock: lock })
    }
}

/// How files of a cache are opened.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Whether `dir` is a cache as `ours` says; not, when it may become one.
fn is_made(dir: &Path, ours: &Format) -> Result<bool, NoCache> {
    #[derive(Deserialize)]
    struct Head {
        format_version: u32,
        kind: String,
    }
    let dir = || dir.to_owned();
    let text = match fs::read(dir().join(FORMAT)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if let Ok(head) = serde_json::from_slice::<Head>(&text) {
        if head.kind != KIND {
            return Err(CacheRefused::Foreign { dir: dir(), found: head.kind }.into());
        }
        if head.format_version > VERSION {
            return Err(CacheRefused::Newer { dir: dir(), found: head.format_version }.into());
        }
    }
    match serde_json::from_slice::<Format>(&text) {
        Ok(found) if found == *ours => return Ok(true),
        Ok(found) if found.fs_uuid != ours.fs_uuid => {
            let (found, ours) = (found.fs_uuid, ours.fs_uuid.clone());
            return Err(CacheRefused::OtherFileSystem { dir: dir(), found, ours }.into());
        }
        Ok(_) | Err(_) => {}
    }
    for entry in fs::read_dir(dir())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !OURS.contains(&name.as_str()) {
            return Err(CacheRefused::Foreign { dir: dir(), found: name }.into());
        }
    }
    Ok(false)
}

/// Makes `dir` an empty cache.
fn make(dir: &Path, format: &Format) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for name in [TABLE, CHUNKS] {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let mut text = serde_json::to_vec_pretty(format)?;
    text.push(b'\n');
    let temporary = dir.join(TEMPORARY);
    let mut file = private().create(true).truncate(true).open(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(temporary, dir.join(FORMAT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, fs: &str) -> Result<Directory, NoCache> {
        Directory::open(dir, fs, 65536, || panic!("nobody has it"))
    }

    fn refused(dir: &Path, fs: &str) -> String {
        match open(dir, fs) {
            Err(NoCache::Refused(refused)) => refused.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cache_belongs_to_one_file_system() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("a/b");
        drop(open(&dir, "one").unwrap());
        fs::write(dir.join(CHUNKS), "kept").unwrap();
        drop(open(&dir, "one").unwrap());
        assert_eq!(fs::read(dir.join(CHUNKS)).unwrap(), b"kept");
        let sentence = refused(&dir, "two");
        assert!(sentence.contains("cache of file system one, this one is two"), "{sentence}");
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_newer_or_something_else_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let newer = r#"{"format_version":2,"kind":"cairn-mount-cache","layout":"other"}"#;
        fs::write(dir.join(FORMAT), newer).unwrap();
        assert!(refused(dir, "one").contains("format version 2"));
        fs::write(dir.join(FORMAT), r#"{"format_version":1,"kind":"cairn-storage"}"#).unwrap();
        assert!(refused(dir, "one").contains("cairn-storage"));
        fs::remove_file(dir.join(FORMAT)).unwrap();
        fs::write(dir.join("letter"), "dear").unwrap();
        assert!(refused(dir, "one").contains("letter"));
        assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "nothing was made");
    }

    #[test]
    fn a_torn_format_is_an_empty_cache() {
        let place = tempfile::tempdir().unwrap();
        drop(open(place.path(), "one").unwrap());
        fs::write(place.path().join(FORMAT), "{\"form").unwrap();
        fs::write(place.path().join(CHUNKS), "whose?").unwrap();
        drop(open(place.path(), "two").unwrap());
        assert!(!place.path().join(CHUNKS).exists());
    }

    #[test]
    fn a_directory_in_use_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let first = open(place.path(), "one").unwrap();
        let (waits, waiting) = std::sync::mpsc::channel();
        let dir = place.path().to_owned();
        let second = std::thread::spawn(move || {
            Directory::open(&dir, "one", 65536, || waits.send(()).unwrap()).is_ok()
        });
        waiting.recv().unwrap();
        drop(first);
        assert!(second.join().unwrap());
    }
}
