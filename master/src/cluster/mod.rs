//! The storage nodes as the master sees them, and the cluster map that everybody computes with.
//!
//! - [`membership`]: what is thought of each node; pure.
//! - [`publish`]: turns changes into new maps: a new epoch, stored, then published.
//! - [`node_session`]: the stream of reports of one node.
//! - [`settling`]: after a start, whether enough nodes are there to repair and to collect garbage.
//! - [`administration`]: what people decide: draining, maintenance, removal, copies, compression.
//! - [`suspicion`]: looking for oneself when a client or nobody can reach a node.
//!
//! The map is replaced as a whole; nobody ever sees one half-changed. Lock: the membership's, short,
//! never held across an await or together with another.

pub(crate) mod administration;
pub(crate) mod membership;
pub(crate) mod node_session;
pub(crate) mod publish;
pub(crate) mod settling;
pub(crate) mod suspicion;
mod weight;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_proto::ClusterMap;
use tokio::sync::{Notify, watch};

use self::{
    membership::{Known, LinkId, Membership, Patience},
    settling::Settling,
};
use crate::{nodes::probe::Prober, repair::Reachable};

/// How long after its start the master waits for known nodes to report before it lets clients in.
const GRACE: Duration = Duration::from_millis(1500);

/// The nodes and the map.
pub(crate) struct Cluster {
    membership: Mutex<Membership>,
    changed: Notify,
    map: watch::Sender<Arc<ClusterMap>>,
    complete: watch::Sender<bool>,
    /// Epoch of garbage collection that nodes are to stamp with. It is durable.
    pub(crate) gc_epoch: watch::Sender<u64>,
    prober: Prober,
    patience: Patience,
    settling: Settling,
    links: AtomicU64,
}

impl Cluster {
    /// The cluster as it was known before this start, under a map with a new `epoch`. Nodes stamp
    /// with `gc_epoch`. Repair and the
    /// collection of garbage wait at most for `grace` for all of it.
    pub(crate) fn new(
        patience: Patience,
        grace: Duration,
        (epoch, pg_bits): (u64, u32),
        known: Known,
        prober: Prober,
        gc_epoch: u64,
    ) -> Arc<Self> {
        let membership = Membership::new(patience, known, Instant::now());
        let settings = membership.settings();
        let map = ClusterMap {
            epoch,
            nodes: membership.members().map(|m| m.node.clone()).collect(),
            pg_bits,
            replicas: settings.replicas,
            min_replicas: settings.min_replicas,
            compression: settings.compression,
        };
        let settling = Settling::new(grace, &membership);
        let complete = !membership.awaits_any();
        Arc::new(Self {
            membership: Mutex::new(membership),
            changed: Notify::new(),
            map: watch::Sender::new(Arc::new(map)),
            complete: watch::Sender::new(complete),
            gc_epoch: watch::Sender::new(gc_epoch),
            prober,
            patience,
            settling,
            links: AtomicU64::new(0),
        })
    }

    /// The newest map.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map.borrow())
    }

    /// The newest map and every later one.
    pub(crate) fn maps(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    /// Looks at or changes the members; a change that belongs into the map gets published.
    pub(crate) fn with<R>(&self, action: impl FnOnce(&mut Membership, Instant) -> R) -> R {
        let mut membership = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = action(&mut membership, Instant::now());
        let changed = membership.has_changed();
        drop(membership);
        if changed {
            self.changed.notify_one();
        }
        answer
    }

    /// Waits until the nodes that were there before the restart have reported, at most for a grace
    /// period: a client that is let in before would write fewer copies than it could.
    pub(crate) async fn complete(&self) {
        // An error would mean that the sender is gone, which `self` holds.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// The nodes that can be read from now, whatever their states.
    pub(crate) fn reachable(&self) -> Vec<Reachable> {
        self.with(|members, now| {
            let patience = *members.patience();
            let reachable = members.members().filter(|m| m.is_reachable(now, &patience));
            reachable.map(|m| (m.node.clone(), m.reported())).collect()
        })
    }

    fn new_link(&self) -> LinkId {
        LinkId(self.links.fetch_add(1, Ordering::Relaxed))
    }
}
