//! `cairn analyze`: what runs, what is stored where, which chunk has how many copies, which files there are.
//!
//! [`census`] walks all files and merges what all nodes list; [`report`] is the result, [`text`] shows
//! it. Memory is bounded whatever the store holds: references and long lists go to temporary files.

mod census;
mod copies;
pub mod report;
mod text;

use cairn_proto::ClusterMap;
use clap::Args;
use futures_util::future::join_all;

use self::report::{AnalyzeReport, Process};
use super::{
    connection::Connection,
    failure::Failure,
    output,
    progress::Progress,
    status::report::{StatusReport, name_order},
};
use crate::rpc::{Admin, NodeAdmin};

/// Show processes, storage, chunks and their copies, files, network
#[derive(Args, Debug)]
pub struct Analyze {
    /// List this many chunks and files
    #[arg(long, value_name = "N", default_value_t = 10)]
    chunks: u64,

    /// List all chunks and files
    #[arg(long, conflicts_with = "chunks")]
    all: bool,

    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// A node that is asked: its place in the report, and the way to it.
struct Asked {
    name: String,
    node: NodeAdmin,
}

impl Analyze {
    /// # Errors
    /// When the master cannot be asked, or the temporary directory is full.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn analyze")?).await?;
        let response = admin.status().await?;
        let map = ClusterMap::try_from(&response.map.clone().unwrap_or_default())
            .map_err(|e| Failure::new(format!("the master's map of the cluster: {e}")))?;
        let mut status = StatusReport::from(response);
        let (nodes, away) = ask_nodes(&admin, &map, &mut status).await?;
        let mut report = AnalyzeReport::new(&status, &away, connection);
        let listed = if self.all { u64::MAX } else { self.chunks };
        let progress = Progress::counts(!self.json);
        census::take(&admin, nodes, listed, &mut report, &progress).await?;
        drop(progress);
        if self.json {
            return output::json(&report);
        }
        report.print()
    }
}

/// Asks every node about itself and puts the answers into `status`. Also which nodes can be asked
/// further, and why the others cannot.
async fn ask_nodes(
    admin: &Admin,
    map: &ClusterMap,
    status: &mut StatusReport,
) -> Result<(Vec<Asked>, Vec<(String, String)>), Failure> {
    let mut nodes = Vec::new();
    for node in &map.nodes {
        nodes.push((node, admin.node(node)?));
    }
    nodes.sort_by(|a, b| name_order(&a.0.name).cmp(&name_order(&b.0.name)));
    let answers = join_all(nodes.iter().map(|(_, node)| node.status())).await;
    let (mut asked, mut away) = (Vec::new(), Vec::new());
    for ((entry, node), answer) in nodes.into_iter().zip(answers) {
        let name = entry.name.clone();
        match answer {
            Ok(answer) => {
                let id = entry.id.to_string();
                if let Some(report) = status.nodes.iter_mut().find(|n| n.id == id) {
                    report.take(answer);
                }
                asked.push(Asked { name, node });
            }
            Err(why) => away.push((name, why.to_string())),
        }
    }
    Ok((asked, away))
}

impl Process {
    fn answers(&self) -> bool {
        self.error.is_none()
    }
}
