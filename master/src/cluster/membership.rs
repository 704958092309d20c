//! Which storage nodes there are and what is thought of each: pure transitions, no clock, no tasks.
//!
//! A node is *up* while something vouches for it (its own report stream, or probes for a node that was
//! registered by a call), *suspect* as soon as nothing does, *down* after a longer silence or when it
//! said that it leaves. One whose disks have all failed is suspect at best: it may still be read from,
//! and takes no writes. Every caller passes the time; nothing here waits. [`Membership::take_changed`]
//! hands out the nodes once after each change that belongs into a new cluster map.
//!
//! An empty name marks a node that was registered by a call: those have no stream of their own.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cairn_proto::{Node, NodeId, NodeState, limits::NODES_MAX, pb};
use thiserror::Error;

use crate::nodes::probe::Health;

const GIB: u64 = 1 << 30;
/// How long a node that was not reachable stays suspect although it reports.
const DISTRUST: Duration = Duration::from_secs(3);

/// One report stream of a node; a node that connects again has a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkId(pub(crate) u64);

/// How long silence is put up with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Silence that makes a node suspect.
    pub(crate) suspect_after: Duration,
    /// Silence that makes it down.
    pub(crate) down_after: Duration,
}

/// Why a node is not taken in.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// Another process answers to the same id.
    #[error(
        "node {id} is served from {there} at this moment: two nodes cannot have one id. \
         Was a data directory copied? Format a new one for the second node"
    )]
    Twin { id: NodeId, there: String },
    /// The map is full.
    #[error("the cluster has {NODES_MAX} nodes already, which is the most it can have")]
    TooMany,
}

/// What speaks for a node being alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voucher {
    /// Nothing.
    None,
    /// Its report stream.
    Stream(LinkId),
    /// Our own probes.
    Probe,
}

/// A node and what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// As it stands in the map.
    pub(crate) node: Node,
    /// What it last said about itself.
    pub(crate) status: Option<pb::NodeStatusResponse>,
    /// When it was last heard of; for a node known from before, when this master started.
    pub(crate) heard: Instant,
    voucher: Voucher,
    left: bool,
    distrusted_until: Option<Instant>,
    /// Known from before a restart, expected to report soon.
    awaited: bool,
}

impl Member {
    fn new(node: Node, now: Instant) -> Self {
        Self {
            node,
            status: None,
            heard: now,
            voucher: Voucher::None,
            left: false,
            distrusted_until: None,
            awaited: false,
        }
    }

    /// Whether the node was registered by a call and has no report stream.
    pub(crate) fn is_foreign(&self) -> bool {
        self.node.name.is_empty()
    }

    /// Whether a probe shall tell how it is.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.is_foreign() || self.distrusted_until.is_some()
    }

    fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    /// Whether it said that no disk of its is left that works.
    fn is_broken(&self) -> bool {
        self.status.as_ref().is_some_and(|status| Health::of(status) == Health::Broken)
    }

    fn vouched_for(&self, now: Instant, patience: &Patience) -> bool {
        self.voucher != Voucher::None && self.silence(now) < patience.suspect_after
    }

    fn state(&self, now: Instant, patience: &Patience) -> NodeState {
        match self.node.state {
            // Set by people; reports do not change them.
            NodeState::Draining | NodeState::Maintenance => return self.node.state,
            NodeState::Up | NodeState::Suspect | NodeState::Down | NodeState::Out => {}
        }
        if self.left || self.silence(now) >= patience.down_after {
            return NodeState::Down;
        }
        let distrusted = self.distrusted_until.is_some_and(|until| now < until);
        if self.vouched_for(now, patience) && !distrusted && !self.is_broken() {
            NodeState::Up
        } else {
            NodeState::Suspect
        }
    }
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Membership {
    patience: Patience,
    members: BTreeMap<uuid::Uuid, Member>,
    changed: bool,
}

impl Membership {
    /// The nodes that were known before this master started: suspect until they report, unless they
    /// were down.
    pub(crate) fn new(patience: Patience, known: Vec<Node>, now: Instant) -> Self {
        let member = |node: Node| {
            let mut member = Member::new(node, now);
            member.left = member.node.state == NodeState::Down;
            member.awaited = !member.left;
            if member.awaited {
                member.node.state = member.state(now, &patience);
            }
            (member.node.id.0, member)
        };
        Self { patience, members: known.into_iter().map(member).collect(), changed: false }
    }

    /// Every member, in the order of the ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The member with this id.
    pub(crate) fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id.0)
    }

    /// The nodes as they belong into a new map, if anything changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Option<Vec<Node>> {
        std::mem::take(&mut self.changed)
            .then(|| self.members.values().map(|m| m.node.clone()).collect())
    }

    /// Whether [`Membership::take_changed`] would hand out something.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    /// The last change could not be published.
    pub(crate) fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// Whether a node that was there before the restart has still not been heard of.
    pub(crate) fn awaits_any(&self) -> bool {
        self.members.values().any(|m| m.awaited)
    }

    /// The node reports over the stream `link`. `node.state` and `node.weight` are ignored.
    ///
    /// # Errors
    /// When a second process uses the id, or the map is full.
    pub(crate) fn report(
        &mut self,
        link: LinkId,
        node: Node,
        status: Option<pb::NodeStatusResponse>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let patience = self.patience;
        let id = node.id;
        let named = Node { name: or_address(&node), ..node };
        let member = self.member(&named, now)?;
        if member.voucher != Voucher::Stream(link)
            && matches!(member.voucher, Voucher::Stream(_))
            && member.silence(now) < patience.suspect_after
            && member.node.address() != named.address()
        {
            return Err(Refusal::Twin { id, there: member.node.address() });
        }
        let weight = weight(member.node.weight, status.as_ref());
        let fresh = Node { state: member.node.state, weight, ..named };
        let differs = member.node != fresh;
        member.node = fresh;
        if status.is_some() {
            member.status = status;
        }
        member.voucher = Voucher::Stream(link);
        member.heard = now;
        member.left = false;
        member.awaited = false;
        self.changed |= differs;
        self.settle(id, now);
        Ok(())
    }

    /// The stream `link` of the node broke.
    pub(crate) fn lost(&mut self, id: NodeId, link: LinkId, now: Instant) {
        self.unvouch(id, link, false, now);
    }

    /// The node said over `link` that it stops.
    pub(crate) fn leaving(&mut self, id: NodeId, link: LinkId, now: Instant) {
        self.unvouch(id, link, true, now);
    }

    fn unvouch(&mut self, id: NodeId, link: LinkId, left: bool, now: Instant) {
        if let Some(member) = self.members.get_mut(&id.0)
            && member.voucher == Voucher::Stream(link)
        {
            member.voucher = Voucher::None;
            member.left |= left;
            self.settle(id, now);
        }
    }

    /// A call registers the node; `health` says how it was found.
    ///
    /// # Errors
    /// When a node with this id reports from another address, or the map is full.
    pub(crate) fn register(
        &mut self,
        node: Node,
        health: Health,
        now: Instant,
    ) -> Result<(), Refusal> {
        let patience = self.patience;
        let id = node.id;
        if let Some(member) = self.get(id)
            && matches!(member.voucher, Voucher::Stream(_))
            && member.silence(now) < patience.suspect_after
        {
            let there = member.node.address();
            return if there == node.address() { Ok(()) } else { Err(Refusal::Twin { id, there }) };
        }
        let member = self.member(&node, now)?;
        let fresh = Node { state: member.node.state, weight: member.node.weight.max(1), ..node };
        let differs = member.node != fresh;
        member.node = fresh;
        member.voucher = Voucher::None;
        member.left = false;
        member.awaited = false;
        self.changed |= differs;
        self.probed(id, health, now);
        Ok(())
    }

    /// A probe says how the node is: all there is to go by for one that was registered by a call, and
    /// the end or the continuation of distrust.
    pub(crate) fn probed(&mut self, id: NodeId, health: Health, now: Instant) {
        let Some(member) = self.members.get_mut(&id.0) else { return };
        if member.distrusted_until.is_some() || health == Health::Broken {
            member.distrusted_until = (health != Health::Well).then(|| now + DISTRUST);
        }
        if member.is_foreign() {
            if health == Health::Gone {
                member.voucher = Voucher::None;
            } else {
                member.voucher = Voucher::Probe;
                member.heard = now;
                member.left = false;
            }
            member.awaited = false;
        }
        self.settle(id, now);
    }

    /// The node could not be used although it reports: suspect until a probe succeeds or, when none
    /// is made, for a few seconds.
    pub(crate) fn distrust(&mut self, id: NodeId, now: Instant) {
        if let Some(member) = self.members.get_mut(&id.0) {
            member.distrusted_until = Some(now + DISTRUST);
            self.settle(id, now);
        }
    }

    /// This process itself was away for `away`: silence during that time proves nothing.
    pub(crate) fn forgive(&mut self, away: Duration, now: Instant) {
        for member in self.members.values_mut() {
            member.heard = (member.heard + away).min(now);
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        let ids: Vec<_> = self.members.values().map(|m| m.node.id).collect();
        ids.into_iter().for_each(|id| self.settle(id, now));
    }

    fn settle(&mut self, id: NodeId, now: Instant) {
        if let Some(member) = self.members.get_mut(&id.0) {
            let state = member.state(now, &self.patience);
            if state != member.node.state {
                member.node.state = state;
                self.changed = true;
            }
        }
    }

    /// The member that `node` names, made suspect and without weight when it is new.
    fn member(&mut self, node: &Node, now: Instant) -> Result<&mut Member, Refusal> {
        if !self.members.contains_key(&node.id.0) {
            if self.members.len() >= NODES_MAX {
                return Err(Refusal::TooMany);
            }
            let fresh = Node { state: NodeState::Suspect, weight: 0, ..node.clone() };
            self.members.insert(node.id.0, Member::new(fresh, now));
            self.changed = true;
        }
        Ok(self.members.get_mut(&node.id.0).expect("it was there or has just been put there"))
    }
}

fn or_address(node: &Node) -> String {
    if node.name.is_empty() { node.address() } else { node.name.clone() }
}

/// The weight for what the node says about its disks: GiB of capacity, at least 1. Differences of
/// less than an eighth are ignored, because every change of a weight moves data; so is a node without
/// any disk that works, because what it holds stays where it is looked for.
fn weight(before: u32, status: Option<&pb::NodeStatusResponse>) -> u32 {
    let Some(status) = status.filter(|status| Health::of(status) != Health::Broken) else {
        return before.max(1);
    };
    let capacity = status
        .disks
        .iter()
        .filter(|d| !d.failed)
        .fold(0u64, |sum, d| sum.saturating_add(d.capacity_bytes));
    let fresh = u32::try_from(capacity / GIB).unwrap_or(u32::MAX).clamp(1, 1 << 20);
    if before > 0 && fresh.abs_diff(before) < (before / 8).max(1) { before } else { fresh }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PATIENCE: Patience = Patience {
        suspect_after: Duration::from_millis(1500),
        down_after: Duration::from_secs(30),
    };

    fn node(number: u128, port: u16) -> Node {
        Node {
            id: NodeId(Uuid::from_u128(number)),
            host: "127.0.0.1".into(),
            port,
            weight: 0,
            zone: "a".into(),
            state: NodeState::Down,
            name: format!("node{number}"),
        }
    }

    fn disks(gib: u64) -> Option<pb::NodeStatusResponse> {
        let disk = pb::DiskStatus { capacity_bytes: gib * GIB, ..Default::default() };
        Some(pb::NodeStatusResponse { disks: vec![disk], ..Default::default() })
    }

    fn state(m: &Membership, number: u128) -> NodeState {
        m.get(NodeId(Uuid::from_u128(number))).unwrap().node.state
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_node_is_up_while_it_reports_then_suspect_then_down_then_up_again() {
        let t = Instant::now();
        let mut m = Membership::new(PATIENCE, vec![], t);
        m.report(LinkId(1), node(1, 9001), disks(100), t).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up);
        assert_eq!(m.take_changed().unwrap()[0].weight, 100);
        m.report(LinkId(1), node(1, 9001), disks(101), t + ms(500)).unwrap();
        m.tick(t + ms(1999));
        assert!(m.take_changed().is_none(), "a report that says nothing new makes no new map");
        m.tick(t + ms(2000));
        assert_eq!(state(&m, 1), NodeState::Suspect);
        m.tick(t + ms(30_500));
        assert_eq!(state(&m, 1), NodeState::Down);
        m.report(LinkId(2), node(1, 9001), disks(100), t + ms(31_000)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up);
    }

    #[test]
    fn a_broken_stream_counts_at_once_but_only_the_current_one() {
        let t = Instant::now();
        let id = node(1, 9001).id;
        let mut m = Membership::new(PATIENCE, vec![], t);
        m.report(LinkId(1), node(1, 9001), None, t).unwrap();
        m.report(LinkId(2), node(1, 9001), None, t + ms(10)).unwrap();
        m.lost(id, LinkId(1), t + ms(20));
        assert_eq!(state(&m, 1), NodeState::Up);
        m.lost(id, LinkId(2), t + ms(20));
        assert_eq!(state(&m, 1), NodeState::Suspect);
        m.report(LinkId(3), node(1, 9001), None, t + ms(30)).unwrap();
        m.leaving(id, LinkId(3), t + ms(40));
        assert_eq!(state(&m, 1), NodeState::Down);
    }

    #[test]
    fn a_second_process_with_the_same_id_is_refused_until_the_first_falls_silent() {
        let t = Instant::now();
        let mut m = Membership::new(PATIENCE, vec![], t);
        m.report(LinkId(1), node(1, 9001), None, t).unwrap();
        let e = m.report(LinkId(2), node(1, 9002), None, t + ms(100)).unwrap_err();
        assert!(e.to_string().contains("127.0.0.1:9001"), "{e}");
        m.report(LinkId(2), node(1, 9002), None, t + ms(1500)).unwrap();
        assert_eq!(m.get(node(1, 0).id).unwrap().node.port, 9002);
    }

    #[test]
    fn after_a_restart_known_nodes_are_suspect_until_they_report() {
        let t = Instant::now();
        let before = |number, state| Node { state, weight: 5, ..node(number, 9001) };
        let known = vec![before(1, NodeState::Up), before(2, NodeState::Down)];
        let mut m = Membership::new(PATIENCE, known, t);
        assert_eq!((state(&m, 1), state(&m, 2)), (NodeState::Suspect, NodeState::Down));
        assert!(m.awaits_any());
        m.report(LinkId(1), node(1, 9001), None, t + ms(100)).unwrap();
        assert!(!m.awaits_any());
        assert_eq!(state(&m, 1), NodeState::Up);
        assert_eq!(m.get(node(1, 0).id).unwrap().node.weight, 5);
    }

    #[test]
    fn distrust_outlasts_reports_and_ends() {
        let t = Instant::now();
        let mut m = Membership::new(PATIENCE, vec![], t);
        m.report(LinkId(1), node(1, 9001), None, t).unwrap();
        let id = node(1, 0).id;
        m.distrust(id, t);
        m.report(LinkId(1), node(1, 9001), None, t + ms(2900)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Suspect);
        m.report(LinkId(1), node(1, 9001), None, t + ms(3000)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up);
        m.distrust(id, t + ms(3000));
        m.probed(id, Health::Gone, t + ms(3500));
        m.report(LinkId(1), node(1, 9001), None, t + ms(6400)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Suspect, "a failed probe prolongs it");
        m.probed(id, Health::Well, t + ms(6400));
        assert_eq!(state(&m, 1), NodeState::Up);
    }

    #[test]
    fn a_registered_node_lives_by_probes() {
        let t = Instant::now();
        let foreign = Node { name: String::new(), ..node(1, 9001) };
        let mut m = Membership::new(PATIENCE, vec![], t);
        m.register(foreign.clone(), Health::Well, t).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up);
        m.probed(foreign.id, Health::Gone, t + ms(500));
        assert_eq!(state(&m, 1), NodeState::Suspect);
        m.probed(foreign.id, Health::Well, t + ms(1000));
        assert_eq!(state(&m, 1), NodeState::Up);
        m.report(LinkId(1), node(1, 9001), None, t + ms(1100)).unwrap();
        m.probed(foreign.id, Health::Gone, t + ms(1200));
        assert_eq!(state(&m, 1), NodeState::Up, "its own reports count for more");
        m.register(foreign, Health::Well, t + ms(1300)).unwrap();
        let elsewhere = Node { name: String::new(), ..node(1, 9009) };
        assert!(m.register(elsewhere, Health::Well, t + ms(1300)).is_err());
    }

    #[test]
    fn a_node_without_a_disk_that_works_is_suspect_until_it_says_otherwise() {
        let t = Instant::now();
        let mut m = Membership::new(PATIENCE, vec![], t);
        let failed = |all: bool| {
            let mut status = disks(50).unwrap();
            status.disks.extend(disks(50).unwrap().disks);
            status.disks[0].failed = true;
            status.disks[1].failed = all;
            Some(status)
        };
        m.report(LinkId(1), node(1, 9001), disks(100), t).unwrap();
        m.report(LinkId(1), node(1, 9001), failed(false), t + ms(100)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up, "one disk goes on");
        m.take_changed();
        m.report(LinkId(1), node(1, 9001), failed(true), t + ms(200)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Suspect);
        assert_eq!(m.take_changed().unwrap()[0].weight, 50, "its chunks are looked for as before");
        m.report(LinkId(1), node(1, 9001), failed(true), t + ms(60_000)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Suspect, "it is there, though");
        m.report(LinkId(2), node(1, 9001), disks(50), t + ms(60_100)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up);
    }

    #[test]
    fn a_registered_node_whose_disks_failed_is_suspect_but_there() {
        let t = Instant::now();
        let foreign = Node { name: String::new(), ..node(1, 9001) };
        let mut m = Membership::new(PATIENCE, vec![], t);
        m.register(foreign.clone(), Health::Broken, t).unwrap();
        for seconds in 1..60 {
            m.probed(foreign.id, Health::Broken, t + ms(1000 * seconds));
            m.tick(t + ms(1000 * seconds + 500));
            assert_eq!(state(&m, 1), NodeState::Suspect);
        }
        m.probed(foreign.id, Health::Well, t + ms(60_000));
        assert_eq!(state(&m, 1), NodeState::Up);
    }

    #[test]
    fn silence_while_the_master_itself_was_away_proves_nothing() {
        let t = Instant::now();
        let mut m = Membership::new(PATIENCE, vec![], t);
        m.report(LinkId(1), node(1, 9001), None, t).unwrap();
        m.forgive(ms(60_000), t + ms(60_100));
        m.tick(t + ms(60_100));
        assert_eq!(state(&m, 1), NodeState::Up);
    }

    #[test]
    fn small_changes_of_capacity_do_not_move_data() {
        assert_eq!(weight(0, disks(0).as_ref()), 1);
        assert_eq!(weight(100, disks(110).as_ref()), 100);
        assert_eq!(weight(100, disks(150).as_ref()), 150);
        assert_eq!(weight(1, disks(2).as_ref()), 2);
        assert_eq!(weight(7, None), 7);
    }
}
