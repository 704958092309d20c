//! Looks after the copies: finds groups that are not whole, has nodes pull what they lack, and lets go of
//! copies where they do not belong. The master decides, nodes copy among themselves: no chunk passes here.
//!
//! - [`digests`]: what nodes say they hold. [`ledger`]: what of a difference is damage. [`assess`]: what there
//!   is to do. [`plan`]: what begins now. All of these are judgement without tasks.
//! - [`caretaker`]: the task that asks, judges and begins. [`pull`], [`handover`]: one copying, one dropping.
//! - [`degraded`]: groups that were written to too few nodes, and who may have had their only copy.
//! - [`only_copies`]: whether a node can be removed. [`progress`]: what is shown. [`clock`]: what came first.
//!
//! Invariants: nothing is pulled or dropped before the cluster is settled; a copy is dropped only when every
//! home can be reached and has said, after the last reason for doubt, that it has what is dropped, and the
//! node that drops asks each of them again, chunk by chunk; every wait has a deadline. Locks: the status', the
//! progress', short, never two at once, never across an await.

mod assess;
mod caretaker;
mod clock;
mod degraded;
mod digests;
mod handover;
mod ledger;
pub(crate) mod only_copies;
mod plan;
mod progress;
mod pull;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use cairn_proto::{NodeId, pb};

pub(crate) use self::caretaker::{Reachable, Reported, run};
use self::progress::Progress;
use crate::{
    activity::Activity, cluster::Cluster, nodes::chunk_client::ChunkClient, op_thread::OpQueue,
};

/// How much repair may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes a second into each node; 0: no limit.
    pub(crate) bandwidth: u64,
    /// Pulls at once.
    pub(crate) concurrency: usize,
}

/// Repair as others see it.
pub(crate) struct Repair {
    cluster: Arc<Cluster>,
    chunks: ChunkClient,
    ops: OpQueue,
    activity: Arc<Activity>,
    limits: Limits,
    progress: Progress,
    status: Mutex<Known>,
}

/// What was found last.
#[derive(Clone, Debug, Default)]
struct Known {
    status: pb::RepairStatus,
    /// Under which map.
    map_epoch: u64,
    /// The report streams of the nodes that could be reached.
    links: HashMap<NodeId, Option<u64>>,
    /// Degraded groups that nodes may have the only copy of although they cannot be reached.
    witnesses: degraded::Witnesses,
}

impl Repair {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        chunks: ChunkClient,
        ops: OpQueue,
        activity: Arc<Activity>,
        limits: Limits,
    ) -> Arc<Self> {
        let (progress, status) = (Progress::default(), Mutex::default());
        Arc::new(Self { cluster, chunks, ops, activity, limits, progress, status })
    }

    /// How far the copies are where they belong.
    pub(crate) fn status(&self) -> pb::RepairStatus {
        let Known { mut status, map_epoch, links, .. } = self.known().clone();
        // What was found under another map, or before a node came back, says nothing about now.
        let reachable = self.cluster.reachable();
        status.known &= map_epoch == self.cluster.map().epoch
            && reachable.iter().all(|(node, said)| links.get(&node.id) == Some(&said.link));
        self.progress.fill(&mut status);
        status
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
