//! What `cairn analyze` found.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::{
    connection::Connection,
    output::JSON_VERSION,
    spool::Spool,
    status::report::{DiskReport, SessionReport, StatusReport},
};

/// Everything about a store. `cairn analyze --json`
#[derive(Serialize, JsonSchema)]
pub struct AnalyzeReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    pub version: u32,
    /// UUID of the file system.
    pub fs: String,
    /// The processes: the master first, then the storage nodes.
    pub processes: Vec<Process>,
    /// Clients with an open session.
    pub clients: Vec<SessionReport>,
    /// What each node holds, as it says itself (as it last said, when it is away).
    pub storage: Vec<NodeStorage>,
    /// All chunks, counted one by one.
    pub chunks: Chunks,
    /// All files.
    pub files: Files,
    /// How the parts talk.
    pub network: Network,
    /// The first chunks in the order of their ids; all with `--all`.
    #[schemars(with = "Vec<ChunkRow>")]
    pub distribution: Spool<ChunkRow>,
    /// The first files, depth first; all with `--all`.
    #[schemars(with = "Vec<FileRow>")]
    pub manifest: Spool<FileRow>,
}

/// One process.
#[derive(Serialize, JsonSchema)]
pub struct Process {
    /// `master`, or what the node is called.
    pub name: String,
    /// `master` or `storage node`.
    pub role: &'static str,
    /// `running` for the master; a node's state: `up`, `suspect`, `down`, `out`, `draining`, `maintenance`.
    pub state: &'static str,
    /// Why it does not answer; absent when it does.
    pub error: Option<String>,
    /// Process id on its machine.
    pub pid: u32,
    /// HOST:PORT.
    pub address: String,
    /// TCP port.
    pub port: Option<u16>,
    /// Processor time since it started, user and system, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes of memory in use (resident).
    pub resident_bytes: u64,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Milliseconds since a node's last report to the master; 0 for the master.
    pub silent_ms: u64,
    /// Release.
    pub release: String,
}

/// What a node holds.
#[derive(Serialize, JsonSchema)]
pub struct NodeStorage {
    /// The node.
    pub node: String,
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
}

/// All chunks.
#[derive(Default, Serialize, JsonSchema)]
pub struct Chunks {
    /// Whether every node was counted; if not, copies on the others are missing from all numbers here.
    pub complete: bool,
    /// Nodes that could not be counted, and why.
    pub not_counted: BTreeMap<String, String>,
    /// Copies on all nodes.
    pub total: u64,
    /// Bytes of all copies.
    pub total_bytes: u64,
    /// Distinct chunks that some node holds.
    pub unique: u64,
    /// Bytes of distinct chunks, each once.
    pub unique_bytes: u64,
    /// Copies divided by distinct chunks; 0 for an empty store.
    pub replication_factor: f64,
    /// Copies that every chunk shall have.
    pub replicas_wanted: u32,
    /// How many chunks have how many copies. `0` are chunks that a file needs and no counted node has.
    pub copies: BTreeMap<u32, u64>,
    /// Bytes of all references, each stored once for itself, divided by `unique_bytes`; 0 for an empty
    /// store.
    pub dedup_ratio: f64,
    /// Bytes of all references, each stored once for itself.
    pub referenced_bytes: u64,
    /// References of all files to chunks; a file with several names counts once.
    pub references: u64,
    /// Bytes of content in all references, holes excluded.
    pub content_bytes: u64,
    /// `content_bytes / referenced_bytes`: what compression gains; 0 for an empty store.
    pub compression_ratio: f64,
    /// References to chunks of each codec: `plain`, `lz4`, `zstd`.
    pub codecs: BTreeMap<&'static str, u64>,
    /// Distinct chunks that nothing refers to: left over from what was deleted or overwritten, or written
    /// while this was counted.
    pub unreferenced: u64,
    /// Bytes of distinct chunks that nothing refers to, each once.
    pub unreferenced_bytes: u64,
}

/// All files.
#[derive(Default, Serialize, JsonSchema)]
pub struct Files {
    /// Regular files; a file with several names counts once.
    pub files: u64,
    /// Names of regular files.
    pub names: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links, pipes, sockets, device nodes.
    pub others: u64,
    /// Sum of the lengths of all files, in bytes.
    pub logical_bytes: u64,
}

/// How the parts talk.
#[derive(Serialize, JsonSchema)]
pub struct Network {
    /// What is spoken.
    pub protocol: String,
    /// Version of the protocol.
    pub protocol_version: u32,
    /// Where this program reached the master, HOST:PORT.
    pub master: String,
    /// Where each node is reached, HOST:PORT.
    pub nodes: BTreeMap<String, String>,
    /// Most bytes in a chunk.
    pub chunk_size: u32,
    /// What names a chunk.
    pub hash: &'static str,
}

/// One chunk.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct ChunkRow {
    /// SHA-256 of its bytes, 64 hex digits.
    pub id: String,
    /// Bytes.
    pub bytes: u32,
    /// The nodes that hold it.
    pub replicas: Vec<String>,
    /// References of files to it.
    pub references: u64,
}

/// One name of a file.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct FileRow {
    /// Path in the store; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Chunks that it refers to, holes excluded.
    pub chunks: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl AnalyzeReport {
    /// Everything but what is counted; `away` are the nodes that do not answer, and why.
    pub(super) fn new(
        status: &StatusReport,
        away: &[(String, String)],
        connection: &Connection,
    ) -> Self {
        let mut processes = vec![Process {
            name: "master".to_owned(),
            role: "master",
            state: "running",
            error: None,
            pid: status.master.pid,
            address: status.master.address.clone(),
            port: port(&status.master.address),
            cpu_ms: status.master.cpu_ms,
            resident_bytes: status.master.resident_bytes,
            uptime_seconds: status.master.uptime_seconds,
            silent_ms: 0,
            release: status.master.version.clone(),
        }];
        processes.extend(status.nodes.iter().map(|node| Process {
            name: node.name.clone(),
            role: "storage node",
            state: node.state,
            error: away.iter().find(|(name, _)| *name == node.name).map(|(_, why)| why.clone()),
            pid: node.pid,
            address: node.address.clone(),
            port: port(&node.address),
            cpu_ms: node.cpu_ms,
            resident_bytes: node.resident_bytes,
            uptime_seconds: node.uptime_seconds,
            silent_ms: node.silent_ms,
            release: node.version.clone(),
        }));
        let storage = |node: &crate::cli::status::report::NodeReport| NodeStorage {
            node: node.name.clone(),
            chunks: node.chunks,
            chunk_bytes: node.chunk_bytes,
            capacity_bytes: node.capacity_bytes,
            free_bytes: node.free_bytes,
            disks: node.disks.clone(),
        };
        Self {
            version: JSON_VERSION,
            fs: status.fs.clone(),
            processes,
            clients: status.sessions.clone(),
            storage: status.nodes.iter().map(storage).collect(),
            chunks: Chunks {
                replicas_wanted: status.replicas,
                not_counted: away.iter().cloned().collect(),
                ..Chunks::default()
            },
            files: Files::default(),
            network: Network {
                protocol: "gRPC (Protocol Buffers over HTTP/2)".to_owned(),
                protocol_version: cairn_proto::handshake::VERSION,
                master: connection.master.clone(),
                nodes: status.nodes.iter().map(|n| (n.name.clone(), n.address.clone())).collect(),
                chunk_size: status.chunk_size,
                hash: "SHA-256",
            },
            distribution: Spool::default(),
            manifest: Spool::default(),
        }
    }
}

fn port(address: &str) -> Option<u16> {
    address.rsplit(':').next()?.parse().ok()
}
