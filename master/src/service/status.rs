//! Status: everything that people ask about a running master.

use std::{sync::Arc, time::Instant};

use cairn_daemon::usage::Usage;
use cairn_proto::pb;
use tonic::Status;

use super::Service;
use crate::session::registry::Session;

impl Service {
    /// The master, the nodes, the sessions, what is stored.
    pub(super) async fn status(self: &Arc<Self>) -> Result<pb::StatusResponse, Status> {
        let read = |namespace: &mut crate::namespace::Namespace| {
            (namespace.counters(), namespace.sessions(), namespace.degraded_groups())
        };
        let (counters, known, degraded_groups) = self.ops.call(false, read).await?;
        let now = Instant::now();
        let session = |session: Arc<Session>| pb::SessionStatus {
            session_id: session.id.0,
            client_name: session.client_name.clone(),
            connected: session.connection().is_some(),
            open_inodes: known
                .binary_search_by_key(&session.id, |k| k.id)
                .map_or(0, |found| known[found].open_inodes),
            idle_ms: milliseconds(session.silence(now)),
        };
        let mut sessions: Vec<_> = self.sessions.registry.all().into_iter().map(session).collect();
        sessions.sort_by_key(|s| s.session_id);
        Ok(pb::StatusResponse {
            fs_uuid: self.format.fs_uuid.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            map: Some(self.cluster.map().as_ref().into()),
            nodes: self.node_statuses(),
            sessions,
            files: counters.files,
            directories: counters.directories,
            other_inodes: counters.other,
            logical_bytes: counters.logical_bytes,
            referenced_bytes: counters.referenced_bytes,
            chunk_size: self.format.chunk_size,
            degraded_groups,
            orphans: counters.orphans,
            listen: self.address.to_string(),
            usage: Some(usage()),
            operations: self.activity.operations(),
            data_dir: self.data_dir.clone(),
            backup: Some(self.backups.status()),
            safe_mode: self.cluster.unsettled_because().unwrap_or_default(),
            repair: Some(self.repair.status()),
            gc: Some(self.collector.status()),
        })
    }

    fn node_statuses(&self) -> Vec<pb::NodeStatus> {
        self.cluster.with(|members, now| {
            let status = |member: &crate::cluster::membership::Member| pb::NodeStatus {
                node: Some((&member.node).into()),
                status: member.status.clone(),
                silent_ms: milliseconds(now.saturating_duration_since(member.heard)),
            };
            members.members().map(status).collect()
        })
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn usage() -> pb::ProcessUsage {
    let Usage { cpu_ms, resident_bytes } = Usage::now();
    pb::ProcessUsage { cpu_ms, resident_bytes }
}
