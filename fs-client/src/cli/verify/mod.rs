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
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION, Mood, painted},
    progress::Progress,
    status::report::name_order,
    units,
};
use crate::rpc::Admin;

/// Hash every copy of every chunk and compare with every file; exit code 1 if anything is wrong with one
#[derive(Args, Debug)]
pub struct Verify {
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// Every copy of every chunk, hashed. `cairn verify --json`
#[derive(Default, Serialize, JsonSchema)]
pub struct VerifyReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// Nothing is wrong with any file's chunks, and every node could be checked.
    ok: bool,
    /// Each node's check of what it holds.
    nodes: Vec<NodeReport>,
    /// Names of regular files.
    files: u64,
    /// References to chunks under all names.
    references: u64,
    /// Chunks of files with something wrong.
    findings: Vec<Finding>,
    /// Damaged chunks that no file refers to. Nothing is lost with them: repair or garbage collection
    /// takes them.
    unreferenced: Vec<Unreferenced>,
}

/// One node's own check.
#[derive(Default, Serialize, JsonSchema)]
pub(super) struct NodeReport {
    /// What it is called.
    node: String,
    /// Chunks that it read and hashed.
    chunks: u64,
    /// Bytes that it read and hashed.
    bytes: u64,
    /// Chunks whose bytes are not what their name says.
    damaged: u64,
    /// Why it could not be checked; absent when it was.
    error: Option<String>,
    /// It is out: its copies belong elsewhere by now, so it need not be checked.
    out: bool,
    /// Chunks of files that should have a copy here, which could not be checked. In a store with very
    /// many chunks one that is shared may count more than once.
    unchecked: u64,
}

/// One chunk with something wrong.
#[derive(Serialize, JsonSchema)]
pub(super) struct Finding {
    /// SHA-256 that its bytes should have, 64 hex digits.
    chunk: String,
    /// Node name to `damaged`, `missing` or `wrong length N`.
    problems: BTreeMap<String, String>,
    /// Copies that are there and right.
    good_copies: usize,
    /// Copies that there should be.
    wanted_copies: usize,
    /// The first files that refer to it.
    files: Vec<String>,
}

/// One damaged chunk that no file refers to.
#[derive(Serialize, JsonSchema)]
pub(super) struct Unreferenced {
    /// SHA-256 that its bytes should have, 64 hex digits.
    chunk: String,
    /// Node name to `damaged`.
    problems: BTreeMap<String, String>,
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
        let files = status.files;
        let map = ClusterMap::try_from(&status.map.unwrap_or_default())
            .map_err(|e| Failure::new(format!("the master's map of the cluster: {e}")))?;
        let progress = Progress::counts(!self.json);
        let (reports, damaged) = nodes::check_all(&admin, &map, &progress).await;
        let mut report =
            VerifyReport { version: JSON_VERSION, nodes: reports, ..VerifyReport::default() };
        progress.begin("files looked up", Some(files));
        references::check_all(&admin, &map, damaged, &mut report, &progress).await?;
        drop(progress);
        report.nodes.sort_by(|a, b| name_order(&a.node).cmp(&name_order(&b.node)));
        report.ok = report.findings.is_empty() && report.nodes.iter().all(|node| !node.is_missed());
        if self.json {
            output::json(&report)?;
        } else {
            report.print();
        }
        Ok(report.ok)
    }
}

impl VerifyReport {
    fn print(&self) {
        for node in &self.nodes {
            match &node.error {
                Some(_) if node.out => {
                    println!("{}: out; its copies belong elsewhere by now", node.node);
                }
                Some(why) => {
                    let copies = units::plural(node.unchecked, "chunk");
                    let what =
                        format!("not checked: {why}; {copies} of files should have a copy there");
                    println!("{}: {}", node.node, painted(&what, Mood::Bad));
                }
                None => println!(
                    "{}: {}, {}: {}",
                    node.node,
                    units::plural(node.chunks, "chunk"),
                    units::bytes(node.bytes),
                    if node.damaged == 0 {
                        painted("all hashes right", Mood::Good)
                    } else {
                        painted(&format!("{} damaged", units::count(node.damaged)), Mood::Bad)
                    }
                ),
            }
        }
        for finding in &self.findings {
            finding.print();
        }
        if !self.unreferenced.is_empty() {
            println!(
                "{} damaged that no file refers to: repair or garbage collection takes them",
                units::plural(self.unreferenced.len() as u64, "chunk"),
            );
        }
        let away = self.nodes.iter().filter(|node| node.is_missed()).count() as u64;
        let result = if self.ok {
            painted("every copy is there and right", Mood::Good)
        } else if self.findings.is_empty() {
            let nodes = units::plural(away, "node");
            painted(
                &format!("nothing wrong was found, but {nodes} could not be checked"),
                Mood::Bad,
            )
        } else {
            let chunks = units::plural(self.findings.len() as u64, "chunk");
            painted(&format!("{chunks} with something wrong"), Mood::Bad)
        };
        println!(
            "{}, {}: {result}",
            units::plural(self.files, "file"),
            units::plural(self.references, "reference"),
        );
    }
}

impl NodeReport {
    /// It should have been checked and was not.
    fn is_missed(&self) -> bool {
        self.error.is_some() && !self.out
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
            if self.good_copies == 0 { painted(": LOST", Mood::Bad) } else { String::new() }
        );
        for (node, problem) in &self.problems {
            println!("  {problem} on {node}");
        }
        for file in &self.files {
            println!("  in {file}");
        }
    }
}
