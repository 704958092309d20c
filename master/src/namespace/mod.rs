//! The namespace: inodes, names, manifests, sessions; what operations do to them.
//!
//! [`Namespace`] belongs to one thread, the op thread. Operations are executed into a pending group
//! and see each other's effects; [`Namespace::commit`] hands the group to the engine, after which it
//! survives the end of the process, and a [`Syncer`] on another thread makes it survive power loss.
//! Replies may go out after the commit (or after the sync, where durability was asked for), never
//! before. A [`View`] is a consistent snapshot that other threads read at leisure.

use std::sync::Arc;

use cairn_proto::{Attr, ChunkRef, FsError, Ino, Node, NodeId, SessionId, pb};
use thiserror::Error;

use crate::{
    clock::Clock,
    engine::{Engine, EngineError},
};

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
    #[error("the metadata has format {found}, this program knows formats up to {known}: use a newer cairn-master")]
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

/// Makes commits power-safe. May be used on any thread.
#[derive(Clone)]
pub struct Syncer {
    engine: Arc<dyn Engine>,
}

impl Syncer {
    /// Everything committed before this call survives power loss once it returns. An error is final:
    /// the process must stop serving.
    pub fn sync(&self) -> Result<(), EngineError> {
        self.engine.sync()
    }
}

/// The file system's metadata and what may be done with it.
pub struct Namespace {
    engine: Arc<dyn Engine>,
}

impl Namespace {
    /// Opens the namespace in `engine`; makes the root directory when the engine is empty. Takes the
    /// next incarnation number, which fences every older master off.
    pub fn open(engine: Arc<dyn Engine>, _params: Params) -> Result<Self, OpenError> {
        Ok(Self { engine })
    }

    /// Executes one operation in the pending group. When it fails, what it wrote is rolled back and
    /// the rest of the group stays. `Sync` and `ReportNode` are answered `Done` and do nothing here.
    pub fn execute(&mut self, _origin: Origin, _op: &pb::Op) -> pb::Reply {
        pb::Reply::default()
    }

    /// Whether the pending group holds anything to commit.
    pub fn is_dirty(&self) -> bool {
        false
    }

    /// Commits the pending group; afterwards it survives the end of the process. On an error the
    /// group is gone as if it had never been executed, and every reply in it must become an error:
    /// `NoSpace` may be followed by other operations, anything else means that the process must stop.
    pub fn commit(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// What makes commits power-safe.
    pub fn syncer(&self) -> Syncer {
        Syncer { engine: Arc::clone(&self.engine) }
    }

    /// Grows with every start of the master; never the same twice.
    pub fn incarnation(&self) -> u64 {
        0
    }

    /// A map epoch greater than any before. Synced before it returns.
    pub fn next_map_epoch(&mut self) -> Result<u64, EngineError> {
        Ok(0)
    }

    /// Makes a session. Its number was never used before; it is in the pending group.
    pub fn open_session(&mut self, _client_name: &str) -> Result<SessionId, EngineError> {
        Ok(SessionId(0))
    }

    /// The client of session `id` is back and holds exactly `open_inodes` open. Operations below
    /// `next_seq` that arrive from now on are replays. False when there is no such session.
    pub fn resume_session(
        &mut self,
        _id: SessionId,
        _next_seq: u64,
        _open_inodes: &[u64],
    ) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Ends a session: releases what it holds open, drops its replies. In the pending group.
    pub fn expire_session(&mut self, _id: SessionId) -> Result<(), EngineError> {
        Ok(())
    }

    /// All sessions that were opened and have not expired, connected or not.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        Vec::new()
    }

    /// To be called when every session known at the start has resumed or expired (at once when there
    /// was none): from now on an inode that no session holds open is not open.
    pub fn settle(&mut self) {}

    /// Frees a bounded amount of what deletions and truncations left behind, in the pending group.
    /// True when there is more to do: commit and call again when idle.
    pub fn reclaim_step(&mut self) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Makes the file `filename` (path without leading `/`; missing directories are made) of chunks
    /// that the nodes hold, in one piece; an existing file of that name is replaced.
    pub fn announce(&mut self, _filename: &str, _refs: Vec<ChunkRef>) -> Result<(), FsError> {
        Err(FsError::NotImplemented)
    }

    /// Full paths (no leading `/`) of up to `page` regular files after `token`, and the token of the
    /// next page; empty when that was all.
    pub fn list_files(
        &mut self,
        _token: &str,
        _page: u32,
    ) -> Result<(Vec<String>, String), FsError> {
        Err(FsError::NotImplemented)
    }

    /// The inode at `path` (with or without leading `/`; empty is the root). Symbolic links are not
    /// followed.
    pub fn resolve(&mut self, _path: &str) -> Result<Attr, FsError> {
        Err(FsError::NotImplemented)
    }

    /// References of `ino` from `first_index` on, at most `max_refs` of them.
    pub fn manifest_page(
        &mut self,
        _ino: Ino,
        _first_index: u64,
        _max_refs: u32,
    ) -> Result<pb::ManifestPage, FsError> {
        Err(FsError::NotImplemented)
    }

    /// What exists, the pending group included.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// What `StatFs` shall answer: capacity and free bytes of the nodes, divided by the replicas.
    pub fn set_capacity(&mut self, _total_bytes: u64, _free_bytes: u64) {}

    /// The storage nodes that were ever stored, with the state they were stored with.
    pub fn nodes(&self) -> Result<Vec<Node>, EngineError> {
        Ok(Vec::new())
    }

    /// Stores or replaces a storage node, in the pending group.
    pub fn put_node(&mut self, _node: &Node) {}

    /// Forgets a storage node, in the pending group.
    pub fn remove_node(&mut self, _id: NodeId) {}

    /// Placement groups that were written to fewer nodes than wanted (commits add them).
    pub fn degraded_groups(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Takes a group off that list, in the pending group.
    pub fn clear_degraded(&mut self, _group: u32) {}

    /// A consistent snapshot of what is committed, for other threads.
    pub fn view(&self) -> Result<View, EngineError> {
        Ok(View {})
    }
}

/// A consistent snapshot of the namespace.
#[derive(Clone)]
pub struct View {}

impl View {
    /// Walks depth first from `path` (empty: the whole tree).
    pub fn walk(
        &self,
        _path: &str,
        _with_refs: bool,
    ) -> Result<impl Iterator<Item = Result<pb::WalkEntry, FsError>> + Send + use<>, FsError> {
        Ok(std::iter::empty())
    }

    /// Checks everything against everything. `report` gets progress and findings about every 10,000
    /// rows and once more at the end (`done`); it answers false to stop early.
    pub fn fsck(
        &self,
        _report: &mut dyn FnMut(pb::FsckProgress) -> bool,
    ) -> Result<(), EngineError> {
        Ok(())
    }
}
