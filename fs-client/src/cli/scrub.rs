//! `cairn scrub`: how far the nodes are with reading everything again; with `--now` they begin at once.

use std::time::Duration;

use cairn_proto::{ClusterMap, Node, pb};
use clap::Args;
use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION, Mood, painted},
    progress::Progress,
    status::report::{ScrubReport, name_order},
    units,
};
use crate::rpc::{Admin, CallError, NodeAdmin};

/// How often a node that reads is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Show, or begin, the reading again of every chunk on all nodes; exit code 1 if anything is damaged
#[derive(Args, Debug)]
pub struct Scrub {
    /// Begin now, from the first chunk on, as fast as the nodes' --scrub-bandwidth allows
    #[arg(long)]
    now: bool,
    /// Wait until every node is through
    #[arg(long, requires = "now")]
    wait: bool,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// How far the nodes are with reading everything again. `cairn scrub --json`
#[derive(Serialize, JsonSchema)]
pub struct ScrubsReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// Every node could be asked, and nothing is known to be damaged and not healed yet.
    ok: bool,
    /// The nodes.
    nodes: Vec<NodeScrub>,
}

/// One node's scrub.
#[derive(Serialize, JsonSchema)]
struct NodeScrub {
    /// What it is called.
    node: String,
    /// How far it is; absent when it could not be asked.
    scrub: Option<ScrubReport>,
    /// Copies there that are known to be damaged and not healed yet.
    damaged_chunks: u64,
    /// Why it could not be asked; absent when it could.
    error: Option<String>,
}

impl Scrub {
    /// `Ok(false)`: something is damaged, or a node could not be asked.
    ///
    /// # Errors
    /// When the master cannot be asked.
    pub async fn run(self, connection: &Connection) -> Result<bool, Failure> {
        let admin = Admin::connect(&connection.config("cairn scrub")?).await?;
        let map = ClusterMap::try_from(&admin.status().await?.map.unwrap_or_default())
            .map_err(|e| Failure::new(format!("the master's map of the cluster: {e}")))?;
        let progress = Progress::counts(!self.json && self.wait);
        progress.begin("chunks read again", Some(0));
        let asked = map.nodes.iter().map(|node| self.ask(&admin, node, &progress));
        let answers = join_all(asked).await;
        drop(progress);
        let mut nodes: Vec<_> = map
            .nodes
            .iter()
            .zip(answers)
            .map(|(node, answer)| NodeScrub::new(node, answer))
            .collect();
        nodes.sort_by(|a, b| name_order(&a.node).cmp(&name_order(&b.node)));
        let ok = nodes.iter().all(|n| n.error.is_none() && n.damaged_chunks == 0);
        let report = ScrubsReport { version: JSON_VERSION, ok, nodes };
        if self.json {
            output::json(&report)?;
        } else {
            report.print();
        }
        Ok(ok)
    }

    async fn ask(
        &self,
        admin: &Admin,
        node: &Node,
        progress: &Progress,
    ) -> Result<pb::NodeStatusResponse, CallError> {
        let node = admin.node(node)?;
        let before = node.status().await?;
        if !self.now {
            return Ok(before);
        }
        node.scrub().await?;
        if !self.wait {
            return node.status().await;
        }
        wait(&node, before.scrub.unwrap_or_default().passes, progress).await
    }
}

/// Returns when the node has finished more than `passes` passes.
async fn wait(
    node: &NodeAdmin,
    passes: u64,
    progress: &Progress,
) -> Result<pb::NodeStatusResponse, CallError> {
    let (mut checked, mut total) = (0, 0);
    loop {
        let status = node.status().await?;
        let scrub = status.scrub.unwrap_or_default();
        progress.add_total(scrub.chunks_total.saturating_sub(total));
        total = total.max(scrub.chunks_total);
        progress.add(scrub.chunks_checked.saturating_sub(checked));
        checked = checked.max(scrub.chunks_checked);
        if scrub.passes > passes && !scrub.running {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl NodeScrub {
    fn new(node: &Node, answer: Result<pb::NodeStatusResponse, CallError>) -> Self {
        let name = node.name.clone();
        match answer {
            Ok(status) => Self {
                node: name,
                scrub: Some(status.scrub.unwrap_or_default().into()),
                damaged_chunks: status.damaged_chunks,
                error: None,
            },
            Err(e) => {
                Self { node: name, scrub: None, damaged_chunks: 0, error: Some(e.to_string()) }
            }
        }
    }

    fn line(&self) -> String {
        if let Some(error) = &self.error {
            return painted(error, Mood::Bad);
        }
        let scrub = self.scrub.unwrap_or_default();
        let how_far = if scrub.running {
            format!(
                "reading, {} of {}",
                scrub.chunks_checked,
                units::plural(scrub.chunks_total, "chunk")
            )
        } else if scrub.passes == 0 {
            "never read everything again so far".to_owned()
        } else {
            format!(
                "read {} ({}) again",
                units::plural(scrub.chunks_checked, "chunk"),
                units::bytes(scrub.bytes_checked)
            )
        };
        let found = format!("{} found damaged", scrub.damaged_found);
        let left = match self.damaged_chunks {
            0 => painted("nothing is damaged now", Mood::Good),
            n => painted(&format!("{n} not healed yet"), Mood::Bad),
        };
        format!("{how_far}, {found}, {left}")
    }
}

impl ScrubsReport {
    fn print(&self) {
        for node in &self.nodes {
            println!("{:<14} {}", node.node, node.line());
        }
    }
}
