//! Repair: makes this node's copy of placement groups whole from other nodes, and lets go of groups that
//! belong elsewhere. The master says what and when; nothing is decided here.
//!
//! [`pull`] fetches, [`survey`] lists what others have, [`letting_go`] drops, [`rate`] bounds the bytes of
//! all pulls together, [`tally`] tells how far a pull is.

pub mod letting_go;
pub mod pull;
pub mod rate;
pub mod survey;
pub mod tally;

use std::sync::Arc;

use cairn_proto::{ClusterMap, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

use self::rate::Rate;
use crate::{
    peer::Peers,
    store::{Store, activity::Tally as Count},
};

/// Most calls to pull that are served at once.
const PULLS: usize = 8;
/// Room for chunks that are being fetched, in KiB: the largest chunk, at least.
const ROOM_KIB: u32 = 16 * 1024;

/// What repair has done since the node started.
#[derive(Debug, Default)]
pub struct RepairActivity {
    /// Fetched from other nodes and stored.
    pub pulled: Count,
    /// Dropped because the group's homes have them.
    pub dropped: Count,
}

/// See the module.
pub struct Repair {
    store: Arc<Store>,
    peers: Peers,
    node_id: NodeId,
    map: watch::Receiver<Option<Arc<ClusterMap>>>,
    rate: Rate,
    pulls: Arc<Semaphore>,
    /// In KiB.
    room: Semaphore,
    activity: RepairActivity,
}

impl Repair {
    /// For the node `node_id`, which learns of maps by `map`.
    pub fn new(
        store: Arc<Store>,
        peers: Peers,
        node_id: NodeId,
        map: watch::Receiver<Option<Arc<ClusterMap>>>,
    ) -> Self {
        Self {
            store,
            peers,
            node_id,
            map,
            rate: Rate::default(),
            pulls: Arc::new(Semaphore::new(PULLS)),
            room: Semaphore::new(ROOM_KIB as usize),
            activity: RepairActivity::default(),
        }
    }

    /// What was done so far.
    pub fn activity(&self) -> &RepairActivity {
        &self.activity
    }

    /// Room for `bytes` of chunks; waits while others have it.
    async fn room(&self, bytes: u64) -> SemaphorePermit<'_> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(ROOM_KIB);
        self.room.acquire_many(kib).await.expect("is never closed")
    }

    /// To be held while a pull goes on; `None` when too many do.
    pub fn begin_pull(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pulls).try_acquire_owned().ok()
    }
}
