//! What the master says about the cluster, as a report: also the ground of `analyze`, `df` and `monitor`.

use cairn_proto::{Compression, NodeState, pb};
use schemars::JsonSchema;
use serde::Serialize;

use super::repair::RepairReport;
pub use super::{backup::BackupReport, garbage::GarbageReport};
use crate::cli::{output::JSON_VERSION, units};

/// The cluster as the master knows it. `cairn status --json`
#[derive(Serialize, JsonSchema)]
pub struct StatusReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    pub version: u32,
    /// UUID of the file system.
    pub fs: String,
    /// Every node is up, no disk has failed, every group has all its copies where they belong, and the
    /// master is not in safe mode.
    pub healthy: bool,
    /// The master's process.
    pub master: MasterReport,
    /// Storage nodes, also those that are away.
    pub nodes: Vec<NodeReport>,
    /// Clients with an open session: mounts, and verbs that are at work.
    pub sessions: Vec<SessionReport>,
    /// Regular files; a file with several names counts once.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links, pipes, sockets, device nodes.
    pub others: u64,
    /// Files without a name that somebody holds open.
    pub orphans: u64,
    /// Sum of the lengths of all files, in bytes.
    pub logical_bytes: u64,
    /// What all references together would take, each stored once for itself, in bytes.
    pub referenced_bytes: u64,
    /// Bytes of distinct chunks, one copy each: the fullest node's, or all copies divided by `replicas`,
    /// whichever is more. `cairn analyze` counts it exactly.
    pub unique_bytes: u64,
    /// Bytes of all copies on all nodes.
    pub stored_bytes: u64,
    /// `referenced_bytes / unique_bytes`; 0 for an empty store.
    pub dedup_ratio: f64,
    /// `stored_bytes / unique_bytes`; 0 for an empty store.
    pub replication_ratio: f64,
    /// What clients do with new chunks: `off`, `lz4` or `zstd:LEVEL`.
    pub compression: String,
    /// `logical_bytes / referenced_bytes`: how much longer the files are than what is stored for them, every
    /// reference counted for itself. Holes, which take nothing, count as well as compression; 0 for an
    /// empty store. `cairn analyze` counts the content of chunks alone.
    pub compression_ratio: f64,
    /// Copies that every chunk shall have.
    pub replicas: u32,
    /// Copies without which a write fails.
    pub min_replicas: u32,
    /// Most bytes in a chunk.
    pub chunk_size: u32,
    /// Epoch of the cluster map: grows with every change of a node's state.
    pub map_epoch: u64,
    /// Placement groups.
    pub groups: u32,
    /// Groups that were written with fewer copies than `replicas`.
    pub degraded_groups: Vec<u32>,
    /// Why the master neither repairs nor collects garbage since its start; empty: it does.
    pub safe_mode: String,
    /// How far the copies are where they belong.
    pub repair: RepairReport,
    /// How often the master has done each kind of operation.
    pub operations: Vec<OperationReport>,
    /// Backups of the master's metadata into the nodes.
    pub backup: BackupReport,
    /// What nothing refers to any more, and its collection.
    pub garbage: GarbageReport,
}

/// The master's process.
#[derive(Serialize, JsonSchema)]
pub struct MasterReport {
    /// Where it listens, HOST:PORT.
    pub address: String,
    /// Release.
    pub version: String,
    /// Process id on its machine.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Processor time since it started, user and system, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes of memory in use (resident).
    pub resident_bytes: u64,
    /// Where its data is.
    pub data_dir: String,
}

/// One storage node, as it last reported.
#[derive(Serialize, JsonSchema)]
pub struct NodeReport {
    /// What people call it.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// HOST:PORT.
    pub address: String,
    /// Failure domain.
    pub zone: String,
    /// `up`, `suspect`, `down`, `out`, `draining` or `maintenance`.
    pub state: &'static str,
    /// Milliseconds since its last report.
    pub silent_ms: u64,
    /// Process id on its machine.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Release.
    pub version: String,
    /// Processor time since it started, user and system, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes of memory in use (resident).
    pub resident_bytes: u64,
    /// Chunks on all its disks.
    pub chunks: u64,
    /// Bytes of its chunks.
    pub chunk_bytes: u64,
    /// Bytes of its working disks.
    pub capacity_bytes: u64,
    /// Bytes that new chunks can take on its working disks.
    pub free_bytes: u64,
    /// Its data directories.
    pub disks: Vec<DiskReport>,
    /// What it has done since it started.
    pub activity: ActivityReport,
    /// How far it is with reading everything again.
    pub scrub: ScrubReport,
    /// Copies there that are known to be damaged and not healed yet.
    pub damaged_chunks: u64,
}

/// How far a node is with reading everything again: numbers of the pass that runs, or of the last.
#[derive(Clone, Copy, Default, Serialize, JsonSchema)]
pub struct ScrubReport {
    /// Whether it reads now.
    pub running: bool,
    /// Chunks read.
    pub chunks_checked: u64,
    /// Bytes of `chunks_checked`.
    pub bytes_checked: u64,
    /// Chunks that there were when it began.
    pub chunks_total: u64,
    /// Chunks whose bytes were wrong.
    pub damaged_found: u64,
    /// Passes that were finished.
    pub passes: u64,
    /// When the pass began, in seconds since 1970; 0: never.
    pub started_unix: u64,
    /// When the last finished one was, in seconds since 1970; 0: none was.
    pub finished_unix: u64,
}

/// One data directory of a node.
#[derive(Clone, Serialize, JsonSchema)]
pub struct DiskReport {
    /// Directory on the node's machine.
    pub path: String,
    /// Chunks in it.
    pub chunks: u64,
    /// Bytes of the chunks in it.
    pub chunk_bytes: u64,
    /// Bytes of the file system that it lies on.
    pub capacity_bytes: u64,
    /// Bytes that new chunks can take.
    pub free_bytes: u64,
    /// The node does not use it any more because it returned errors.
    pub failed: bool,
}

/// What a node has done since it started. Numbers only grow.
#[derive(Clone, Copy, Serialize, JsonSchema)]
pub struct ActivityReport {
    /// Chunks received and stored.
    pub chunks_put: u64,
    /// Bytes of `chunks_put`.
    pub bytes_put: u64,
    /// Chunks received although they were there.
    pub chunks_known: u64,
    /// Bytes of `chunks_known`.
    pub bytes_known: u64,
    /// Chunks read and sent.
    pub chunks_got: u64,
    /// Bytes of `chunks_got`.
    pub bytes_got: u64,
    /// Puts and gets that were answered with an error.
    pub failures: u64,
}

/// How often the master has done operations of one kind since it started.
#[derive(Serialize, JsonSchema)]
pub struct OperationReport {
    /// For example `create`.
    pub kind: String,
    /// Times, those that failed included.
    pub done: u64,
    /// Times that the answer was an error.
    pub failed: u64,
}

/// One client.
#[derive(Clone, Serialize, JsonSchema)]
pub struct SessionReport {
    /// Its number.
    pub id: u64,
    /// What it calls itself: machine and mount point, or the verb.
    pub client: String,
    /// Whether its connection stands; a client that is away may come back for a while.
    pub connected: bool,
    /// Files that it holds open.
    pub open_inodes: u64,
    /// Milliseconds since it was heard.
    pub idle_ms: u64,
}

impl From<pb::StatusResponse> for StatusReport {
    fn from(status: pb::StatusResponse) -> Self {
        let map = status.map.unwrap_or_default();
        let mut nodes: Vec<_> = status.nodes.into_iter().map(NodeReport::from).collect();
        nodes.sort_by(|a, b| name_order(&a.name).cmp(&name_order(&b.name)));
        let stored_bytes = nodes.iter().map(|n| n.chunk_bytes).sum::<u64>();
        let largest = nodes.iter().map(|n| n.chunk_bytes).max().unwrap_or(0);
        let unique_bytes = largest.max(stored_bytes / u64::from(map.replicas.max(1)));
        let compression = map.compression.as_ref().map_or(Compression::Off, Compression::from);
        let usage = status.usage.unwrap_or_default();
        let names = |id: &str| {
            let node = nodes.iter().find(|node| node.id == id);
            node.map_or_else(|| id.to_owned(), |node| node.name.clone())
        };
        let repair = RepairReport::new(status.repair.unwrap_or_default(), names);
        Self {
            version: JSON_VERSION,
            fs: status.fs_uuid,
            healthy: status.degraded_groups.is_empty()
                && repair.is_done()
                && status.safe_mode.is_empty()
                && !nodes.is_empty()
                && nodes.iter().all(NodeReport::is_well),
            master: MasterReport {
                address: status.listen,
                version: status.version,
                pid: status.pid,
                uptime_seconds: status.uptime_seconds,
                cpu_ms: usage.cpu_ms,
                resident_bytes: usage.resident_bytes,
                data_dir: status.data_dir,
            },
            sessions: status.sessions.into_iter().map(SessionReport::from).collect(),
            files: status.files,
            directories: status.directories,
            others: status.other_inodes,
            orphans: status.orphans,
            logical_bytes: status.logical_bytes,
            referenced_bytes: status.referenced_bytes,
            unique_bytes,
            stored_bytes,
            dedup_ratio: units::ratio(status.referenced_bytes, unique_bytes),
            replication_ratio: units::ratio(stored_bytes, unique_bytes),
            compression: compression.to_string(),
            compression_ratio: units::ratio(status.logical_bytes, status.referenced_bytes),
            replicas: map.replicas,
            min_replicas: map.min_replicas,
            chunk_size: status.chunk_size,
            map_epoch: map.epoch,
            groups: 1 << map.pg_bits.min(16),
            degraded_groups: status.degraded_groups,
            safe_mode: status.safe_mode,
            repair,
            operations: status.operations.into_iter().map(OperationReport::from).collect(),
            backup: BackupReport::from(status.backup.unwrap_or_default()),
            garbage: GarbageReport::from(status.gc.unwrap_or_default()),
            nodes,
        }
    }
}

impl From<pb::NodeStatus> for NodeReport {
    fn from(node: pb::NodeStatus) -> Self {
        let entry = node.node.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let mut report = Self {
            state: NodeState::from(entry.state()).word(),
            address: address(&entry.host, entry.port),
            name: entry.name,
            id: entry.node_id,
            zone: entry.zone,
            silent_ms: node.silent_ms,
            pid: 0,
            uptime_seconds: 0,
            version: String::new(),
            cpu_ms: 0,
            resident_bytes: 0,
            chunks: 0,
            chunk_bytes: 0,
            capacity_bytes: 0,
            free_bytes: 0,
            disks: Vec::new(),
            activity: ActivityReport::from(pb::NodeActivity::default()),
            scrub: ScrubReport::default(),
            damaged_chunks: 0,
        };
        report.take(status);
        report
    }
}

/// By name, and names that end in numbers by these: node2 before node10.
pub fn name_order(name: &str) -> (&str, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or(0))
}

fn address(host: &str, port: u32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl NodeReport {
    fn is_well(&self) -> bool {
        self.state == "up" && self.damaged_chunks == 0 && self.disks.iter().all(|d| !d.failed)
    }

    /// Takes over what the node says about itself.
    pub fn take(&mut self, status: pb::NodeStatusResponse) {
        let disks: Vec<_> = status.disks.into_iter().map(DiskReport::from).collect();
        let working = || disks.iter().filter(|d| !d.failed);
        let usage = status.usage.unwrap_or_default();
        self.pid = status.pid;
        self.uptime_seconds = status.uptime_seconds;
        self.version = status.version;
        self.cpu_ms = usage.cpu_ms;
        self.resident_bytes = usage.resident_bytes;
        self.chunks = disks.iter().map(|d| d.chunks).sum();
        self.chunk_bytes = disks.iter().map(|d| d.chunk_bytes).sum();
        self.capacity_bytes = working().map(|d| d.capacity_bytes).sum();
        self.free_bytes = working().map(|d| d.free_bytes).sum();
        self.activity = status.activity.unwrap_or_default().into();
        self.scrub = status.scrub.unwrap_or_default().into();
        self.damaged_chunks = status.damaged_chunks;
        self.disks = disks;
    }
}

impl From<pb::DiskStatus> for DiskReport {
    fn from(d: pb::DiskStatus) -> Self {
        Self {
            path: d.path,
            chunks: d.chunks,
            chunk_bytes: d.chunk_bytes,
            capacity_bytes: d.capacity_bytes,
            free_bytes: d.free_bytes,
            failed: d.failed,
        }
    }
}

impl From<pb::NodeActivity> for ActivityReport {
    fn from(a: pb::NodeActivity) -> Self {
        Self {
            chunks_put: a.chunks_put,
            bytes_put: a.bytes_put,
            chunks_known: a.chunks_known,
            bytes_known: a.bytes_known,
            chunks_got: a.chunks_got,
            bytes_got: a.bytes_got,
            failures: a.failures,
        }
    }
}

impl From<pb::ScrubStatus> for ScrubReport {
    fn from(s: pb::ScrubStatus) -> Self {
        Self {
            running: s.running,
            chunks_checked: s.chunks_checked,
            bytes_checked: s.bytes_checked,
            chunks_total: s.chunks_total,
            damaged_found: s.damaged_found,
            passes: s.passes,
            started_unix: s.started_unix,
            finished_unix: s.finished_unix,
        }
    }
}

impl From<pb::OperationCount> for OperationReport {
    fn from(o: pb::OperationCount) -> Self {
        Self { kind: o.kind, done: o.done, failed: o.failed }
    }
}

impl From<pb::SessionStatus> for SessionReport {
    fn from(s: pb::SessionStatus) -> Self {
        Self {
            id: s.session_id,
            client: s.client_name,
            connected: s.connected,
            open_inodes: s.open_inodes,
            idle_ms: s.idle_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_in_the_order_that_people_count() {
        let mut names = ["node10", "node2", "b", "node1", "a7"];
        names.sort_by_key(|name| name_order(name));
        assert_eq!(names, ["a7", "b", "node1", "node2", "node10"]);
    }
}
