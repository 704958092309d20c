//! What a node tells of itself, to the master and to people.

use std::{path::Path, time::Instant};

use cairn_daemon::usage::Usage;
use cairn_proto::{NodeId, pb};

use crate::store::Store;

/// Who the node is, fixed while it runs.
#[derive(Debug)]
pub struct Identity {
    /// From its FORMAT files.
    pub node_id: NodeId,
    /// What people call it.
    pub name: String,
    /// File system that its chunks belong to.
    pub fs: uuid::Uuid,
    /// When it started.
    pub started: Instant,
}

/// The node's status now. Blocks briefly: it asks every disk for its free room.
pub fn node_status(identity: &Identity, store: &Store) -> pb::NodeStatusResponse {
    let disks = store.status().into_iter().map(|v| pb::DiskStatus {
        path: Path::new(&v.name).display().to_string(),
        capacity_bytes: v.space.capacity,
        free_bytes: v.space.free,
        chunk_bytes: v.totals.bytes,
        chunks: v.totals.chunks,
        failed: v.failed,
        quarantined_bytes: v.totals.quarantined_bytes,
    });
    pb::NodeStatusResponse {
        node_id: identity.node_id.to_string(),
        name: identity.name.clone(),
        pid: std::process::id(),
        uptime_seconds: identity.started.elapsed().as_secs(),
        disks: disks.collect(),
        gc_epoch: store.epoch(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        usage: Some(usage()),
        activity: Some(store.activity().into()),
        garbage: Some(store.activity().garbage()),
        damaged_chunks: store.damaged(),
        scrub: Some(store.scrub_status()),
    }
}

fn usage() -> pb::ProcessUsage {
    let Usage { cpu_ms, resident_bytes } = Usage::now();
    pb::ProcessUsage { cpu_ms, resident_bytes }
}
