//! The `FORMAT` file of a data directory: who it belongs to. Written once by `cairn-storage format`,
//! checked at every start, so that an empty or foreign directory is never taken for ours.
//!
//! ```text
//! DIR/FORMAT     JSON, see [`Format`]; its presence makes the directory a data directory
//! DIR/LOCK       flock while a node serves from it
//! DIR/segments/  see [`crate::segment::format`]
//! DIR/index/     see [`crate::store::index`]
//! DIR/backups/   see [`crate::backups`]; made when the first comes
//! ```
//!
//! Directories have mode 0700. FORMAT is written last, under another name, synced, renamed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cairn_proto::limits::{CHUNK_SIZE_MAX, CHUNK_SIZE_MIN};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failpoints::{self, IN_FORMAT};

/// Version that this release writes, and the newest that it reads.
pub const VERSION: u32 = 1;
const KIND: &str = "cairn-storage";
const FILE: &str = "FORMAT";
const TEMPORARY: &str = "FORMAT.new";
const LOCK: &str = "LOCK";
const SEGMENTS: &str = "segments";
const INDEX: &str = "index";

/// Content of a FORMAT file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Version of the layout of the directory.
    pub format_version: u32,
    /// `cairn-storage`.
    pub kind: String,
    /// File system that the chunks belong to.
    #[serde(with = "uuid_text")]
    pub fs_uuid: Uuid,
    /// The node; the same in all directories of one.
    #[serde(with = "uuid_text")]
    pub node_uuid: Uuid,
    /// What people call the node.
    pub name: String,
    /// Largest chunk in bytes.
    pub chunk_size: u32,
    /// Number of this directory among those of the node, from 0.
    pub disk_index: u32,
    /// Number of directories of the node when this one was formatted.
    pub disk_count: u32,
}

/// UUIDs in FORMAT are in their usual text form.
mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(uuid: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(uuid)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(from)?;
        Uuid::parse_str(&text).map_err(D::Error::custom)
    }
}

/// Why a directory was refused; a sentence with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// No FORMAT file.
    #[error(
        "{} is not a data directory: it has no FORMAT file. Make it one with \
         `cairn-storage format --data {} --fs UUID`; `cairn-master info` shows the UUID",
        .0.display(), .0.display()
    )]
    Unformatted(PathBuf),
    /// The directory is in use for something.
    #[error("{} is not empty: give `format` an empty or a new directory", .0.display())]
    NotEmpty(PathBuf),
    /// It is a data directory already.
    #[error(
        "{} is a data directory of file system {fs} already. To give it up, remove its content first",
        .dir.display()
    )]
    Already {
        /// The directory.
        dir: PathBuf,
        /// Its file system.
        fs: Uuid,
    },
    /// FORMAT makes no sense.
    #[error("{}/FORMAT is damaged ({why}): restore it from a copy; its chunks are in segments/", .dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A directory of something else.
    #[error("{} is a directory of {kind}, not of a storage node: check --data", .dir.display())]
    WrongKind {
        /// The directory.
        dir: PathBuf,
        /// What it is.
        kind: String,
    },
    /// Written by a newer release.
    #[error(
        "{} has format version {found}, this release reads up to {VERSION}: use the newer release",
        .dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Another process uses it.
    #[error(
        "{} is in use by another process: stop the node that serves it (see `cairn status`), \
         or choose another directory",
        .0.display()
    )]
    Locked(PathBuf),
    /// Directories of different nodes or file systems.
    #[error("{} belongs to {what}, {} to another: one node serves its own directories only", .dir.display(), .other.display())]
    Foreign {
        /// One directory.
        dir: PathBuf,
        /// Another.
        other: PathBuf,
        /// To what the first belongs.
        what: String,
    },
    /// The same directory was given twice.
    #[error("{} and {} are the same directory of the node: give each --data once", .0.display(), .1.display())]
    Twice(PathBuf, PathBuf),
    /// Settings that no directory can have.
    #[error("{0}")]
    Setting(String),
    /// The file system said so.
    #[error("cannot use {}: {}", .path.display(), cairn_daemon::io_error::explain(.error))]
    Io {
        /// Of what.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FormatError + '_ {
    move |error| FormatError::Io { path: path.to_owned(), error }
}

/// What [`format`] is to write.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Directories, one for each disk.
    pub data: Vec<PathBuf>,
    /// File system that the chunks will belong to.
    pub fs: Uuid,
    /// An existing node that gets another directory; `None` makes a new node.
    pub node: Option<Uuid>,
    /// What people call the node.
    pub name: String,
    /// Largest chunk in bytes: that of the file system.
    pub chunk_size: u32,
}

/// Makes data directories of empty or missing ones; the node's UUID.
///
/// # Errors
/// See [`FormatError`]. What was made of the skeleton before stays; `format` may be called again.
pub fn format(new: &NewNode) -> Result<Uuid, FormatError> {
    if new.data.is_empty() {
        return Err(FormatError::Setting("give at least one --data DIR".into()));
    }
    if !(CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&new.chunk_size)
        || !new.chunk_size.is_power_of_two()
    {
        return Err(FormatError::Setting(format!(
            "the chunk size {} is not a power of two from {CHUNK_SIZE_MIN} to {CHUNK_SIZE_MAX}",
            new.chunk_size
        )));
    }
    if new.name.is_empty() || new.name.len() > 255 {
        return Err(FormatError::Setting("a node's name has 1 to 255 bytes".into()));
    }
    for dir in &new.data {
        check_unused(dir)?;
    }
    let node_uuid = new.node.unwrap_or_else(Uuid::new_v4);
    for (index, dir) in (0u32..).zip(&new.data) {
        make_skeleton(dir)?;
        failpoints::hit(IN_FORMAT);
        write_format(
            dir,
            &Format {
                format_version: VERSION,
                kind: KIND.into(),
                fs_uuid: new.fs,
                node_uuid,
                name: new.name.clone(),
                chunk_size: new.chunk_size,
                disk_index: index,
                disk_count: u32::try_from(new.data.len()).unwrap_or(u32::MAX),
            },
        )?;
    }
    Ok(node_uuid)
}

/// Refuses a directory with content other than what an interrupted `format` leaves.
fn check_unused(dir: &Path) -> Result<(), FormatError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at(dir)(e)),
    };
    for entry in entries {
        let entry = entry.map_err(at(dir))?;
        let empty = |e: &fs::DirEntry| {
            fs::read_dir(e.path()).is_ok_and(|mut entries| entries.next().is_none())
        };
        match entry.file_name().to_str() {
            Some(FILE) => {
                let found = read(dir)?;
                return Err(FormatError::Already { dir: dir.into(), fs: found.fs_uuid });
            }
            Some(LOCK | TEMPORARY) => {}
            Some(SEGMENTS | INDEX) if empty(&entry) => {}
            Some(_) | None => return Err(FormatError::NotEmpty(dir.into())),
        }
    }
    Ok(())
}

fn make_skeleton(dir: &Path) -> Result<(), FormatError> {
    for path in [dir.to_owned(), dir.join(SEGMENTS), dir.join(INDEX)] {
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(at(&path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(at(&path))?;
    }
    let lock = dir.join(LOCK);
    private_file(&lock).map_err(at(&lock))?;
    Ok(())
}

fn write_format(dir: &Path, format: &Format) -> Result<(), FormatError> {
    let (temporary, name) = (dir.join(TEMPORARY), dir.join(FILE));
    let text = serde_json::to_string_pretty(format).expect("plain fields have a JSON form");
    let write = || -> io::Result<()> {
        let mut file = private_file(&temporary)?;
        file.set_len(0)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, &name)?;
        File::open(dir)?.sync_all()?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            Some(_) | None => Ok(()),
        }
    };
    write().map_err(at(&name))
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Reads and checks the FORMAT file of `dir`.
///
/// # Errors
/// See [`FormatError`].
pub fn read(dir: &Path) -> Result<Format, FormatError> {
    #[derive(Deserialize)]
    struct Head {
        format_version: u32,
        kind: String,
    }
    let path = dir.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(FormatError::Unformatted(dir.into()));
        }
        Err(e) => return Err(at(&path)(e)),
    };
    let damaged =
        |e: serde_json::Error| FormatError::Damaged { dir: dir.into(), why: e.to_string() };
    let head: Head = serde_json::from_slice(&text).map_err(damaged)?;
    if head.kind != KIND {
        return Err(FormatError::WrongKind { dir: dir.into(), kind: head.kind });
    }
    if head.format_version > VERSION {
        return Err(FormatError::Newer { dir: dir.into(), found: head.format_version });
    }
    let format: Format = serde_json::from_slice(&text).map_err(damaged)?;
    if !(CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&format.chunk_size) {
        let why = format!("chunk size {}", format.chunk_size);
        return Err(FormatError::Damaged { dir: dir.into(), why });
    }
    Ok(format)
}

/// A data directory that this process has locked. The lock ends with the value.
#[derive(Debug)]
pub struct DataDir {
    /// The directory.
    pub path: PathBuf,
    /// Its FORMAT file.
    pub format: Format,
    _lock: File,
}

impl DataDir {
    /// Checks and locks a directory.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let format = read(path)?;
        let lock = path.join(LOCK);
        let file = private_file(&lock).map_err(at(&lock))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(FormatError::Locked(path.into())),
            Err(e) => return Err(at(&lock)(e.into())),
        }
        for dir in [path.join(SEGMENTS), path.join(INDEX)] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at(&dir))?;
        }
        Ok(Self { path: path.into(), format, _lock: file })
    }

    /// Checks and locks all directories of one node.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Self>, FormatError> {
        let mut dirs: Vec<Self> = Vec::with_capacity(paths.len());
        for path in paths {
            let formatted = read(path)?;
            if let Some(first) = dirs.first() {
                let same_fs = formatted.fs_uuid == first.format.fs_uuid;
                if !same_fs || formatted.node_uuid != first.format.node_uuid {
                    let what = if same_fs {
                        format!("node {}", formatted.node_uuid)
                    } else {
                        format!("file system {}", formatted.fs_uuid)
                    };
                    let other = first.path.clone();
                    return Err(FormatError::Foreign { dir: path.clone(), other, what });
                }
            }
            let real = |p: &Path| fs::canonicalize(p).map_err(at(p));
            for earlier in &dirs {
                if real(&earlier.path)? == real(path)? {
                    return Err(FormatError::Twice(earlier.path.clone(), path.clone()));
                }
            }
            dirs.push(Self::open(path)?);
        }
        if dirs.is_empty() {
            return Err(FormatError::Setting("give at least one --data DIR".into()));
        }
        Ok(dirs)
    }

    /// Where the segments are.
    pub fn segments(&self) -> PathBuf {
        self.path.join(SEGMENTS)
    }

    /// Where the index is.
    pub fn index(&self) -> PathBuf {
        self.path.join(INDEX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_node(dirs: &[PathBuf], fs: Uuid) -> NewNode {
        NewNode { data: dirs.to_vec(), fs, node: None, name: "n".into(), chunk_size: 65536 }
    }

    #[test]
    fn formats_once_with_private_modes_and_can_be_resumed() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("d");
        fs::create_dir_all(dir.join(SEGMENTS)).unwrap();
        fs::write(dir.join(LOCK), "").unwrap();
        let node = format(&new_node(std::slice::from_ref(&dir), Uuid::from_u128(1))).unwrap();
        assert_eq!(read(&dir).unwrap().node_uuid, node);
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let again = format(&new_node(std::slice::from_ref(&dir), Uuid::from_u128(2)));
        assert!(matches!(again, Err(FormatError::Already { .. })), "{again:?}");
        let used = tmp.path().join("used");
        fs::create_dir(&used).unwrap();
        fs::write(used.join("letter"), "x").unwrap();
        let refused = format(&new_node(&[used], Uuid::from_u128(2)));
        assert!(matches!(refused, Err(FormatError::NotEmpty(_))), "{refused:?}");
    }

    #[test]
    fn refuses_what_is_not_ours_with_a_sentence_that_names_it() {
        let tmp = tempfile::tempdir().unwrap();
        let dirs: Vec<_> = ["a", "b", "c"].map(|d| tmp.path().join(d)).into();
        format(&new_node(&dirs[..1], Uuid::from_u128(1))).unwrap();
        format(&new_node(&dirs[1..2], Uuid::from_u128(2))).unwrap();
        format(&new_node(&dirs[2..], Uuid::from_u128(1))).unwrap();
        let sentence = |paths: &[PathBuf]| DataDir::open_all(paths).unwrap_err().to_string();
        assert!(sentence(&[tmp.path().join("none")]).contains("none is not a data directory"));
        assert!(sentence(&dirs[..2]).contains("belongs to file system"));
        assert!(sentence(&[dirs[0].clone(), dirs[2].clone()]).contains("belongs to node"));
        assert!(sentence(&[dirs[0].clone(), dirs[0].clone()]).contains("the same directory"));
        let held = DataDir::open_all(&dirs[..1]).unwrap();
        assert!(sentence(&dirs[..1]).contains("in use by another process"));
        drop(held);
        let with = |change: &dyn Fn(&mut Format)| {
            let mut f = read(&dirs[1]).unwrap();
            change(&mut f);
            let other = tmp.path().join("changed");
            let _ = fs::remove_dir_all(&other);
            make_skeleton(&other).unwrap();
            write_format(&other, &f).unwrap();
            sentence(&[other])
        };
        assert!(with(&|f| f.format_version = 2).contains("use the newer release"));
        assert!(with(&|f| f.kind = "cairn-master".into()).contains("directory of cairn-master"));
        assert!(with(&|f| f.chunk_size = 1).contains("damaged"));
        fs::write(dirs[1].join(FILE), "{").unwrap();
        assert!(sentence(&dirs[1..2]).contains("damaged"));
    }
}
