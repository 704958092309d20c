//! `cairn verify`: is every copy of every chunk there, and are its bytes right?
//!
//! First every node reads and hashes all that it holds ([`nodes`]), all nodes at once. Then every file's
//! references are looked up on all nodes ([`references`]). What is wrong is named with chunk, node and files.
//! Memory: the findings, and a bounded set of chunks already found good.

mod nodes;
mod references;

use std::collections::BTreeMap;

use cairn_proto::{ChunkId, ClusterMap};
use clap::Args;
use serde::Serialize;

use super::{connection::Connection, failure::Failure, progress::Progress, units};
use crate::rpc::Admin;

/// Hash every copy of every chunk and compare with every file; exit code 1 if anything is wrong
#[derive(Args, Debug)]
pub struct Verify {
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Fields are only ever added.
#[derive(Default, Serialize)]
pub(super) struct Report {
    ok: bool,
    nodes: Vec<NodeReport>,
    files: u64,
    references: u64,
    findings: Vec<Finding>,
}

/// One node's own check.
#[derive(Default, Serialize)]
pub(super) struct NodeReport {
    node: String,
    chunks: u64,
    bytes: u64,
    damaged: u64,
    /// Why it could not be checked.
    error: Option<String>,
}

/// One chunk with something wrong.
#[derive(Serialize)]
pub(super) struct Finding {
    chunk: String,
    /// Node name to "damaged", "missing", "wrong length" or "not checked".
    problems: BTreeMap<String, String>,
    good_copies: usize,
    wanted_copies: usize,
    /// The first files that refer to it.
    files: Vec<String>,
}

/// Most files that are named for one chunk.
const FILES_NAMED: usize = 20;

impl Verify {
    /// `Ok(false)`: something is damaged, missing or could not be checked.
    ///
    /// # Errors
    /// When the master cannot be asked.
    pub async fn run(self, connection: &Connection) -> Result<bool, Failure> {
        let admin = Admin::connect(&connection.config("cairn verify")?).await?;
        let status = admin.status().await?;
        let map = ClusterMap::try_from(&status.map.unwrap_or_default())
            .map_err(|e| Failure::new(format!("the master's map of the cluster: {e}")))?;
        let progress = Progress::counts(!self.json);
        let (reports, damaged) = nodes::check_all(&admin, &map, &progress).await;
        let mut report = Report { nodes: reports, ..Report::default() };
        references::check_all(&admin, &map, damaged, &mut report, &progress).await?;
        drop(progress);
        report.ok =
            report.findings.is_empty() && report.nodes.iter().all(|node| node.error.is_none());
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report).expect("plain data"));
        } else {
            report.print();
        }
        Ok(report.ok)
    }
}

impl Report {
    fn print(&self) {
        for node in &self.nodes {
            match &node.error {
                Some(why) => println!("{}: not checked: {why}", node.node),
                None => println!(
                    "{}: {}, {}: {}",
                    node.node,
                    units::plural(node.chunks, "chunk"),
                    units::bytes(node.bytes),
                    if node.damaged == 0 {
                        "all hashes right".to_owned()
                    } else {
                        format!("{} damaged", units::count(node.damaged))
                    }
                ),
            }
        }
        for finding in &self.findings {
            finding.print();
        }
        let result = if self.ok {
            "every copy is there and right".to_owned()
        } else {
            units::plural(self.findings.len() as u64, "chunk") + " with something wrong"
        };
        println!(
            "{}, {}: {result}",
            units::plural(self.files, "file"),
            units::plural(self.references, "reference"),
        );
    }
}

impl Finding {
    fn new(id: ChunkId, wanted_copies: usize) -> Self {
        Self {
            chunk: id.to_string(),
            problems: BTreeMap::new(),
            good_copies: 0,
            wanted_copies,
            files: Vec::new(),
        }
    }

    fn name_file(&mut self, path: &str) {
        if self.files.len() < FILES_NAMED && !self.files.iter().any(|f| f == path) {
            self.files.push(path.to_owned());
        }
    }

    fn print(&self) {
        println!(
            "chunk {}: {} of {} copies good{}",
            self.chunk,
            self.good_copies,
            self.wanted_copies,
            if self.good_copies == 0 { ": LOST" } else { "" }
        );
        for (node, problem) in &self.problems {
            println!("  {problem} on {node}");
        }
        if self.files.is_empty() {
            println!("  no file refers to it");
        }
        for file in &self.files {
            println!("  in {file}");
        }
    }
}
