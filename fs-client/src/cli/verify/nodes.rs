//! Every node hashes what it holds, all of them at once.

use std::collections::{HashMap, HashSet};

use cairn_proto::{ChunkId, ClusterMap, Node, NodeId, NodeState};
use futures_util::future::join_all;

use super::NodeReport;
use crate::{
    cli::progress::Progress,
    rpc::{Admin, CallError},
};

/// The chunks that each node found to be damaged.
pub(super) type Damaged = HashMap<NodeId, HashSet<ChunkId>>;

/// Asks every node of `map` to check itself. A node that cannot has an `error` in its report.
pub(super) async fn check_all(
    admin: &Admin,
    map: &ClusterMap,
    progress: &Progress,
) -> (Vec<NodeReport>, Damaged) {
    progress.begin("chunks hashed", Some(0));
    let checks = map.nodes.iter().map(|node| check(admin, node, progress));
    let mut damaged = Damaged::new();
    let mut reports = Vec::new();
    for (node, (report, bad)) in map.nodes.iter().zip(join_all(checks).await) {
        damaged.insert(node.id, bad);
        reports.push(report);
    }
    (reports, damaged)
}

async fn check(admin: &Admin, node: &Node, progress: &Progress) -> (NodeReport, HashSet<ChunkId>) {
    let out = node.state == NodeState::Out;
    let mut report = NodeReport { node: node.name.clone(), out, ..NodeReport::default() };
    let mut damaged = HashSet::new();
    match follow(admin, node, progress, &mut report, &mut damaged).await {
        Ok(true) => {}
        Ok(false) => report.error = Some("it ended the check before it was complete".to_owned()),
        Err(why) => report.error = Some(why.to_string()),
    }
    report.damaged = damaged.len() as u64;
    (report, damaged)
}

/// Reads the node's progress to the end; whether it said that it is done.
async fn follow(
    admin: &Admin,
    node: &Node,
    progress: &Progress,
    report: &mut NodeReport,
    damaged: &mut HashSet<ChunkId>,
) -> Result<bool, CallError> {
    let mut answers = admin.node(node)?.verify().await?;
    let (mut done, mut total) = (false, 0);
    while let Some(news) = answers.next().await? {
        progress.add_total(news.chunks_total.saturating_sub(total));
        progress.add(news.chunks_checked.saturating_sub(report.chunks));
        total = total.max(news.chunks_total);
        report.chunks = news.chunks_checked;
        report.bytes = news.bytes_checked;
        damaged.extend(news.damaged.iter().filter_map(|d| ChunkId::try_from(d.id.as_ref()).ok()));
        done |= news.done;
    }
    Ok(done)
}
