//! One pull: a node makes its copy of some groups whole from others. The node says every second how far it
//! is; one that falls silent is given up.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cairn_proto::{ClusterMap, Node, pb};
use tokio::time::timeout;

use super::{Repair, clock::Tick, plan::Job};

/// A pull that says nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// How a pull ended.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) job: Job,
    pub(super) began: Tick,
    /// Whether everything that was missing is there now.
    pub(super) complete: bool,
}

/// Pulls to the end.
pub(super) async fn pull(
    repair: Arc<Repair>,
    map: Arc<ClusterMap>,
    job: Job,
    began: Tick,
) -> Pulled {
    let _counted = repair.progress.pulling();
    let complete = match run(&repair, &map, &job).await {
        Ok(()) => true,
        Err(why) => {
            let name = map.node(job.target).map_or("a node that left", |node| &node.name);
            repair.progress.problem(format!("{name} could not copy everything: {why}"));
            false
        }
    };
    Pulled { job, began, complete }
}

async fn run(repair: &Repair, map: &ClusterMap, job: &Job) -> Result<(), String> {
    let target = map.node(job.target).ok_or("it has left the cluster")?;
    let sources: Vec<Node> = job.sources().iter().filter_map(|id| map.node(*id)).cloned().collect();
    let request = pb::PullRequest {
        pg_bits: map.pg_bits,
        groups: job.needs.iter().map(|need| need.group).collect(),
        sources: sources.iter().map(pb::Node::from).collect(),
        bytes_per_second: repair.limits.bandwidth,
    };
    let mut progress = repair.chunks.pull(target, request).await.map_err(|e| e.to_string())?;
    let (mut chunks, mut bytes) = (0, 0);
    let mut done = BTreeSet::new();
    let mut failures: Vec<String> = Vec::new();
    loop {
        let message = timeout(SILENCE, progress.message()).await;
        let message = message.map_err(|_| "it fell silent".to_owned())?;
        let message = message.map_err(|status| cairn_proto::status::sentence(&status))?;
        let Some(message) = message else { return Err("it stopped half-way".to_owned()) };
        let fresh = |now: u64, before: &mut u64| {
            let more = now.saturating_sub(*before);
            *before = now.max(*before);
            more
        };
        repair.progress.moved(
            fresh(message.chunks_pulled, &mut chunks),
            fresh(message.bytes_pulled, &mut bytes),
        );
        if message.group_done {
            done.insert(message.group);
        }
        failures.extend(message.failures.into_iter().take(4));
        failures.truncate(4);
        if !message.done {
            continue;
        }
        if !failures.is_empty() {
            return Err(failures.join("; "));
        }
        if message.chunks_missing > 0 {
            return Err(format!("{} chunks are still missing", message.chunks_missing));
        }
        return match job.needs.iter().find(|need| !done.contains(&need.group)) {
            None => Ok(()),
            Some(need) => Err(format!("it says nothing of group {}", need.group)),
        };
    }
}
