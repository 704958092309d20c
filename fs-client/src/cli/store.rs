//! [`Store`]: an open file system for one verb, and the paths that people give.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt, sync::Arc, time::Duration};

use cairn_proto::{Attr, FileKind, FsError, Ino, Timestamp};
use tokio::time::timeout;

use super::{connection::Connection, failure::Failure};
use crate::{
    config::ClientConfig,
    vfs::{Caller, DIRTY_BYTES_DEFAULT, DirItem, Vfs},
};

/// How long the end of a session may take that is of no more use.
const GOODBYE: Duration = Duration::from_secs(1);

/// A session for the length of one verb, on behalf of whoever runs it. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    /// The file system.
    pub vfs: Arc<Vfs>,
    /// Who runs the verb.
    pub caller: Caller,
}

impl Store {
    /// # Errors
    /// When the master does not let us in.
    pub async fn open(connection: &Connection, verb: &str) -> Result<Self, Failure> {
        Self::with(&connection.config(verb)?).await
    }

    /// # Errors
    /// When the master does not let us in.
    pub async fn with(config: &ClientConfig) -> Result<Self, Failure> {
        let vfs = Vfs::connect(config, DIRTY_BYTES_DEFAULT).await?;
        let caller = Caller {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            pid: std::process::id(),
        };
        Ok(Self { vfs, caller })
    }

    /// Makes everything power-safe and ends the session.
    async fn close(self) -> Result<(), Failure> {
        self.vfs
            .shutdown()
            .await
            .map_err(|e| Failure::new(format!("the store did not confirm that all is safe: {e}")))
    }

    /// Ends the session after `result`, when that is good once everything is power-safe. Also after a
    /// failure: the session would count as away for a minute.
    ///
    /// # Errors
    /// That of `result`, or that not everything is known to be safe.
    pub async fn end<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        match result {
            Ok(value) => self.close().await.map(|()| value),
            Err(failure) => {
                let _ = timeout(GOODBYE, self.vfs.session().clone().close()).await;
                Err(failure)
            }
        }
    }

    /// The inode at `path`.
    ///
    /// # Errors
    /// A sentence with the path.
    pub async fn resolve(&self, path: &StorePath) -> Result<Attr, Failure> {
        self.vfs.resolve(self.caller, path.as_bytes()).await.map_err(|e| Failure::at(path, e))
    }

    /// The inode at `path` if there is one.
    ///
    /// # Errors
    /// As [`Store::resolve`], except that nothing being there is none.
    pub async fn find(&self, path: &StorePath) -> Result<Option<Attr>, Failure> {
        match self.vfs.resolve(self.caller, path.as_bytes()).await {
            Ok(attr) => Ok(Some(attr)),
            Err(FsError::NotFound) => Ok(None),
            Err(e) => Err(Failure::at(path, e)),
        }
    }

    /// The entries of the directory `dir` (whose path is `path`) after `position`, without `.` and
    /// `..`; 0 is the start, empty the end.
    ///
    /// # Errors
    /// A sentence with the path.
    pub async fn entries(
        &self,
        path: &StorePath,
        dir: Ino,
        position: u64,
    ) -> Result<Vec<DirItem>, Failure> {
        let at = |e| Failure::at(path, e);
        let fh = self.vfs.opendir(dir).await.map_err(at)?;
        let mut items = Vec::new();
        let mut next = position;
        let result = loop {
            match self.vfs.readdir(self.caller, fh, next, true).await {
                Ok(slice) => {
                    let Some(last) = slice.items().last() else { break Ok(()) };
                    next = last.position;
                    let real = |i: &&DirItem| !matches!(&i.name[..], b"." | b"..");
                    items.extend(slice.items().iter().filter(real).cloned());
                    if !items.is_empty() {
                        break Ok(());
                    }
                }
                Err(e) => break Err(at(e)),
            }
        };
        self.vfs.releasedir(fh).map_err(at)?;
        result.map(|()| items)
    }

    /// Makes the directory at `path` and those above it; one that exists is fine.
    ///
    /// # Errors
    /// A sentence with the path.
    pub async fn make_dirs(&self, path: &StorePath, mode: u32) -> Result<Ino, Failure> {
        if path.is_root() {
            return Ok(self.vfs.session().root());
        }
        let at = |e| Failure::at(path, e);
        let (parent, name) =
            self.vfs.resolve_parent(self.caller, path.as_bytes(), Some(mode)).await.map_err(at)?;
        match self.vfs.mkdir(self.caller, parent, &name, mode).await {
            Ok(attr) => Ok(attr.ino),
            Err(FsError::Exists) => {
                let attr = self.vfs.lookup(self.caller, parent, &name).await.map_err(at)?;
                match attr.kind() {
                    FileKind::Directory => Ok(attr.ino),
                    FileKind::Regular
                    | FileKind::Symlink
                    | FileKind::Fifo
                    | FileKind::Socket
                    | FileKind::CharDevice
                    | FileKind::BlockDevice => Err(at(FsError::NotDirectory)),
                }
            }
            Err(e) => Err(at(e)),
        }
    }
}

/// A path in the store, as its bytes; a leading `/` makes no difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StorePath(Vec<u8>);

impl StorePath {
    /// What was typed.
    pub fn new(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        let start = bytes.iter().position(|b| *b != b'/').unwrap_or(bytes.len());
        let end = bytes.iter().rposition(|b| *b != b'/').map_or(start, |p| p + 1);
        Self(bytes[start..end].to_vec())
    }

    /// The bytes, without slashes at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty() || self.0 == b"."
    }

    /// `self/name`
    pub fn join(&self, name: &[u8]) -> Self {
        if self.is_root() {
            return Self(name.to_vec());
        }
        Self([&self.0, &b"/"[..], name].concat())
    }

    /// The path without its last component; of the root the root.
    pub fn parent(&self) -> Self {
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Self(self.0[..end].to_vec())
    }

    /// The last component.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

/// The moment of a local file's time.
pub fn timestamp(seconds: i64, nanos: i64) -> Timestamp {
    Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0).min(999_999_999) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_ends_make_no_difference() {
        let path = |t: &str| StorePath::new(OsStr::new(t));
        assert_eq!(path("/a/b/"), path("a/b"));
        assert!(path("/").is_root() && path("").is_root() && path(".").is_root());
        assert_eq!(path("/").join(b"x"), path("x"));
        assert_eq!(path("a").join(b"x").to_string(), "/a/x");
        assert_eq!(path("a/b").name(), b"b");
        assert_eq!(path("a/b").parent(), path("a"));
        assert!(path("a").parent().is_root());
    }
}
