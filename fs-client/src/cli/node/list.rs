//! `cairn node list`: every storage node, its state, and what is on its way to or from it.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    cli::{
        connection::Connection,
        failure::Failure,
        output::{self, JSON_VERSION},
        status::report::StatusReport,
        table::{Table, cell, state_cell},
        units,
    },
    rpc::Admin,
};

/// Show all storage nodes with ids, states, zones and what is on its way to or from them
#[derive(Args, Debug)]
pub struct List {
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// The storage nodes. `cairn node list --json`
#[derive(Serialize, JsonSchema)]
pub struct NodeListReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// All of them, those that are away included.
    nodes: Vec<ListedNode>,
}

/// One storage node.
#[derive(Serialize, JsonSchema)]
struct ListedNode {
    /// What people call it.
    name: String,
    /// Its UUID.
    id: String,
    /// HOST:PORT.
    address: String,
    /// Failure domain.
    zone: String,
    /// `up`, `suspect`, `down`, `out`, `draining` or `maintenance`.
    state: &'static str,
    /// Milliseconds since its last report.
    silent_ms: u64,
    /// Bytes of its chunks.
    chunk_bytes: u64,
    /// Bytes that new chunks can take on its working disks.
    free_bytes: u64,
    /// Bytes of its working disks.
    capacity_bytes: u64,
    /// Estimate of the bytes that it still gets.
    bytes_to_get: u64,
    /// Bytes of chunks that do not belong there any more.
    bytes_to_give: u64,
}

impl List {
    /// # Errors
    /// When the master cannot be asked.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn node")?).await?;
        let status = StatusReport::from(admin.status().await?);
        let repair = &status.repair;
        let listed = |node: &crate::cli::status::report::NodeReport| {
            let share = repair.share(&node.id);
            ListedNode {
                name: node.name.clone(),
                id: node.id.clone(),
                address: node.address.clone(),
                zone: node.zone.clone(),
                state: node.state,
                silent_ms: node.silent_ms,
                chunk_bytes: node.chunk_bytes,
                free_bytes: node.free_bytes,
                capacity_bytes: node.capacity_bytes,
                bytes_to_get: share.map_or(0, |share| share.bytes_to_get),
                bytes_to_give: share.map_or(0, |share| share.bytes_to_give),
            }
        };
        let nodes = status.nodes.iter().map(listed).collect();
        let report = NodeListReport { version: JSON_VERSION, nodes };
        if self.json {
            return output::json(&report);
        }
        report.print();
        Ok(())
    }
}

impl NodeListReport {
    fn print(&self) {
        let header =
            ["NODE", "ID", "ADDRESS", "ZONE", "STATE", "STORED", "FREE", "TO GET", "TO GIVE"];
        let mut table = Table::new("", header);
        for node in &self.nodes {
            table.row([
                cell(&node.name),
                cell(&node.id),
                cell(&node.address),
                cell(&node.zone),
                state_cell(node.state),
                cell(units::bytes(node.chunk_bytes)),
                cell(units::bytes(node.free_bytes)),
                cell(units::bytes(node.bytes_to_get)),
                cell(units::bytes(node.bytes_to_give)),
            ]);
        }
        table.numbers(5, header.len()).print();
    }
}
