//! [`Session`]: operations on the namespace, executed exactly once, in the order in which they were
//! given, across lost connections and restarts of the master.

use std::sync::Arc;

use cairn_proto::{ClusterMap, FsError, Ino, pb};
use tokio::sync::watch;
use uuid::Uuid;

use super::connect::ConnectError;
use crate::config::ClientConfig;

/// On whose behalf an operation is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, for messages only.
    pub pid: u32,
}

/// The master's answer to an operation that did not fail.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Never `Error`: that is what `Err` is for.
    pub kind: pb::reply::Kind,
    /// How long the answer may be relied on.
    pub lease: pb::Lease,
}

/// A client's session with the master. Clones share it.
#[derive(Clone)]
pub struct Session {
    map: watch::Receiver<Arc<ClusterMap>>,
    generation: watch::Receiver<u64>,
}

impl Session {
    /// Greets the master, learns the file system's parameters and opens a session.
    ///
    /// # Errors
    /// A sentence that says why it cannot be had. Nothing is retried here.
    pub async fn connect(config: &ClientConfig) -> Result<Self, ConnectError> {
        Err(ConnectError::Address { address: config.master.clone() })
    }

    /// Executes `op` and waits for the answer, at most the configured deadline.
    ///
    /// Cancel-safe: an operation that has been sent is completed whether or not its caller waits for
    /// it; one that has not been sent when its caller goes away never is.
    ///
    /// Inodes held open are tracked here: a successful `Open` or `Create{open}` adds, a posted
    /// `Release` removes, and a resumed session tells the master what is in the set. If the caller of
    /// an `Open` has gone when the answer comes, the inode is released again (unless it was already
    /// open). So: post `Release` when the last handle is gone and no `Open` of that inode is under way.
    ///
    /// # Errors
    /// What the master answers; `TimedOut` at the deadline (a mutation that was sent may still happen
    /// later); `Stale` for a mutation that was under way when the session was lost.
    pub async fn call(&self, caller: Caller, op: pb::op::Kind) -> Result<Answered, FsError> {
        let _ = (caller, op);
        Err(FsError::Io)
    }

    /// Sends `op` without waiting for an answer, after all operations given before and before all
    /// given later. Meant for `Release`.
    pub fn post(&self, op: pb::op::Kind) {
        let _ = op;
    }

    /// The newest cluster map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.map.borrow().clone()
    }

    /// Follows the cluster map.
    pub fn watch_map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.clone()
    }

    /// The file system's chunk size in bytes.
    pub fn chunk_size(&self) -> u32 {
        0
    }

    /// The file system's UUID.
    pub fn fs_uuid(&self) -> Uuid {
        Uuid::nil()
    }

    /// The root directory.
    pub fn root(&self) -> Ino {
        Ino::ROOT
    }

    /// Grows whenever the session was lost and a new one had to be opened: nothing that is cached
    /// about attributes, names or manifests may be trusted any longer.
    pub fn session_generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Follows [`Session::session_generation`].
    pub fn watch_generation(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    /// Waits until every operation given before is power-safe on the master.
    ///
    /// # Errors
    /// `TimedOut` at the deadline.
    pub async fn sync(&self) -> Result<(), FsError> {
        Err(FsError::Io)
    }

    /// Ends the session for all clones: what was posted is sent, what is unanswered is waited for (a
    /// few seconds at most), the stream is closed. Operations given later fail with `Stale`.
    pub async fn close(self) {}
}
