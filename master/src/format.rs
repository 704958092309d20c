//! The master's data directory: what `format` writes, and what must be there before anything is served.
//!
//! `FORMAT` (JSON) says whose directory it is and how its file system is cut; it is written last, so a
//! directory without it was never finished. `LOCK` is locked for as long as a process uses the
//! directory. `meta/` holds the engine's files. A directory that `format` did not make is never used:
//! an empty master in front of full nodes would look like a file system whose files were all deleted.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use cairn_proto::{
    Compression,
    limits::{CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, REPLICAS_MAX},
};
use rustix::{fs::FlockOperation, io::Errno};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Version of the directory's layout that this build writes; it refuses newer ones.
pub const FORMAT_VERSION: u32 = 1;
/// Default number of leading bits of a chunk id that make its placement group.
pub const PG_BITS_DEFAULT: u32 = 10;

const KIND: &str = "cairn-master";
const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
const META_DIR: &str = "meta";

/// How a file system begins. Copies and compression may have been changed since; the rest is fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The file system's identity.
    pub fs_uuid: Uuid,
    /// Bytes in a chunk: a power of two from 4 KiB to 16 MiB.
    pub chunk_size: u32,
    /// Copies wanted of every chunk.
    pub replicas: u32,
    /// Copies without which a write fails.
    pub min_replicas: u32,
    /// Bits of a placement group.
    pub pg_bits: u32,
    /// What clients do with new chunks.
    pub compression: Compression,
}

/// The file `FORMAT`, as text.
#[derive(Serialize, Deserialize)]
struct FormatFile {
    format_version: u32,
    kind: String,
    fs_uuid: String,
    chunk_size: u32,
    replicas: u32,
    min_replicas: u32,
    pg_bits: u32,
    /// Absent in what was made before there was compression.
    #[serde(default)]
    compression: Option<String>,
}

/// Only what tells one format from another: read first, so that a newer file is called newer.
#[derive(Deserialize)]
struct FormatHead {
    format_version: u32,
    kind: String,
}

/// Why a data directory cannot be made or used. Each is a sentence with the remedy.
#[derive(Debug, Error)]
pub enum FormatError {
    /// It has no `FORMAT`.
    #[error(
        "{0} is not the data directory of a Cairn master: make one with \
         `cairn-master format --data {0}`, or check the path"
    )]
    Unformatted(PathBuf),
    /// It has files in it.
    #[error("{0} is not empty: name a directory that does not exist or is empty")]
    NotEmpty(PathBuf),
    /// It is a file.
    #[error("{0} is not a directory: name a directory that does not exist or is empty")]
    NotDirectory(PathBuf),
    /// It is formatted already.
    #[error(
        "{0} is the data directory of the file system {1} already: serve it, or name another one"
    )]
    Already(PathBuf, Uuid),
    /// `FORMAT` belongs to something else.
    #[error("{0} belongs to {1}, not to a Cairn master: check the path given with --data")]
    Foreign(PathBuf, String),
    /// A later release wrote it.
    #[error(
        "{0} has format version {1}, this release knows versions up to {FORMAT_VERSION}: \
         use the newer release that wrote it"
    )]
    Newer(PathBuf, u32),
    /// `FORMAT` cannot be understood.
    #[error("{0} cannot be understood ({1}): restore it from a backup")]
    Damaged(PathBuf, String),
    /// The engine's files are gone.
    #[error("{0} is missing, so the namespace is lost: restore it from a backup before serving")]
    NoMeta(PathBuf),
    /// Another process holds the lock.
    #[error("{0} is in use by another process: stop the other cairn-master first")]
    Locked(PathBuf),
    /// A setting out of range.
    #[error("{0}")]
    Setting(String),
    /// There was nothing sound to put into it.
    #[error("{0}")]
    Fill(String),
    /// The system said no.
    #[error("cannot {what} {path}: {}", cairn_daemon::io_error::explain(.source))]
    Io {
        /// The verb.
        what: &'static str,
        /// The thing.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> FormatError {
    let path = path.into();
    move |source| FormatError::Io { what, path, source }
}

impl Format {
    /// # Errors
    /// A sentence that names the setting and its range.
    pub fn check(&self) -> Result<(), FormatError> {
        let wrong = |text: String| Err(FormatError::Setting(text));
        if !(CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&self.chunk_size)
            || !self.chunk_size.is_power_of_two()
        {
            return wrong(format!(
                "chunk size {} will not do: give a power of two from {CHUNK_SIZE_MIN} to \
                 {CHUNK_SIZE_MAX} bytes",
                self.chunk_size
            ));
        }
        if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            return wrong(format!(
                "{} replicas will not do: give 1 to {REPLICAS_MAX}",
                self.replicas
            ));
        }
        if !(1..=self.replicas).contains(&self.min_replicas) {
            return wrong(format!(
                "at least {} copies of {} will not do: give --min-replicas from 1 to {}",
                self.min_replicas, self.replicas, self.replicas
            ));
        }
        Ok(())
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let file = FormatFile {
            format_version: FORMAT_VERSION,
            kind: KIND.to_owned(),
            fs_uuid: self.fs_uuid.to_string(),
            chunk_size: self.chunk_size,
            replicas: self.replicas,
            min_replicas: self.min_replicas,
            pg_bits: self.pg_bits,
            compression: Some(self.compression.to_string()),
        };
        serde_json::to_string_pretty(&file).expect("strings and numbers are always JSON")
    }

    fn parse(text: &str, dir: &Path) -> Result<Self, FormatError> {
        let path = dir.join(FORMAT_FILE);
        let damaged = |why: String| FormatError::Damaged(path.clone(), why);
        let head: FormatHead = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if head.kind != KIND {
            return Err(FormatError::Foreign(dir.to_owned(), head.kind));
        }
        if head.format_version > FORMAT_VERSION {
            return Err(FormatError::Newer(dir.to_owned(), head.format_version));
        }
        let file: FormatFile = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        let format = Self {
            fs_uuid: Uuid::parse_str(&file.fs_uuid).map_err(|e| damaged(e.to_string()))?,
            chunk_size: file.chunk_size,
            replicas: file.replicas,
            min_replicas: file.min_replicas,
            pg_bits: file.pg_bits,
            compression: file.compression.as_deref().unwrap_or("off").parse().map_err(damaged)?,
        };
        format.check().map_err(|e| damaged(e.to_string()))?;
        if format.pg_bits > cairn_proto::limits::PG_BITS_MAX {
            return Err(damaged(format!("{} group bits", format.pg_bits)));
        }
        Ok(format)
    }

    /// What `dir/FORMAT` says. Takes no lock: a serving master may be asked about beside it.
    ///
    /// # Errors
    /// When the directory is not a master's, or newer than this build.
    pub fn read(dir: &Path) -> Result<Self, FormatError> {
        let path = dir.join(FORMAT_FILE);
        let text = fs::read_to_string(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                FormatError::Unformatted(dir.to_owned())
            }
            _ => io("read", &path)(e),
        })?;
        Self::parse(&text, dir)
    }
}

/// A formatted directory, locked until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    /// What it was formatted with.
    pub format: Format,
    meta: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Locks `dir`, which `format` made.
    ///
    /// # Errors
    /// When it is not a master's, newer than this build, incomplete or in use.
    pub fn open(dir: &Path) -> Result<Self, FormatError> {
        let format = Format::read(dir)?;
        let lock = lock(dir)?;
        let meta = dir.join(META_DIR);
        if !meta.is_dir() {
            return Err(FormatError::NoMeta(meta));
        }
        Ok(Self { format, meta, _lock: lock })
    }

    /// The engine's own directory.
    pub fn meta(&self) -> &Path {
        &self.meta
    }
}

/// Makes `dir` the data directory of a new file system. `fill` puts the first rows into the engine's
/// directory; `FORMAT` is written after it, so that an interrupted format leaves nothing that serves.
///
/// # Errors
/// When the directory holds anything, a setting is out of range, or the disk says no.
pub fn format<E>(
    dir: &Path,
    format: &Format,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), FormatError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    format.check()?;
    must_be_empty(dir)?;
    make_dir(dir)?;
    let _lock = lock(dir)?;
    let meta = dir.join(META_DIR);
    make_dir(&meta)?;
    if let Err(error) = fill(&meta) {
        // What could not be filled is no use to anybody; the directory can be named again.
        let removed = fs::remove_dir_all(&meta).and_then(|()| fs::remove_file(dir.join(LOCK_FILE)));
        if let Err(why) = removed {
            tracing::warn!(dir = %dir.display(), %why, "cannot remove what was begun");
        }
        return Err(FormatError::Fill(error.to_string()));
    }
    write_durably(dir, FORMAT_FILE, format.to_json().as_bytes())
}

pub(crate) fn must_be_empty(dir: &Path) -> Result<(), FormatError> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(FormatError::NotDirectory(dir.to_owned()));
        }
        Err(e) => return Err(io("read", dir)(e)),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    match Format::read(dir) {
        Ok(found) => Err(FormatError::Already(dir.to_owned(), found.fs_uuid)),
        Err(_) => Err(FormatError::NotEmpty(dir.to_owned())),
    }
}

fn make_dir(dir: &Path) -> Result<(), FormatError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("make", dir))?;
    // An existing, empty directory keeps its mode through `create`.
    let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
    fs::set_permissions(dir, private).map_err(io("protect", dir))
}

fn lock(dir: &Path) -> Result<File, FormatError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(FormatError::Locked(dir.to_owned())),
        Err(e) => Err(io("lock", path)(e.into())),
    }
}

fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
    let (path, fresh) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || {
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(dir)?.sync_all()?;
        match dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(io("write", &path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sample() -> Format {
        Format {
            fs_uuid: Uuid::from_u128(7),
            chunk_size: 65536,
            replicas: 2,
            min_replicas: 1,
            pg_bits: PG_BITS_DEFAULT,
            compression: Compression::Zstd(7),
        }
    }

    fn nothing(_: &Path) -> Result<(), io::Error> {
        Ok(())
    }

    #[test]
    fn a_formatted_directory_is_private_and_opens_once() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        format(&dir, &sample(), nothing).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let first = DataDir::open(&dir).unwrap();
        assert_eq!(first.format, sample());
        let second = DataDir::open(&dir).unwrap_err();
        assert!(matches!(second, FormatError::Locked(_)), "{second}");
        drop(first);
        DataDir::open(&dir).unwrap();
    }

    #[test]
    fn what_format_did_not_make_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        for missing in [dir.join("nowhere"), dir.to_owned()] {
            let e = DataDir::open(&missing).unwrap_err();
            assert!(e.to_string().contains("cairn-master format"), "{e}");
        }
        fs::write(dir.join("precious"), "x").unwrap();
        let e = format(dir, &sample(), nothing).unwrap_err();
        assert!(matches!(e, FormatError::NotEmpty(_)), "{e}");
        assert!(!dir.join(FORMAT_FILE).exists());
        let e = format(&dir.join("precious"), &sample(), nothing).unwrap_err();
        assert!(matches!(e, FormatError::NotDirectory(_)), "{e}");
    }

    #[test]
    fn newer_foreign_and_damaged_formats_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("m");
        format(&dir, &sample(), nothing).unwrap();
        let e = format(&dir, &sample(), nothing).unwrap_err();
        assert!(matches!(e, FormatError::Already(..)), "{e}");
        let good = fs::read_to_string(dir.join(FORMAT_FILE)).unwrap();
        let spoil = |text: &str| {
            fs::write(dir.join(FORMAT_FILE), text).unwrap();
            DataDir::open(&dir).unwrap_err()
        };
        let e = spoil(r#"{"format_version": 2, "kind": "cairn-master", "new": 1}"#);
        assert!(matches!(e, FormatError::Newer(_, 2)), "{e}");
        let e = spoil(&good.replace(KIND, "cairn-storage"));
        assert!(matches!(e, FormatError::Foreign(..)), "{e}");
        let spoilt = [("65536", "65537"), ("-0000", ""), ("zstd:7", "zip")];
        let spoilt = spoilt.map(|(right, wrong)| good.replace(right, wrong));
        for wrong in ["", "{"].into_iter().chain(spoilt.iter().map(String::as_str)) {
            let e = spoil(wrong);
            assert!(matches!(e, FormatError::Damaged(..)), "{e}");
        }
        // What was formatted before there was compression has none.
        let old: String = good.lines().filter(|l| !l.contains("zstd")).collect();
        let old = old.replace("10,}", "10}");
        fs::write(dir.join(FORMAT_FILE), old).unwrap();
        assert_eq!(Format::read(&dir).unwrap().compression, Compression::Off);
        fs::write(dir.join(FORMAT_FILE), &good).unwrap();
        fs::remove_dir(dir.join(META_DIR)).unwrap();
        let e = DataDir::open(&dir).unwrap_err();
        assert!(matches!(e, FormatError::NoMeta(_)), "{e}");
    }

    #[test]
    fn settings_out_of_range_leave_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("m");
        for wrong in [
            Format { chunk_size: 5000, ..sample() },
            Format { chunk_size: 2048, ..sample() },
            Format { replicas: 0, ..sample() },
            Format { min_replicas: 3, ..sample() },
        ] {
            let e = format(&dir, &wrong, nothing).unwrap_err();
            assert!(matches!(e, FormatError::Setting(_)), "{e}");
            assert!(!dir.exists());
        }
    }
}
