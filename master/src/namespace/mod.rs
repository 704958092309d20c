//! The namespace: inodes, names, manifests, sessions; what operations do to them.
//!
//! [`Namespace`] belongs to one thread, the op thread. Operations are executed into a pending group
//! and see each other's effects; [`Namespace::commit`] hands the group to the engine, after which it
//! survives the end of the process, and a [`Syncer`] on another thread makes it survive power loss.
//! Replies may go out after the commit (or after the sync, where durability was asked for), never
//! before. A [`View`] is a consistent snapshot that other threads read at leisure.

mod accessed;
mod acls;
mod backups;
mod clone_range;
mod cluster;
mod commit;
mod create;
mod execute;
mod ids;
mod inodes;
mod locks;
mod lookup;
mod manifest;
mod open;
mod paths;
mod quota;
mod readdir;
mod reclaim;
mod remove;
mod rename;
mod repair;
mod segments;
mod sessions;
mod setattr;
mod stamps;
#[cfg(test)]
mod tests;
mod view;
mod xattr;

use std::{collections::BTreeMap, sync::Arc};

use cairn_proto::{FileKind, Ino, SessionId};
use thiserror::Error;

use crate::{
    clock::Clock,
    engine::{Engine, EngineError},
    failpoints,
    tables::{
        group::Group,
        keys,
        rows::{CountersRow, InodeRow, SCHEMA, SchemaRow},
        source,
    },
};

pub(crate) use backups::IDS_PER_ROW as BACKUP_IDS_PER_ROW;
pub use locks::LockFreed;
pub use paths::Announced;
pub use quota::{QuotaLimits, QuotaWalk};
pub use repair::Remedy;
pub use stamps::Stamps;
pub use view::{Finding, FsckProgress, View, Walk};

/// What a namespace needs to know besides its engine.
#[derive(Clone)]
pub struct Params {
    /// Bytes of a whole chunk, fixed at format.
    pub chunk_size: u32,
    /// Where timestamps come from.
    pub clock: Arc<dyn Clock>,
}

/// Why a namespace cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The engine says no.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Written by a newer version of this program.
    #[error(
        "the metadata has format {found}, this program knows formats up to {known}: use a newer cairn-master"
    )]
    Newer {
        /// Format on disk.
        found: u32,
        /// Newest format that this program knows.
        known: u32,
    },
    /// Made with another chunk size.
    #[error("the metadata was made for chunks of {found} bytes, not {wanted}")]
    ChunkSize {
        /// On disk.
        found: u32,
        /// Asked for.
        wanted: u32,
    },
}

/// Who sent an operation, and which of his it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The sender; 0 for operations that belong to no session (they hold nothing open).
    pub session: u64,
    /// Number of the operation in its session; 0: executed without remembering the reply.
    pub seq: u64,
    /// `ClientFrame.acked_below` of the frame.
    pub acked_below: u64,
}

impl Origin {
    /// An operation that belongs to no session.
    pub const NONE: Self = Self { session: 0, seq: 0, acked_below: 0 };
}

/// A session that the master has promised to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its number.
    pub id: SessionId,
    /// Host and mount point, for people.
    pub client_name: String,
    /// How many inodes it holds open.
    pub open_inodes: u64,
}

/// What exists. Changes in the same commit as what it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symbolic links, devices, sockets, fifos.
    pub other: u64,
    /// Sum of the lengths of regular files.
    pub logical_bytes: u64,
    /// Sum over all references of the stored length.
    pub referenced_bytes: u64,
    /// Inodes without a name that somebody still holds open.
    pub orphans: u64,
}

impl From<CountersRow> for Counters {
    fn from(row: CountersRow) -> Self {
        let CountersRow { files, directories, other, logical_bytes, referenced_bytes, orphans } =
            row;
        Self { files, directories, other, logical_bytes, referenced_bytes, orphans }
    }
}

impl From<Counters> for CountersRow {
    fn from(counters: Counters) -> Self {
        let Counters { files, directories, other, logical_bytes, referenced_bytes, orphans } =
            counters;
        Self { files, directories, other, logical_bytes, referenced_bytes, orphans }
    }
}

/// Makes commits power-safe. May be used on any thread.
#[derive(Clone)]
pub struct Syncer {
    engine: Arc<dyn Engine>,
}

impl Syncer {
    /// Everything committed before this call survives power loss once it returns. An error is final:
    /// the process must stop serving.
    pub fn sync(&self) -> Result<(), EngineError> {
        failpoints::hit(failpoints::SYNC_BEFORE);
        self.engine.sync()?;
        failpoints::hit(failpoints::SYNC_AFTER);
        Ok(())
    }
}

/// Commits between two steps of freeing, when the op thread is never idle.
const COMMITS_PER_RECLAIM: u32 = 8;

/// The file system's metadata and what may be done with it.
pub struct Namespace {
    group: Group,
    ids: ids::Ids,
    sessions: sessions::Sessions,
    locks: locks::Locks,
    clock: Arc<dyn Clock>,
    chunk_size: u32,
    counters: Counters,
    committed_counters: Counters,
    /// Degraded groups, each with the mark of when it was noted last.
    degraded: BTreeMap<u32, u64>,
    degraded_mark: u64,
    stamps: Stamps,
    capacity: (u64, u64),
    settled: bool,
    reclaim: reclaim::Progress,
    commits: u32,
    changes: u64,
    backups: u64,
}

impl Namespace {
    /// Opens the namespace in `engine`; makes the root directory when the engine is empty. Takes the
    /// next incarnation number, which fences every older master off.
    pub fn open(engine: Arc<dyn Engine>, params: Params) -> Result<Self, OpenError> {
        let Params { chunk_size, clock } = params;
        let mut group = Group::new(Arc::clone(&engine));
        let schema: Option<SchemaRow> = source::row(&mut group, &keys::schema())?;
        if let Some(found) = &schema {
            if found.version > SCHEMA {
                return Err(OpenError::Newer { found: found.version, known: SCHEMA });
            }
            if found.chunk_size != chunk_size {
                return Err(OpenError::ChunkSize { found: found.chunk_size, wanted: chunk_size });
            }
        }
        let mut namespace = Self {
            ids: ids::Ids::open(engine.as_ref())?,
            group,
            sessions: sessions::Sessions::default(),
            locks: locks::Locks::default(),
            clock,
            chunk_size,
            counters: Counters::default(),
            committed_counters: Counters::default(),
            degraded: BTreeMap::new(),
            degraded_mark: 0,
            stamps: Stamps::default(),
            capacity: (0, 0),
            settled: false,
            reclaim: reclaim::Progress::at_start(),
            commits: 0,
            changes: 0,
            backups: 0,
        };
        if schema.is_none() {
            namespace.make_root()?;
        }
        namespace.load()?;
        if namespace.sessions.is_empty() {
            namespace.settle();
        }
        Ok(namespace)
    }

    fn make_root(&mut self) -> Result<(), EngineError> {
        let now = self.now();
        let mut root = inodes::Inode {
            ino: Ino::ROOT.get(),
            row: InodeRow {
                mode: FileKind::Directory.mode_bits() | 0o755,
                nlink: 2,
                size: create::DIRECTORY_SIZE,
                atime: Some(now),
                btime: Some(now),
                parent: Ino::ROOT.get(),
                next_cookie: inodes::FIRST_COOKIE,
                ..InodeRow::default()
            },
        };
        self.touch_data(&mut root, now);
        self.count_new(&root);
        self.put_inode(&root);
        let schema = SchemaRow { version: SCHEMA, chunk_size: self.chunk_size };
        self.group.put_row(keys::schema(), &schema);
        self.commit()?;
        self.syncer().sync()
    }

    /// Reads what is kept in memory as well.
    fn load(&mut self) -> Result<(), EngineError> {
        let row: Option<CountersRow> = source::row(&mut self.group, &keys::counters())?;
        self.counters = row.unwrap_or_default().into();
        self.committed_counters = self.counters;
        self.stamps = Stamps::load(&mut self.group)?;
        self.load_degraded()?;
        self.locks.load(&mut self.group)?;
        self.sessions.load(&mut self.group)
    }

    /// Whether the pending group holds anything to commit.
    pub fn is_dirty(&self) -> bool {
        !self.group.is_empty()
    }

    /// Commits the pending group; afterwards it survives the end of the process. On an error the
    /// group is gone as if it had never been executed, and every reply in it must become an error:
    /// `NoSpace` may be followed by other operations, anything else means that the process must stop.
    pub fn commit(&mut self) -> Result<(), EngineError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let result = self.commit_group();
        if result.is_err() {
            self.group.forget();
            self.reclaim.look_again(self.settled);
            self.load()?;
        }
        result
    }

    fn commit_group(&mut self) -> Result<(), EngineError> {
        self.commits = self.commits.wrapping_add(1);
        if self.reclaim.is_pending() && self.commits.is_multiple_of(COMMITS_PER_RECLAIM) {
            self.reclaim_step()?;
        }
        if self.counters != self.committed_counters {
            self.group.put_row(keys::counters(), &CountersRow::from(self.counters));
        }
        let changed = self.group.changes_file_system();
        failpoints::hit(failpoints::COMMIT_BEFORE);
        self.group.commit(self.ids.incarnation())?;
        failpoints::hit(failpoints::COMMIT_AFTER);
        self.committed_counters = self.counters;
        self.changes += u64::from(changed);
        Ok(())
    }

    /// What makes commits power-safe.
    pub fn syncer(&self) -> Syncer {
        Syncer { engine: Arc::clone(self.group.engine()) }
    }

    /// Grows with every start of the master; never the same twice.
    pub fn incarnation(&self) -> u64 {
        self.ids.incarnation()
    }

    /// Locks that were kept for who waits for them since this was called last.
    pub fn take_freed_locks(&mut self) -> Vec<LockFreed> {
        self.locks.take_freed()
    }

    /// What exists, the pending group included.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A consistent snapshot of what is committed, for other threads.
    pub fn view(&self) -> Result<View, EngineError> {
        Ok(View::new(self.group.engine().snapshot()?, self.chunk_size))
    }
}
