//! Safe mode: a master that has just started knows the nodes by name only. Until enough of them have
//! reported it neither repairs nor drops nor collects garbage: what looks lost may be about to come back.
//!
//! Settled is: every node has reported that was neither down, out nor in maintenance before the start; or
//! the grace is over and so few nodes are missing that at least one copy of everything can be reached. Once
//! settled, always settled: later losses have their own delays.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use cairn_proto::{NodeId, NodeState};

use super::{Cluster, membership::Membership};

/// How far the start has got.
#[derive(Debug)]
pub(super) struct Settling {
    settled: AtomicBool,
    grace: Duration,
    started: Instant,
    /// Nodes that may hold copies which are nowhere else: all that were not out before the start.
    expected: BTreeSet<NodeId>,
}

impl Settling {
    pub(super) fn new(grace: Duration, membership: &Membership) -> Self {
        let settled = AtomicBool::new(!membership.awaits_any());
        let started = Instant::now();
        Self { settled, grace, started, expected: expected(membership) }
    }
}

fn expected(members: &Membership) -> BTreeSet<NodeId> {
    let kept = members.members().filter(|m| match m.node.state {
        NodeState::Up
        | NodeState::Suspect
        | NodeState::Down
        | NodeState::Draining
        | NodeState::Maintenance => true,
        NodeState::Out => false,
    });
    kept.map(|m| m.node.id).collect()
}

/// Whether so few of the `expected` are missing that the others hold a copy of everything. Those that have
/// gone out since the start are missing all the same; those that people removed are not.
fn enough(expected: &BTreeSet<NodeId>, members: &Membership, now: Instant) -> bool {
    let known = expected.iter().filter_map(|id| members.get(*id));
    let (there, missing): (Vec<_>, Vec<_>) =
        known.partition(|m| m.is_reachable(now, members.patience()));
    !there.is_empty() && missing.len() < members.settings().replicas as usize
}

impl Cluster {
    /// Whether enough nodes have reported since the start of this master. Garbage collection asks too.
    pub(crate) fn is_settled(&self) -> bool {
        self.settling.settled.load(Ordering::Acquire)
    }

    /// Why repair and garbage collection still wait, as a sentence.
    pub(crate) fn unsettled_because(&self) -> Option<String> {
        if self.is_settled() {
            return None;
        }
        self.with(|members, _| {
            let awaited = members.members().filter(|m| m.is_awaited());
            let names: Vec<_> = awaited.map(|m| m.node.name.clone()).collect();
            Some(format!(
                "since its start the master has not heard of {}: it repairs nothing and deletes nothing \
                 until it has, or until at least all nodes but {} are there",
                names.join(", "),
                members.settings().replicas.saturating_sub(1)
            ))
        })
    }

    /// Time has passed.
    pub(super) fn settle(&self) {
        if self.is_settled() {
            return;
        }
        let in_grace = self.settling.started.elapsed() < self.settling.grace;
        let settled = self.with(|members, now| {
            !members.awaits_any() || (!in_grace && enough(&self.settling.expected, members, now))
        });
        if settled {
            self.settling.settled.store(true, Ordering::Release);
            tracing::info!("enough nodes have reported: repair and garbage collection may run");
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::Node;
    use uuid::Uuid;

    use super::*;
    use crate::cluster::membership::{Known, LinkId, Patience, Settings};

    fn node(number: u128) -> Node {
        Node {
            id: NodeId(Uuid::from_u128(number)),
            host: "127.0.0.1".into(),
            port: 9001,
            weight: 1,
            zone: String::new(),
            state: NodeState::Up,
            name: format!("node{number}"),
        }
    }

    #[test]
    fn all_but_as_many_as_there_are_spare_copies_are_enough_after_the_grace() {
        let t = Instant::now();
        let second = Duration::from_secs(1);
        let patience =
            Patience { suspect_after: second, down_after: second * 2, out_after: second * 3 };
        let compression = cairn_proto::Compression::Off;
        let settings = Settings { replicas: 2, min_replicas: 1, compression };
        let nodes = (1..=3).map(node).collect();
        let known = Known { nodes, removed: BTreeSet::new(), settings };
        let mut members = Membership::new(patience, known, t);
        let expected = expected(&members);
        members.report(LinkId(1), node(1), None, t).unwrap();
        assert!(!enough(&expected, &members, t), "two are missing, and there are two copies");
        members.report(LinkId(2), node(2), None, t).unwrap();
        assert!(enough(&expected, &members, t), "one is missing");
        assert!(members.awaits_any());
        let later = t + second * 10;
        members.report(LinkId(1), node(1), None, later).unwrap();
        members.report(LinkId(4), node(4), None, later).unwrap();
        members.tick(t + second * 9);
        members.tick(later);
        assert!(!enough(&expected, &members, later), "a new node does not stand for an old one");
        members.remove(node(2).id);
        assert!(enough(&expected, &members, later), "people say that it is gone for good");
    }
}
