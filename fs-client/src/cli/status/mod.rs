//! `cairn status`: what is up, how much is stored, what lacks copies.

mod backup;
mod garbage;
pub mod repair;
pub mod report;

use clap::Args;

use self::report::StatusReport;
use super::{
    connection::Connection,
    failure::Failure,
    output::{self, Mood, painted},
    table::{Table, cell, state_cell},
    units,
};
use crate::rpc::Admin;

/// Show master, nodes, sessions, space and deduplication
#[derive(Args, Debug)]
pub struct Status {
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

impl Status {
    /// # Errors
    /// When the master cannot be asked.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn status")?).await?;
        let report = StatusReport::from(admin.status().await?);
        if self.json {
            return output::json(&report);
        }
        report.print();
        Ok(())
    }
}

impl StatusReport {
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
            units::directories(self.directories),
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
        println!(
            "Compression    {}; {} in files, {} in chunks ({:.2}, holes included)",
            self.compression,
            units::bytes(self.logical_bytes),
            units::bytes(self.referenced_bytes),
            self.compression_ratio
        );
        println!("Backup         {}", self.backup.line());
        println!("Garbage        {}", self.garbage.line());
        println!("Health         {}", self.health());
        if let Some(line) = self.repair.line() {
            println!("Repair         {line}");
        }
        self.print_nodes();
        self.print_sessions();
    }

    fn health(&self) -> String {
        let ill = self.complaints();
        if ill.is_empty() {
            painted("good", Mood::Good)
        } else {
            painted(&ill.join("; "), Mood::Bad)
        }
    }

    /// What is not as it should be.
    pub(super) fn complaints(&self) -> Vec<String> {
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
            if node.damaged_chunks > 0 {
                let chunks = units::plural(node.damaged_chunks, "damaged chunk");
                ill.push(format!("{chunks} on {}", node.name));
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
        ill.extend(self.repair.complaints(self.groups));
        if !self.safe_mode.is_empty() {
            ill.push(format!("safe mode: {}", self.safe_mode));
        }
        ill
    }

    fn print_nodes(&self) {
        if self.nodes.is_empty() {
            return;
        }
        let header = ["NODE", "ADDRESS", "STATE", "UP", "CHUNKS", "STORED", "FREE", "CAPACITY"];
        let mut table = Table::new("", header);
        for n in &self.nodes {
            let up = if n.state == "up" {
                units::seconds(n.uptime_seconds)
            } else {
                format!("silent {}", units::seconds(n.silent_ms / 1000))
            };
            table.row([
                cell(&n.name),
                cell(&n.address),
                state_cell(n.state),
                cell(up),
                cell(units::count(n.chunks)),
                cell(units::bytes(n.chunk_bytes)),
                cell(units::bytes(n.free_bytes)),
                cell(units::bytes(n.capacity_bytes)),
            ]);
        }
        println!();
        table.numbers(4, header.len()).print();
    }

    fn print_sessions(&self) {
        if self.sessions.is_empty() {
            return;
        }
        let mut table = Table::new("", ["SESSION", "CLIENT", "STATE", "OPEN FILES"]);
        for s in &self.sessions {
            let state = if s.connected { "connected" } else { "away" };
            let open = units::count(s.open_inodes);
            table.row([cell(s.id), cell(&s.client), cell(state), cell(open)]);
        }
        println!();
        table.print();
    }
}
