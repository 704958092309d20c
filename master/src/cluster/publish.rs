//! Every change of the membership becomes a new map; time passing is a change too.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::{ClusterMap, NodeState};
use tokio::time::sleep;

use super::{Cluster, GRACE, membership::Change, suspicion};
use crate::{
    namespace::Namespace,
    op_thread::{CallError, OpQueue},
};

/// How often doubtful nodes are probed and the capacity is added up.
const SURVEY: Duration = Duration::from_millis(500);
/// Pause after a map could not be stored.
const PAUSE: Duration = Duration::from_secs(1);

/// Publishes changes until the op thread is gone.
pub(crate) async fn changes(cluster: Arc<Cluster>, ops: OpQueue) {
    let grace = sleep(GRACE);
    tokio::pin!(grace);
    let mut in_grace = true;
    loop {
        tokio::select! {
            () = cluster.changed.notified() => {}
            () = &mut grace, if in_grace => {
                in_grace = false;
                cluster.complete.send_replace(true);
            }
        }
        if let Some(change) = cluster.with(|members, _| members.take_changed()) {
            match publish(&cluster, &ops, change).await {
                Ok(()) => {}
                Err(CallError::Stopping) => return,
                Err(CallError::NoSpace) => {
                    sleep(PAUSE).await;
                    cluster.with(|members, _| members.mark_changed());
                    continue;
                }
            }
        }
        if !cluster.with(|members, _| members.awaits_any()) {
            cluster.complete.send_replace(true);
        }
    }
}

/// A new epoch, which is durable, then the nodes, then everybody is told.
async fn publish(cluster: &Cluster, ops: &OpQueue, change: Change) -> Result<(), CallError> {
    let Change { nodes, settings } = change;
    let epoch = ops.call(false, Namespace::next_map_epoch).await?.map_err(|error| {
        tracing::error!(%error, "no epoch for a new map");
        CallError::NoSpace
    })?;
    let old = cluster.map();
    let fresh: Vec<_> = nodes.iter().filter(|n| old.node(n.id) != Some(*n)).cloned().collect();
    for node in &fresh {
        let before = old.node(node.id).map_or("new", |n| n.state.word());
        let (name, address, state) = (&node.name, node.address(), node.state.word());
        tracing::info!(epoch, node = %node.id, name, address, before, state, "node");
    }
    let stored = ops.call(false, move |namespace| fresh.iter().for_each(|n| namespace.put_node(n)));
    match stored.await {
        Ok(()) => {}
        // Nodes report again after a restart; the map must not wait for room on the disk.
        Err(CallError::NoSpace) => tracing::warn!("the metadata disk is full: nodes not stored"),
        Err(CallError::Stopping) => return Err(CallError::Stopping),
    }
    // Whoever sees a node in the map finds its disks in `df`.
    let (total, free) = capacity(cluster);
    match ops.call(false, move |namespace| namespace.set_capacity(total, free)).await {
        Ok(()) | Err(CallError::NoSpace) => {}
        Err(CallError::Stopping) => return Err(CallError::Stopping),
    }
    let map = ClusterMap {
        epoch,
        nodes,
        pg_bits: old.pg_bits,
        replicas: settings.replicas,
        min_replicas: settings.min_replicas,
        compression: settings.compression,
    };
    cluster.map.send_replace(Arc::new(map));
    Ok(())
}

/// Lets time pass for the members, probes the doubtful, adds up the capacity.
pub(crate) async fn time(cluster: Arc<Cluster>, ops: OpQueue) {
    let suspect_after = cluster.patience.suspect_after;
    let period = (suspect_after / 10).clamp(Duration::from_millis(10), Duration::from_millis(200));
    let (mut last, mut surveyed) = (Instant::now(), Instant::now());
    let mut known = (0, 0);
    loop {
        sleep(period).await;
        let away = last.elapsed();
        last = Instant::now();
        cluster.with(|members, now| {
            if away > period + suspect_after / 2 {
                members.forgive(away, now);
            }
            members.tick(now);
        });
        cluster.settle();
        if surveyed.elapsed() < SURVEY {
            continue;
        }
        surveyed = Instant::now();
        suspicion::probe_doubtful(&cluster);
        let capacity = capacity(&cluster);
        if capacity != known {
            let (total, free) = capacity;
            let told = ops.call(false, move |namespace| namespace.set_capacity(total, free));
            if told.await == Err(CallError::Stopping) {
                return;
            }
            known = capacity;
        }
    }
}

/// Total and free bytes for the content of files: what the disks have, divided by the copies.
fn capacity(cluster: &Cluster) -> (u64, u64) {
    let replicas = u64::from(cluster.map().replicas);
    let (total, free) = cluster.with(|members, _| {
        let counted = members.members().filter(|m| match m.node.state {
            NodeState::Up | NodeState::Suspect | NodeState::Maintenance => true,
            // What is being emptied is no room for anything.
            NodeState::Down | NodeState::Out | NodeState::Draining => false,
        });
        let disks = counted.filter_map(|m| m.status.as_ref()).flat_map(|status| &status.disks);
        disks.filter(|d| !d.failed).fold((0u64, 0u64), |(total, free), d| {
            (total.saturating_add(d.capacity_bytes), free.saturating_add(d.free_bytes))
        })
    });
    (total / replicas, free / replicas)
}
