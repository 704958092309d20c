//! Looking for oneself: a client reports a node, or a node has no stream that would speak for it. A
//! node that answers but has no disk left that works is no better than one that does not.

use std::sync::Arc;

use cairn_proto::{Node, NodeId};

use super::{Cluster, membership::Refusal};
use crate::nodes::probe::Health;

/// A client cannot reach the node `id`, or cannot write there. Returns when the master has made up its mind; if it agrees, a
/// new map is on its way.
pub(crate) async fn reported(cluster: &Cluster, id: NodeId) {
    let fresh_for = cluster.patience.suspect_after / 2;
    let found = cluster.with(|members, now| {
        let member = members.get(id)?;
        let fresh = now.saturating_duration_since(member.heard) < fresh_for;
        Some((member.node.clone(), fresh))
    });
    let Some((node, fresh)) = found else { return };
    if !node.state.takes_writes() {
        return;
    }
    if !fresh || cluster.prober.look(&node).await != Health::Well {
        cluster.with(|members, now| members.distrust(id, now));
    }
}

/// Probes the nodes that were registered by a call, and those that were not reachable last time.
pub(crate) fn probe_doubtful(cluster: &Arc<Cluster>) {
    let doubtful: Vec<Node> = cluster.with(|members, _| {
        members.members().filter(|m| m.is_doubtful()).map(|m| m.node.clone()).collect()
    });
    for node in doubtful {
        let cluster = Arc::clone(cluster);
        tokio::spawn(async move {
            let health = cluster.prober.look(&node).await;
            cluster.with(|members, now| members.probed(node.id, health, now));
        });
    }
}

/// Takes in a node that a call registers.
///
/// # Errors
/// When another process has its id, or the map is full.
pub(crate) async fn register(cluster: &Cluster, node: Node) -> Result<(), Refusal> {
    let health = cluster.prober.look(&node).await;
    cluster.with(|members, now| members.register(node, health, now))
}
