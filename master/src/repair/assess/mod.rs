//! What there is to do: which homes lack chunks, which copies are where they do not belong, which degraded
//! groups are whole again. Looks at digests only, group by group; decides nothing about when.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Instant,
};

use cairn_proto::{ClusterMap, Group, NodeId, NodeState, pb};

use super::{
    digests::{Digest, Holdings},
    ledger::{Held, Ledger, Verdict},
};

/// The homes of every group under one map.
#[derive(Debug)]
pub(super) struct Homes {
    groups: Vec<Vec<NodeId>>,
}

impl Homes {
    pub(super) fn of(map: &ClusterMap) -> Self {
        let homes = |g| map.homes(Group(g)).into_iter().map(|node| node.id).collect();
        Self { groups: (0..Group::count(map.pg_bits)).map(homes).collect() }
    }

    /// The homes of `group`.
    pub(super) fn get(&self, group: u32) -> &[NodeId] {
        self.groups.get(group as usize).map_or(&[], Vec::as_slice)
    }

    /// Groups of which `node` is a home.
    pub(super) fn groups_of(&self, node: NodeId) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.groups).filter(move |(_, homes)| homes.contains(&node)).map(|(g, _)| g)
    }
}

/// What the judgement is made of.
pub(super) struct View<'a> {
    pub(super) map: &'a ClusterMap,
    pub(super) homes: &'a Homes,
    /// Nodes that can be reached now.
    pub(super) reachable: &'a BTreeSet<NodeId>,
    pub(super) holdings: &'a Holdings,
    /// Degraded groups; false: somebody who may have had the only copy cannot be reached.
    pub(super) degraded: &'a BTreeMap<u32, bool>,
    /// Groups that are being pulled or dropped.
    pub(super) busy: &'a HashSet<u32>,
}

/// A home lacks chunks.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) group: u32,
    pub(super) home: NodeId,
    /// How many nodes hold the group as far as is known.
    pub(super) copies: usize,
    pub(super) degraded: bool,
    /// The last pull failed: not together with others.
    pub(super) failed: bool,
    /// Chunks that the home has.
    pub(super) has: u64,
    /// Who has something, and what.
    pub(super) sources: Vec<(NodeId, Digest)>,
    /// Estimate.
    pub(super) bytes: u64,
}

/// A node that is no home of the group holds what all homes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) group: u32,
    pub(super) node: NodeId,
    /// What it held.
    pub(super) digest: Digest,
}

/// What there is to do.
#[derive(Debug, Default)]
pub(super) struct Assessment {
    /// Most urgent first; at most one for each group that is not busy.
    pub(super) needs: Vec<Need>,
    pub(super) excess: Vec<Excess>,
    /// Degraded groups that are whole.
    pub(super) healed: Vec<u32>,
    /// Something can only be told by asking again.
    pub(super) unsure: bool,
    /// For people; progress is not in it.
    pub(super) status: pb::RepairStatus,
}

/// One group and who holds it.
struct Case<'a> {
    group: u32,
    homes: &'a [NodeId],
    /// Nodes that have told, those without chunks of the group included if they are homes.
    held: Vec<Held>,
}

impl Case<'_> {
    fn held(&self, node: NodeId) -> Option<&Held> {
        self.held.iter().find(|held| held.node == node)
    }

    fn others(&self, node: NodeId) -> Vec<Held> {
        let other = |held: &&Held| held.node != node && !held.digest.is_empty();
        self.held.iter().filter(other).copied().collect()
    }

    /// Nodes that hold about as much as the one that holds most.
    fn copies(&self) -> usize {
        let most = self.held.iter().map(|held| held.digest.chunks).max().unwrap_or(0);
        self.held.iter().filter(|held| held.digest.chunks > most / 2).count()
    }
}

/// Looks at every group.
pub(super) fn assess(view: &View<'_>, ledger: &mut Ledger, now: Instant) -> Assessment {
    let mut found = Assessment::default();
    let mut shares = BTreeMap::new();
    for node in view.reachable.iter().filter(|node| view.holdings.of(**node).is_some()) {
        shares.insert(*node, pb::NodeShare { node_id: node.to_string(), ..Default::default() });
    }
    for case in cases(view) {
        look(view, ledger, &case, now, &mut found, &mut shares);
    }
    found.needs.sort_by_key(|need| (need.copies, !need.degraded, need.has, need.group));
    found.status.nodes = shares.into_values().collect();
    found.status.known = true;
    found
}

fn cases<'a>(view: &View<'a>) -> Vec<Case<'a>> {
    let mut cases: BTreeMap<u32, Case<'a>> = BTreeMap::new();
    let case = |group| Case { group, homes: view.homes.get(group), held: Vec::new() };
    for node in view.reachable {
        let Some((digests, as_of)) = view.holdings.of(*node) else { continue };
        for (group, digest) in digests {
            let held = Held { node: *node, digest: *digest, as_of };
            cases.entry(*group).or_insert_with(|| case(*group)).held.push(held);
        }
    }
    for group in view.degraded.keys() {
        cases.entry(*group).or_insert_with(|| case(*group));
    }
    for case in cases.values_mut() {
        for home in case.homes {
            if view.reachable.contains(home)
                && case.held(*home).is_none()
                && let Some((_, as_of)) = view.holdings.of(*home)
            {
                case.held.push(Held { node: *home, digest: Digest::default(), as_of });
            }
        }
    }
    cases.into_values().collect()
}

fn look(
    view: &View<'_>,
    ledger: &mut Ledger,
    case: &Case<'_>,
    now: Instant,
    found: &mut Assessment,
    shares: &mut BTreeMap<NodeId, pb::NodeShare>,
) {
    let group = case.group;
    let left_alone = |id| view.map.node(id).is_none_or(|node| node.state == NodeState::Maintenance);
    let mut share = |id: NodeId, add: &dyn Fn(&mut pb::NodeShare)| {
        let fresh = || pb::NodeShare { node_id: id.to_string(), ..Default::default() };
        add(shares.entry(id).or_insert_with(fresh));
    };
    let status = &mut found.status;
    let mut complete = case.homes.len() >= view.map.replicas as usize;
    let mut lacking: Option<Need> = None;
    let (mut whole, mut damaged) = (true, false);
    for home in case.homes {
        let own = match case.held(*home) {
            Some(own) if !left_alone(*home) => own,
            _ => {
                complete = false;
                continue;
            }
        };
        let others = case.others(*home);
        let seat = (group, *home);
        let verdict = ledger.judge(seat, own, &others, now);
        found.unsure |= verdict == Verdict::Unsure;
        whole &= verdict == Verdict::Whole;
        if !matches!(verdict, Verdict::Lacking | Verdict::Resting) {
            continue;
        }
        damaged = true;
        let most = others.iter().max_by_key(|held| held.digest.bytes).map(|held| held.digest);
        let most = most.unwrap_or_default();
        let bytes = most.bytes.saturating_sub(own.digest.bytes);
        status.bytes_to_move += bytes;
        status.chunks_to_move += most.chunks.saturating_sub(own.digest.chunks);
        share(*home, &|share| share.bytes_to_get += bytes);
        let poorer = lacking.as_ref().is_none_or(|need| own.digest.chunks < need.has);
        if verdict == Verdict::Lacking && poorer {
            lacking = Some(Need {
                group,
                home: *home,
                copies: case.copies(),
                degraded: view.degraded.contains_key(&group),
                failed: ledger.has_failed(seat),
                has: own.digest.chunks,
                sources: others.iter().map(|held| (held.node, held.digest)).collect(),
                bytes,
            });
        }
    }
    status.groups_not_whole += u32::from(damaged);
    status.groups_waiting += u32::from(!complete);
    let busy = view.busy.contains(&group);
    found.needs.extend(lacking.filter(|_| !busy));
    let mut elsewhere = false;
    for held in &case.held {
        let digest = held.digest;
        share(held.node, &|share| {
            share.chunks += digest.chunks;
            share.bytes += digest.bytes;
        });
        if case.homes.contains(&held.node) || digest.is_empty() {
            continue;
        }
        elsewhere = true;
        share(held.node, &|share| {
            share.chunks_to_give += digest.chunks;
            share.bytes_to_give += digest.bytes;
        });
        let covered = |home: &NodeId| {
            case.held(*home).is_some_and(|own| ledger.covers((group, *home), own, held))
        };
        if complete && !busy && !left_alone(held.node) && case.homes.iter().all(covered) {
            found.excess.push(Excess { group, node: held.node, digest });
        }
    }
    status.groups_to_drop += u32::from(elsewhere && !damaged && complete);
    if complete && whole && !busy && view.degraded.get(&group) == Some(&true) {
        found.healed.push(group);
    }
}

#[cfg(test)]
mod tests;
