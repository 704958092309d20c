//! `cairn status`: what is up, how much is stored, what lacks copies.

use cairn_proto::{NodeState, pb};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use super::{connection::Connection, failure::Failure, units};
use crate::rpc::Admin;

/// Show master, nodes, sessions, space and deduplication
#[derive(Args, Debug)]
pub struct Status {
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Fields are only ever added.
#[derive(Serialize)]
struct Report {
    fs: String,
    healthy: bool,
    master: Master,
    nodes: Vec<NodeReport>,
    sessions: Vec<SessionReport>,
    files: u64,
    directories: u64,
    others: u64,
    orphans: u64,
    /// Sum of the lengths of all files.
    logical_bytes: u64,
    /// What all references together would take, each stored once for itself.
    referenced_bytes: u64,
    /// Distinct chunks, one copy each: the largest node's share, or all copies divided by `replicas`.
    unique_bytes: u64,
    /// All copies on all nodes.
    stored_bytes: u64,
    dedup_ratio: f64,
    replication_ratio: f64,
    replicas: u32,
    min_replicas: u32,
    chunk_size: u32,
    map_epoch: u64,
    groups: u32,
    degraded_groups: Vec<u32>,
}

#[derive(Serialize)]
struct Master {
    address: String,
    version: String,
    pid: u32,
    uptime_seconds: u64,
}

#[derive(Serialize)]
struct NodeReport {
    name: String,
    id: String,
    address: String,
    zone: String,
    state: &'static str,
    silent_ms: u64,
    pid: u32,
    uptime_seconds: u64,
    version: String,
    chunks: u64,
    chunk_bytes: u64,
    capacity_bytes: u64,
    free_bytes: u64,
    disks: Vec<Disk>,
}

#[derive(Serialize)]
struct Disk {
    path: String,
    chunks: u64,
    chunk_bytes: u64,
    capacity_bytes: u64,
    free_bytes: u64,
    failed: bool,
}

#[derive(Serialize)]
struct SessionReport {
    id: u64,
    client: String,
    connected: bool,
    open_inodes: u64,
    idle_ms: u64,
}

impl Status {
    /// # Errors
    /// When the master cannot be asked.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn status")?).await?;
        let report = Report::from(admin.status().await?);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report).expect("plain data"));
        } else {
            report.print();
        }
        Ok(())
    }
}

impl From<pb::StatusResponse> for Report {
    fn from(status: pb::StatusResponse) -> Self {
        let map = status.map.unwrap_or_default();
        let nodes: Vec<_> = status.nodes.into_iter().map(NodeReport::from).collect();
        let stored_bytes = nodes.iter().map(|n| n.chunk_bytes).sum::<u64>();
        let largest = nodes.iter().map(|n| n.chunk_bytes).max().unwrap_or(0);
        let unique_bytes = largest.max(stored_bytes / u64::from(map.replicas.max(1)));
        Self {
            fs: status.fs_uuid,
            healthy: status.degraded_groups.is_empty()
                && !nodes.is_empty()
                && nodes.iter().all(|n| n.state == "up" && n.disks.iter().all(|d| !d.failed)),
            master: Master {
                address: status.listen,
                version: status.version,
                pid: status.pid,
                uptime_seconds: status.uptime_seconds,
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
            replicas: map.replicas,
            min_replicas: map.min_replicas,
            chunk_size: status.chunk_size,
            map_epoch: map.epoch,
            groups: 1 << map.pg_bits.min(16),
            degraded_groups: status.degraded_groups,
            nodes,
        }
    }
}

impl From<pb::NodeStatus> for NodeReport {
    fn from(node: pb::NodeStatus) -> Self {
        let entry = node.node.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let disks: Vec<_> = status.disks.into_iter().map(Disk::from).collect();
        let working = || disks.iter().filter(|d| !d.failed);
        Self {
            state: NodeState::from(entry.state()).word(),
            address: format!("{}:{}", entry.host, entry.port),
            name: entry.name,
            id: entry.node_id,
            zone: entry.zone,
            silent_ms: node.silent_ms,
            pid: status.pid,
            uptime_seconds: status.uptime_seconds,
            version: status.version,
            chunks: disks.iter().map(|d| d.chunks).sum(),
            chunk_bytes: disks.iter().map(|d| d.chunk_bytes).sum(),
            capacity_bytes: working().map(|d| d.capacity_bytes).sum(),
            free_bytes: working().map(|d| d.free_bytes).sum(),
            disks,
        }
    }
}

impl From<pb::DiskStatus> for Disk {
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

impl Report {
    fn print(&self) {
        let m = &self.master;
        println!("File system    {}", self.fs);
        println!(
            "Master         {}, pid {}, up {}, version {}",
            m.address,
            m.pid,
            units::seconds(m.uptime_seconds),
            m.version
        );
        println!(
            "Files          {}, {}, {}; {} in all",
            units::plural(self.files, "file"),
            self.directories_text(),
            units::plural(self.others, "link or special file"),
            units::bytes(self.logical_bytes)
        );
        println!(
            "Stored         {} of distinct chunks, {} with all copies",
            units::bytes(self.unique_bytes),
            units::bytes(self.stored_bytes)
        );
        println!(
            "Ratios         deduplication {:.2}, replication {:.2} (wanted: {})",
            self.dedup_ratio, self.replication_ratio, self.replicas
        );
        println!("Health         {}", self.health());
        self.print_nodes();
        self.print_sessions();
    }

    fn directories_text(&self) -> String {
        match self.directories {
            1 => "1 directory".to_owned(),
            n => format!("{} directories", units::count(n)),
        }
    }

    fn health(&self) -> String {
        let mut ill = Vec::new();
        let away = self.nodes.iter().filter(|n| n.state != "up").count();
        if self.nodes.is_empty() {
            ill.push("no storage node has registered yet".to_owned());
        }
        if away > 0 {
            ill.push(format!("{away} of {} nodes not up", self.nodes.len()));
        }
        for node in &self.nodes {
            for disk in node.disks.iter().filter(|d| d.failed) {
                ill.push(format!("{} of {} failed", disk.path, node.name));
            }
        }
        if !self.degraded_groups.is_empty() {
            ill.push(format!(
                "{} of {} groups were written with fewer than {} copies",
                self.degraded_groups.len(),
                self.groups,
                self.replicas
            ));
        }
        if ill.is_empty() { "good".to_owned() } else { ill.join("; ") }
    }

    fn print_nodes(&self) {
        if self.nodes.is_empty() {
            return;
        }
        let header = ["NODE", "ADDRESS", "STATE", "UP", "CHUNKS", "STORED", "FREE", "CAPACITY"];
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(header);
        for n in &self.nodes {
            let up = if n.state == "up" {
                units::seconds(n.uptime_seconds)
            } else {
                format!("silent {}", units::seconds(n.silent_ms / 1000))
            };
            table.add_row([
                n.name.clone(),
                n.address.clone(),
                n.state.to_owned(),
                up,
                units::count(n.chunks),
                units::bytes(n.chunk_bytes),
                units::bytes(n.free_bytes),
                units::bytes(n.capacity_bytes),
            ]);
        }
        for column in 4..header.len() {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("\n{}", table.trim_fmt());
    }

    fn print_sessions(&self) {
        if self.sessions.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["SESSION", "CLIENT", "STATE", "OPEN FILES"]);
        for s in &self.sessions {
            let state = if s.connected { "connected" } else { "away" };
            let open = units::count(s.open_inodes);
            table.add_row([s.id.to_string(), s.client.clone(), state.to_owned(), open]);
        }
        println!("\n{}", table.trim_fmt());
    }
}
