//! Every reference of every file is looked up on every node.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
};

use cairn_proto::{ChunkId, ChunkRef, ClusterMap, ManifestRun, NodeId};
use futures_util::future::join_all;
use lru::LruCache;

use super::{Finding, NodeReport, Report, nodes::Damaged};
use crate::{
    cli::{failure::Failure, progress::Progress},
    rpc::{Admin, NodeAdmin},
};

/// Chunks that are asked for at once.
const BATCH: usize = 1024;
/// Chunks that are remembered to be good, so that shared ones are not asked for again.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 18).expect("not zero");

/// Walks all files and adds what is wrong to `report`.
///
/// # Errors
/// When the master cannot be asked for its files.
pub(super) async fn check_all(
    admin: &Admin,
    map: &ClusterMap,
    damaged: Damaged,
    report: &mut Report,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.begin("files looked up", Some(admin.status().await?.files));
    let mut checker = Checker::new(admin, map, damaged, &report.nodes)?;
    let mut walk = admin.walk("", true).await?;
    let mut pending = Vec::new();
    while let Some(entry) = walk.next().await? {
        for run in entry.runs {
            let run = ManifestRun::try_from(run)
                .map_err(|e| Failure::new(format!("{}: {e}", entry.path)))?;
            for chunk in run.refs.into_iter().flatten() {
                report.references += 1;
                pending.push((chunk, entry.path.clone()));
            }
        }
        let is_file = entry.attr.as_ref().is_some_and(|a| a.mode & libc::S_IFMT == libc::S_IFREG);
        if is_file && !entry.more {
            report.files += 1;
            progress.add(1);
        }
        if pending.len() >= BATCH {
            checker.check(std::mem::take(&mut pending)).await;
        }
    }
    checker.check(pending).await;
    report.findings = checker.finish();
    Ok(())
}

struct Checker<'a> {
    map: &'a ClusterMap,
    nodes: Vec<(NodeId, String, NodeAdmin)>,
    damaged: Damaged,
    good: LruCache<ChunkId, ()>,
    bad: HashMap<ChunkId, Finding>,
}

impl<'a> Checker<'a> {
    fn new(
        admin: &Admin,
        map: &'a ClusterMap,
        damaged: Damaged,
        reports: &[NodeReport],
    ) -> Result<Self, Failure> {
        let mut nodes = Vec::new();
        for (node, report) in map.nodes.iter().zip(reports) {
            if report.error.is_none() {
                nodes.push((node.id, node.name.clone(), admin.node(node)?));
            }
        }
        Ok(Self { map, nodes, damaged, good: LruCache::new(REMEMBERED), bad: HashMap::new() })
    }

    async fn check(&mut self, references: Vec<(ChunkRef, String)>) {
        let mut asked = HashSet::new();
        let unknown: Vec<_> = references
            .iter()
            .map(|(chunk, _)| *chunk)
            .filter(|c| self.good.get(&c.id).is_none() && !self.bad.contains_key(&c.id))
            .filter(|c| asked.insert(c.id))
            .collect();
        for batch in unknown.chunks(BATCH) {
            self.ask(batch).await;
        }
        for (chunk, path) in &references {
            if let Some(finding) = self.bad.get_mut(&chunk.id) {
                finding.name_file(path);
            }
        }
    }

    /// Asks all nodes for `chunks` at once and sorts them into good and bad.
    async fn ask(&mut self, chunks: &[ChunkRef]) {
        let ids: Vec<_> = chunks.iter().map(|c| c.id).collect();
        let answers = join_all(self.nodes.iter().map(|(_, _, node)| node.have(&ids, false))).await;
        for (position, chunk) in chunks.iter().enumerate() {
            let mut finding = Finding::new(chunk.id, self.wanted());
            for ((id, name, _), answer) in self.nodes.iter().zip(&answers) {
                let problem = match answer {
                    Err(why) => Some(format!("not checked ({why})")),
                    Ok(_) if self.damaged.get(id).is_some_and(|d| d.contains(&chunk.id)) => {
                        Some("damaged".to_owned())
                    }
                    Ok(lengths) => match lengths[position] {
                        Some(len) if len == chunk.stored_len => None,
                        Some(len) => Some(format!("wrong length {len}")),
                        None if self.is_target(chunk, *id) => Some("missing".to_owned()),
                        None => continue,
                    },
                };
                match problem {
                    None => finding.good_copies += 1,
                    Some(problem) => drop(finding.problems.insert(name.clone(), problem)),
                }
            }
            if finding.good_copies >= finding.wanted_copies && finding.problems.is_empty() {
                self.good.put(chunk.id, ());
            } else {
                self.bad.insert(chunk.id, finding);
            }
        }
    }

    /// Copies that can be had: not more than there are nodes.
    fn wanted(&self) -> usize {
        (self.map.replicas as usize).min(self.map.nodes.len()).max(1)
    }

    fn is_target(&self, chunk: &ChunkRef, node: NodeId) -> bool {
        let order = self.map.order(self.map.group(&chunk.id));
        order.iter().take(self.map.replicas as usize).any(|n| n.id == node)
    }

    /// All findings, chunks that are damaged although no file refers to them included.
    fn finish(mut self) -> Vec<Finding> {
        let wanted = self.wanted();
        for (node, name, _) in &self.nodes {
            for id in self.damaged.get(node).into_iter().flatten() {
                let finding = self.bad.entry(*id).or_insert_with(|| Finding::new(*id, wanted));
                finding.problems.insert(name.clone(), "damaged".to_owned());
            }
        }
        let mut findings: Vec<_> = self.bad.into_values().collect();
        findings.sort_by(|a, b| a.chunk.cmp(&b.chunk));
        findings
    }
}
