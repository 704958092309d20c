//! Safe mode: a master that has just started knows the nodes by name only. Until enough of them have
//! reported it neither repairs nor drops nor collects garbage: what looks lost may be about to come back.
//!
//! Settled is: every node has reported that was neither down, out nor in maintenance before the start; or
//! the grace is over and so few nodes are missing that at least one copy of everything can be reached. Once
//! settled, always settled: later losses have their own delays.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use cairn_proto::NodeState;

use super::{Cluster, membership::Membership};

/// How far the start has got.
#[derive(Debug)]
pub(super) struct Settling {
    settled: AtomicBool,
    grace: Duration,
    started: Instant,
}

impl Settling {
    pub(super) fn new(grace: Duration, membership: &Membership) -> Self {
        let settled = AtomicBool::new(!membership.awaits_any());
        Self { settled, grace, started: Instant::now() }
    }
}

/// Whether the nodes that are there after the grace hold a copy of everything.
fn enough(members: &Membership, now: Instant) -> bool {
    let counted = |state| match state {
        NodeState::Up
        | NodeState::Suspect
        | NodeState::Down
        | NodeState::Draining
        | NodeState::Maintenance => true,
        NodeState::Out => false,
    };
    let expected = members.members().filter(|m| counted(m.node.state)).count();
    let there = members.members().filter(|m| m.is_reachable(now, members.patience())).count();
    there > 0 && there + (members.copies().replicas as usize) > expected
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
                members.copies().replicas.saturating_sub(1)
            ))
        })
    }

    /// Time has passed.
    pub(super) fn settle(&self) {
        if self.is_settled() {
            return;
        }
        let in_grace = self.settling.started.elapsed() < self.settling.grace;
        let settled =
            self.with(|members, now| !members.awaits_any() || (!in_grace && enough(members, now)));
        if settled {
            self.settling.settled.store(true, Ordering::Release);
            tracing::info!("enough nodes have reported: repair and garbage collection may run");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cairn_proto::{Node, NodeId};
    use uuid::Uuid;

    use super::*;
    use crate::cluster::membership::{Copies, Known, LinkId, Patience};

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
        let copies = Copies { replicas: 2, min_replicas: 1 };
        let nodes = (1..=3).map(node).collect();
        let known = Known { nodes, removed: BTreeSet::new(), copies };
        let mut members = Membership::new(patience, known, t);
        members.report(LinkId(1), node(1), None, t).unwrap();
        assert!(!enough(&members, t), "two are missing, and there are two copies");
        members.report(LinkId(2), node(2), None, t).unwrap();
        assert!(enough(&members, t), "one is missing");
        assert!(members.awaits_any());
        assert!(!enough(&members, t + second * 2), "nobody is there any more");
    }
}
