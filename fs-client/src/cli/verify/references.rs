//! Every reference of every file is looked up on every node.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroUsize,
};

use cairn_proto::{ChunkId, ChunkRef, ClusterMap, ManifestRun, NodeId};
use futures_util::future::join_all;
use lru::LruCache;

use super::{Finding, Unreferenced, VerifyReport, nodes::Damaged};
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
    report: &mut VerifyReport,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut checker = Checker::new(admin, map, damaged, report)?;
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
    for (node, checked) in report.nodes.iter_mut().zip(&checker.nodes) {
        node.unchecked = checked.unchecked;
        if let Some(why) = &checked.away {
            node.error.get_or_insert_with(|| why.clone());
        }
    }
    checker.finish(report);
    Ok(())
}

/// A node while its copies are looked up.
struct CheckedNode {
    id: NodeId,
    name: String,
    admin: NodeAdmin,
    /// Why it is not asked (any more).
    away: Option<String>,
    /// Chunks that should have a copy there and were not looked up.
    unchecked: u64,
}

struct Checker<'a> {
    map: &'a ClusterMap,
    /// In the order of the map.
    nodes: Vec<CheckedNode>,
    damaged: Damaged,
    /// Chunks of which nothing wrong is known.
    good: LruCache<ChunkId, ()>,
    bad: HashMap<ChunkId, Finding>,
}

impl<'a> Checker<'a> {
    /// `report` has the nodes' own checks, in the order of the map.
    fn new(
        admin: &Admin,
        map: &'a ClusterMap,
        damaged: Damaged,
        report: &VerifyReport,
    ) -> Result<Self, Failure> {
        let mut nodes = Vec::new();
        for (node, report) in map.nodes.iter().zip(&report.nodes) {
            nodes.push(CheckedNode {
                id: node.id,
                name: node.name.clone(),
                admin: admin.node(node)?,
                away: report.error.clone(),
                unchecked: 0,
            });
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

    /// Asks all nodes for `chunks` at once and sorts them into good and bad. A chunk whose missing copies
    /// are on nodes that are away is not bad: it counts as unchecked there.
    async fn ask(&mut self, chunks: &[ChunkRef]) {
        let ids: Vec<_> = chunks.iter().map(|c| c.id).collect();
        let one = |node: &CheckedNode| {
            let admin = node.away.is_none().then(|| node.admin.clone());
            let ids = &ids;
            async move { Some(admin?.have(ids, false).await) }
        };
        let answers = join_all(self.nodes.iter().map(one)).await;
        let mut answered = Vec::new();
        for (node, answer) in self.nodes.iter_mut().zip(answers) {
            answered.push(match answer {
                Some(Ok(lengths)) => Some(lengths),
                Some(Err(why)) => {
                    node.away = Some(why.to_string());
                    None
                }
                None => None,
            });
        }
        for (position, chunk) in chunks.iter().enumerate() {
            let mut finding = Finding::new(chunk.id, self.wanted());
            let mut away = 0;
            for (number, lengths) in answered.iter().enumerate() {
                let is_target = self.is_target(chunk, self.nodes[number].id);
                let node = &mut self.nodes[number];
                let problem = match lengths {
                    None if is_target => {
                        node.unchecked += 1;
                        away += 1;
                        continue;
                    }
                    None => continue,
                    Some(_)
                        if self.damaged.get(&node.id).is_some_and(|d| d.contains(&chunk.id)) =>
                    {
                        Some("damaged".to_owned())
                    }
                    Some(lengths) => match lengths[position] {
                        Some(len) if len == chunk.stored_len => None,
                        Some(len) => Some(format!("wrong length {len}")),
                        None if is_target => Some("missing".to_owned()),
                        None => continue,
                    },
                };
                match problem {
                    None => finding.good_copies += 1,
                    Some(problem) => drop(finding.problems.insert(node.name.clone(), problem)),
                }
            }
            let enough = finding.good_copies + away >= finding.wanted_copies;
            if enough && finding.problems.is_empty() {
                self.good.put(chunk.id, ());
            } else {
                self.bad.insert(chunk.id, finding);
            }
        }
    }

    /// Copies that can be had: not more than there are nodes for them.
    fn wanted(&self) -> usize {
        let homes = self.map.nodes.iter().filter(|n| n.weight > 0 && n.state.is_home()).count();
        (self.map.replicas as usize).min(homes).max(1)
    }

    fn is_target(&self, chunk: &ChunkRef, node: NodeId) -> bool {
        self.map.homes(self.map.group(&chunk.id)).iter().any(|home| home.id == node)
    }

    /// Sorts what was found: damaged chunks that no file refers to are a list of their own.
    fn finish(mut self, report: &mut VerifyReport) {
        let wanted = self.wanted();
        let mut unreferenced = BTreeMap::new();
        for node in &self.nodes {
            for id in self.damaged.get(&node.id).into_iter().flatten() {
                let finding = match self.bad.get_mut(id) {
                    Some(finding) => finding,
                    None => unreferenced.entry(*id).or_insert_with(|| Finding::new(*id, wanted)),
                };
                finding.problems.insert(node.name.clone(), "damaged".to_owned());
            }
        }
        report.findings = self.bad.into_values().collect();
        report.findings.sort_by(|a, b| a.chunk.cmp(&b.chunk));
        report.unreferenced = unreferenced
            .into_values()
            .map(|Finding { chunk, problems, .. }| Unreferenced { chunk, problems })
            .collect();
    }
}
