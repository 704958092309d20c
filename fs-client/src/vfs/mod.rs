//! [`Vfs`]: the file system without FUSE. The adapter and the command line's verbs stand on it.
//!
//! - Namespace verbs ([`lookup`], [`create`], [`remove`], [`rename`], [`setattr`], [`readdir`],
//!   [`xattr`], [`statfs`]) are one operation of the master each; nothing about names is cached here.
//! - File verbs ([`open`], [`io`], [`copy`], [`space`]) go to the file's shared state in [`crate::file`]: all
//!   handles of an inode see each other's writes at once, other clients see them after close.
//! - [`locks`]: locks of files, as the master grants them.
//! - [`inodes`]: what is remembered about an inode between two operations; [`handles`]: open files
//!   and directories by number; [`open_dir`]: a listing with a stable position;
//!   [`listings`]: which of them a change of this mount makes old.
//! - [`atime`]: reads that count, told to the master many at once.
//! - [`restore`]: what an earlier daemon of this mount had open, opened again.
//! - [`answers`]: the master's replies, checked, as domain types.
//!
//! Everything is owned and `Send`; every method may be dropped half-way: what it asked of the master
//! may still happen, and what it holds is given back.

pub mod answers;
pub mod atime;
pub mod copy;
pub mod create;
pub mod handles;
pub mod inodes;
pub mod io;
mod listings;
pub mod locks;
pub mod lookup;
pub mod open;
pub mod open_dir;
pub mod readdir;
pub mod remove;
pub mod rename;
pub mod restore;
pub mod setattr;
pub mod space;
pub mod statfs;
pub mod xattr;

use std::{fmt, sync::Arc};

use cairn_proto::{FsError, pb};

pub use self::{
    atime::AtimePolicy,
    create::{Created, NewMode},
    handles::Fh,
    io::WriteHow,
    locks::{LockOwner, LockRequest, LockSpace, Locked},
    open::{OpenMode, Opened},
    open_dir::{DirItem, DirSlice},
    setattr::{AttrChange, TimeChange},
    space::{SeekTo, SpaceChange},
    statfs::Usage,
    xattr::is_acl,
};
pub use crate::rpc::Caller;
use crate::{
    chunks::{CacheRefused, Chunks},
    config::ClientConfig,
    file::{FileContext, Files},
    rpc::{ConnectError, Session},
};

/// The file system of one session with the master.
pub struct Vfs {
    session: Session,
    files: Files,
    handles: handles::HandleTable,
    inodes: inodes::InodeTable,
    atimes: atime::Atimes,
    locks: Arc<locks::LockTable>,
    listings: listings::Listings,
}

/// Why a file system cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no session with the master.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The directory that was given for the disk cache is not for this mount.
    #[error(transparent)]
    Cache(#[from] CacheRefused),
}

/// The default bound of written bytes that are not committed yet.
pub const DIRTY_BYTES_DEFAULT: usize = 128 << 20;

impl Vfs {
    /// Opens a session with the master that `config` names. `dirty_bytes` bounds what may be written
    /// and not yet be committed. Must be called within a tokio runtime, which must outlive the `Vfs`.
    ///
    /// # Errors
    /// A sentence that says why there is no session, or what is wrong with the disk cache that `config`
    /// names. A mount that goes on after another daemon does so without its cache.
    pub async fn connect(
        config: &ClientConfig,
        dirty_bytes: usize,
    ) -> Result<Arc<Self>, StartError> {
        let session = Session::connect(config).await?;
        let follows = config.record.as_ref().is_some_and(|r| r.first_reply().is_some());
        let chunks = match Chunks::open(session.clone(), config).await {
            Ok(chunks) => chunks,
            Err(refused) if follows => {
                tracing::warn!("{refused}; going on without a disk cache");
                Chunks::new(session.clone(), config)
            }
            Err(refused) => {
                session.close().await;
                return Err(refused.into());
            }
        };
        let context = FileContext::new(session.clone(), chunks, dirty_bytes, config);
        Ok(Arc::new(Self {
            session,
            files: Files::new(context),
            handles: handles::HandleTable::new(config.record.clone()),
            inodes: inodes::InodeTable::default(),
            atimes: atime::Atimes::default(),
            locks: Arc::default(),
            listings: listings::Listings::default(),
        }))
    }

    /// The session with the master.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Access to chunks, for verbs that need no file.
    pub fn chunks(&self) -> &Chunks {
        self.files.context().chunks()
    }

    /// Bytes of memory that hold written bytes which are not committed yet, and at most.
    pub fn dirty_bytes(&self) -> (usize, usize) {
        self.files.context().dirty_bytes()
    }

    /// The kernel has dropped what it had cached of a file when `locked` was true.
    pub fn cache_dropped(&self, locked: &Locked) {
        self.inodes.forget_told(locked.attr.ino);
        if let Some(file) = self.files.get(locked.attr.ino).filter(|_| !locked.pages_current) {
            file.pages_dropped(locked.attr.data_version);
        }
    }

    /// What is remembered about inodes.
    pub fn inodes(&self) -> &inodes::InodeTable {
        &self.inodes
    }

    /// Bytes of a whole chunk.
    pub fn chunk_size(&self) -> u32 {
        self.session.chunk_size()
    }

    /// Writes back every file and waits until all that this session did is power-safe.
    ///
    /// # Errors
    /// The first that a file or the master reports; the others are written back all the same.
    pub async fn sync_all(&self) -> Result<(), FsError> {
        let files = self.files.flush_all().await;
        self.session.sync().await?;
        files
    }

    /// Writes back every file and ends the session. Operations given later fail.
    ///
    /// # Errors
    /// As [`Vfs::sync_all`].
    pub async fn shutdown(&self) -> Result<(), FsError> {
        self.send_atimes().await;
        let result = self.sync_all().await;
        self.session.clone().close().await;
        self.chunks().close_disk_cache().await;
        result
    }

    async fn ask(&self, caller: Caller, op: pb::op::Kind) -> Result<pb::reply::Kind, FsError> {
        Ok(self.session.call(caller, op).await?.kind)
    }
}

impl fmt::Debug for Vfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vfs({})", self.session.fs_uuid())
    }
}
