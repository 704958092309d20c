//! `cairn rebalance status`: which copies are not where they belong yet, and how fast they get there.

use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION},
    status::{repair::RepairReport, report::StatusReport},
    table::{Table, cell},
    units,
};
use crate::rpc::Admin;

/// Show how copies get to where they belong
#[derive(Args, Debug)]
pub struct Rebalance {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Show what is still to be copied, what of it each node gets, and how long it takes
    Status {
        /// Print JSON for programs instead of text
        #[arg(long)]
        json: bool,
    },
}

/// What is still to be copied. `cairn rebalance status --json`
#[derive(Serialize, JsonSchema)]
pub struct RebalanceReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// Every copy is where it belongs, and nowhere else.
    done: bool,
    /// Copies that every chunk shall have.
    replicas: u32,
    /// Placement groups.
    groups: u32,
    /// Groups that were written with fewer copies than `replicas`.
    degraded_groups: u64,
    /// Why nothing is repaired yet; empty: it is.
    safe_mode: String,
    /// The numbers.
    repair: RepairReport,
}

impl Rebalance {
    /// # Errors
    /// When the master cannot be asked.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let Verb::Status { json } = self.verb;
        let admin = Admin::connect(&connection.config("cairn rebalance")?).await?;
        let status = StatusReport::from(admin.status().await?);
        let repair = status.repair;
        let report = RebalanceReport {
            version: JSON_VERSION,
            done: repair.known && repair.is_done() && repair.groups_to_drop == 0,
            replicas: status.replicas,
            groups: status.groups,
            degraded_groups: status.degraded_groups.len() as u64,
            safe_mode: status.safe_mode,
            repair,
        };
        if json {
            return output::json(&report);
        }
        report.print();
        Ok(())
    }
}

impl RebalanceReport {
    fn print(&self) {
        let repair = &self.repair;
        if !self.safe_mode.is_empty() {
            println!("Safe mode      {}", self.safe_mode);
        }
        println!(
            "Groups         {} not whole, {} waiting for a node, {} also elsewhere; {} in all",
            units::count(repair.groups_not_whole.into()),
            units::count(repair.groups_waiting.into()),
            units::count(repair.groups_to_drop.into()),
            units::count(self.groups.into())
        );
        println!(
            "To copy        {} in {}",
            units::bytes(repair.bytes_to_move),
            units::plural(repair.chunks_to_move, "chunk")
        );
        println!(
            "Copied         {} in {}, since the master started",
            units::bytes(repair.bytes_moved),
            units::plural(repair.chunks_moved, "chunk")
        );
        println!(
            "Dropped        {} in {}",
            units::bytes(repair.bytes_dropped),
            units::plural(repair.chunks_dropped, "chunk")
        );
        let state = match repair.line() {
            _ if !repair.known => "the nodes have not been compared yet".to_owned(),
            _ if self.done => "everything is where it belongs".to_owned(),
            Some(line) => line,
            None => "waiting for a node".to_owned(),
        };
        println!("State          {state}");
        if repair.nodes.is_empty() {
            return;
        }
        let header = ["NODE", "CHUNKS", "STORED", "TO GET", "TO GIVE"];
        let mut table = Table::new("", header);
        for share in &repair.nodes {
            table.row([
                cell(&share.name),
                cell(units::count(share.chunks)),
                cell(units::bytes(share.bytes)),
                cell(units::bytes(share.bytes_to_get)),
                cell(units::bytes(share.bytes_to_give)),
            ]);
        }
        println!();
        table.numbers(1, header.len()).print();
    }
}
