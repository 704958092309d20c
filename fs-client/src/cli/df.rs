//! `cairn df`: how much the nodes can take, and how much of that is left.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION},
    status::report::StatusReport,
    table::{Table, cell, state_cell},
    units,
};
use crate::rpc::Admin;

/// Show capacity, used and free space
#[derive(Args, Debug)]
pub struct Df {
    /// One line for each storage node too
    #[arg(short, long)]
    nodes: bool,

    /// Print exact numbers of bytes
    #[arg(short, long)]
    bytes: bool,

    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// Space. `cairn df --json`
#[derive(Serialize, JsonSchema)]
pub struct DfReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    pub version: u32,
    /// Where the master was reached, HOST:PORT.
    pub master: String,
    /// Copies that every chunk shall have.
    pub replicas: u32,
    /// All nodes together.
    pub store: Space,
    /// Bytes that files could take altogether: capacity divided by `replicas`. As `df` shows it for a mount.
    pub usable_capacity_bytes: u64,
    /// Bytes of new content that still fit: free space divided by `replicas`. As `df` shows it for a mount.
    pub usable_free_bytes: u64,
    /// Files, directories and everything else with a name or held open.
    pub inodes: u64,
    /// Each node.
    pub nodes: Vec<NodeSpace>,
}

/// Space on working disks. Nodes that share a disk count it once each.
#[derive(Serialize, JsonSchema)]
pub struct Space {
    /// Bytes of the file systems.
    pub capacity_bytes: u64,
    /// Bytes that are taken, by chunks or by anything else.
    pub used_bytes: u64,
    /// Bytes that new chunks can take.
    pub free_bytes: u64,
    /// Bytes of chunks.
    pub chunk_bytes: u64,
}

/// Space of one node, as it last reported.
#[derive(Serialize, JsonSchema)]
pub struct NodeSpace {
    /// The node.
    pub node: String,
    /// `up`, `suspect`, `down`, `out`, `draining` or `maintenance`.
    pub state: &'static str,
    /// Its space.
    pub space: Space,
}

impl Df {
    /// # Errors
    /// When the master cannot be asked.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn df")?).await?;
        let status = StatusReport::from(admin.status().await?);
        let report = DfReport::new(&status, &connection.master);
        if self.json {
            return output::json(&report);
        }
        self.print(&report);
        Ok(())
    }

    fn print(&self, report: &DfReport) {
        let size = |n: u64| if self.bytes { n.to_string() } else { units::bytes(n) };
        let percent = |space: &Space| {
            format!("{:.0}%", 100.0 * units::ratio(space.used_bytes, space.capacity_bytes))
        };
        let header = ["STORE", "CAPACITY", "USED", "FREE", "USE%", "CHUNKS", "USABLE", "INODES"];
        let mut table = Table::new("", header);
        let store = &report.store;
        table.row([
            cell(&report.master),
            cell(size(store.capacity_bytes)),
            cell(size(store.used_bytes)),
            cell(size(store.free_bytes)),
            cell(percent(store)),
            cell(size(store.chunk_bytes)),
            cell(size(report.usable_free_bytes)),
            cell(units::count(report.inodes)),
        ]);
        table.numbers(1, header.len()).print();
        if !self.nodes {
            return;
        }
        let header = ["NODE", "CAPACITY", "USED", "FREE", "USE%", "CHUNKS", "STATE"];
        let mut table = Table::new("", header);
        for node in &report.nodes {
            table.row([
                cell(&node.node),
                cell(size(node.space.capacity_bytes)),
                cell(size(node.space.used_bytes)),
                cell(size(node.space.free_bytes)),
                cell(percent(&node.space)),
                cell(size(node.space.chunk_bytes)),
                state_cell(node.state),
            ]);
        }
        println!();
        table.numbers(1, header.len() - 1).print();
    }
}

impl DfReport {
    fn new(status: &StatusReport, master: &str) -> Self {
        let nodes: Vec<_> = status
            .nodes
            .iter()
            .map(|node| NodeSpace {
                node: node.name.clone(),
                state: node.state,
                space: Space {
                    capacity_bytes: node.capacity_bytes,
                    used_bytes: node.capacity_bytes.saturating_sub(node.free_bytes),
                    free_bytes: node.free_bytes,
                    chunk_bytes: node.chunk_bytes,
                },
            })
            .collect();
        let sum = |of: fn(&Space) -> u64| nodes.iter().map(|n| of(&n.space)).sum::<u64>();
        let store = Space {
            capacity_bytes: sum(|s| s.capacity_bytes),
            used_bytes: sum(|s| s.used_bytes),
            free_bytes: sum(|s| s.free_bytes),
            chunk_bytes: sum(|s| s.chunk_bytes),
        };
        let replicas = u64::from(status.replicas.max(1));
        Self {
            version: JSON_VERSION,
            master: master.to_owned(),
            replicas: status.replicas,
            usable_capacity_bytes: store.capacity_bytes / replicas,
            usable_free_bytes: store.free_bytes / replicas,
            store,
            inodes: status.files + status.directories + status.others + status.orphans,
            nodes,
        }
    }
}
