//! Which storage nodes there are and what is thought of each: pure transitions, no clock, no tasks.
//!
//! What people decide about a node (draining, maintenance) stands whatever it reports. Otherwise a node
//! is *up* while something vouches for it (its own report stream, or probes for a node that was
//! registered by a call), *suspect* as soon as nothing does, *down* after a longer silence or when it
//! said that it leaves, and *out* after a longer time still, if enough other nodes are up to take its
//! copies over. One whose disks have all failed is suspect at best: it may still be read from, takes no
//! writes, and is out after the same time. A node that was out and reports is up again. Every caller passes
//! the time; nothing here waits. [`Membership::take_changed`] hands out the nodes once after each change
//! that belongs into a new cluster map.
//!
//! An empty name marks a node that was registered by a call: those have no stream of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use cairn_proto::{Compression, Node, NodeId, NodeState, limits::NODES_MAX, pb};
use thiserror::Error;

use super::weight::weight;
use crate::{nodes::probe::Health, repair::Reported};

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
    /// How long a node is down before its copies are made elsewhere.
    pub(crate) out_after: Duration,
}

/// What holds for the whole file system and can be changed while it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Copies wanted of every chunk.
    pub(crate) replicas: u32,
    /// Copies without which a write fails.
    pub(crate) min_replicas: u32,
    /// What clients do with new chunks.
    pub(crate) compression: Compression,
}

/// What was known before this master started.
#[derive(Debug)]
pub(crate) struct Known {
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// Ids of nodes that people have removed for good.
    pub(crate) removed: BTreeSet<uuid::Uuid>,
    /// The settings.
    pub(crate) settings: Settings,
}

/// What belongs into a new map.
#[derive(Debug)]
pub(crate) struct Change {
    /// All nodes.
    pub(crate) nodes: Vec<Node>,
    /// The settings.
    pub(crate) settings: Settings,
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
    /// People have removed it.
    #[error(
        "node {id} was removed from the cluster: format a new data directory for it, \
         or take it back with `cairn node resume {id}`"
    )]
    Removed { id: NodeId },
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
    /// Changes with every change of what it holds.
    digest_version: u64,
    /// When it was last heard of; for a node known from before, when this master started.
    pub(crate) heard: Instant,
    voucher: Voucher,
    left: bool,
    /// Since when it is down, or without a disk that works.
    lost_since: Option<Instant>,
    distrusted_until: Option<Instant>,
    /// Known from before a restart, expected to report soon.
    awaited: bool,
}

impl Member {
    fn new(node: Node, now: Instant) -> Self {
        Self {
            node,
            status: None,
            digest_version: 0,
            heard: now,
            voucher: Voucher::None,
            left: false,
            lost_since: None,
            distrusted_until: None,
            awaited: false,
        }
    }

    /// Whether the node was registered by a call and has no report stream.
    pub(crate) fn is_foreign(&self) -> bool {
        self.node.name.is_empty()
    }

    /// What repair goes by.
    pub(crate) fn reported(&self) -> Reported {
        let damaged_chunks = self.status.as_ref().map_or(0, |status| status.damaged_chunks);
        let link = match self.voucher {
            Voucher::Stream(link) => Some(link.0),
            Voucher::None | Voucher::Probe => None,
        };
        Reported { digest_version: self.digest_version, damaged_chunks, link }
    }

    /// Whether it was there before the restart and has still not been heard of.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited
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

    /// Whether it can be read from now, as far as is known, whatever people decided about it.
    pub(crate) fn is_reachable(&self, now: Instant, patience: &Patience) -> bool {
        let distrusted = self.distrusted_until.is_some_and(|until| now < until);
        !self.left && self.vouched_for(now, patience) && !distrusted && !self.is_broken()
    }

    /// The state that follows from what was heard. `roomy`: enough other nodes are up to take over.
    fn state(&self, now: Instant, patience: &Patience, roomy: bool) -> NodeState {
        match self.node.state {
            // Set by people; reports do not change them.
            NodeState::Draining | NodeState::Maintenance => return self.node.state,
            NodeState::Up | NodeState::Suspect | NodeState::Down | NodeState::Out => {}
        }
        if self.is_reachable(now, patience) {
            return NodeState::Up;
        }
        let lost_for = self.lost_since.map(|since| now.saturating_duration_since(since));
        let was_out = self.node.state == NodeState::Out;
        if lost_for.is_some_and(|lost| was_out || (lost >= patience.out_after && roomy)) {
            NodeState::Out
        } else if self.is_down(now, patience) {
            NodeState::Down
        } else {
            NodeState::Suspect
        }
    }

    fn is_down(&self, now: Instant, patience: &Patience) -> bool {
        self.left || self.silence(now) >= patience.down_after
    }
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Membership {
    patience: Patience,
    settings: Settings,
    members: BTreeMap<uuid::Uuid, Member>,
    removed: BTreeSet<uuid::Uuid>,
    changed: bool,
}

impl Membership {
    /// The nodes that were known before this master started: suspect until they report, unless they
    /// were down. All but those, and but the ones that are away on purpose, are awaited.
    pub(crate) fn new(patience: Patience, known: Known, now: Instant) -> Self {
        let Known { nodes, removed, settings } = known;
        let member = |node: Node| {
            let mut member = Member::new(node, now);
            let gone = matches!(member.node.state, NodeState::Down | NodeState::Out);
            member.left = gone;
            member.lost_since = gone.then_some(now);
            member.awaited = !gone && member.node.state != NodeState::Maintenance;
            if member.awaited {
                member.node.state = member.state(now, &patience, false);
            }
            (member.node.id.0, member)
        };
        let nodes = nodes.into_iter().filter(|node| !removed.contains(&node.id.0));
        let members = nodes.map(member).collect();
        Self { patience, settings, members, removed, changed: false }
    }

    /// How long silence is put up with.
    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// What holds for the whole file system.
    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    /// Something else holds from now on.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        self.changed |= self.settings != settings;
        self.settings = settings;
    }

    /// Ids of the nodes that were removed for good.
    pub(crate) fn removed(&self) -> &BTreeSet<uuid::Uuid> {
        &self.removed
    }

    /// Every member, in the order of the ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The member with this id.
    pub(crate) fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id.0)
    }

    /// What belongs into a new map, if anything changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Option<Change> {
        std::mem::take(&mut self.changed).then(|| Change {
            nodes: self.members.values().map(|m| m.node.clone()).collect(),
            settings: self.settings,
        })
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

    /// The node says which version its digests have.
    pub(crate) fn note_digests(&mut self, id: NodeId, version: u64) {
        if let Some(member) = self.members.get_mut(&id.0) {
            member.digest_version = version;
        }
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

    /// People want the node emptied, left alone, or (`None`) used like any other.
    pub(crate) fn decide(&mut self, id: NodeId, wish: Option<NodeState>, now: Instant) {
        if let Some(member) = self.members.get_mut(&id.0) {
            let state = wish.unwrap_or(NodeState::Suspect);
            let decided = matches!(member.node.state, NodeState::Draining | NodeState::Maintenance);
            if (wish.is_some() || decided) && member.node.state != state {
                member.node.state = state;
                self.changed = true;
            }
            self.settle(id, now);
        }
    }

    /// People have removed the node for good: it is forgotten, and refused when it reports.
    pub(crate) fn remove(&mut self, id: NodeId) {
        self.removed.insert(id.0);
        self.changed |= self.members.remove(&id.0).is_some();
    }

    /// A node that was removed may report again.
    pub(crate) fn readmit(&mut self, id: NodeId) {
        self.removed.remove(&id.0);
    }

    /// This process itself was away for `away`: silence during that time proves nothing.
    pub(crate) fn forgive(&mut self, away: Duration, now: Instant) {
        for member in self.members.values_mut() {
            member.heard = (member.heard + away).min(now);
            member.lost_since = member.lost_since.map(|since| (since + away).min(now));
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        let ids: Vec<_> = self.members.values().map(|m| m.node.id).collect();
        ids.into_iter().for_each(|id| self.settle(id, now));
    }

    fn settle(&mut self, id: NodeId, now: Instant) {
        let roomy = self.has_room_without(id);
        if let Some(member) = self.members.get_mut(&id.0) {
            let lost = member.is_down(now, &self.patience) || member.is_broken();
            member.lost_since = lost.then(|| member.lost_since.unwrap_or(now));
            let state = member.state(now, &self.patience, roomy);
            if state != member.node.state {
                member.node.state = state;
                self.changed = true;
            }
        }
    }

    /// Whether as many other nodes are up as there are to be copies.
    fn has_room_without(&self, id: NodeId) -> bool {
        let others = self.members.values().filter(|m| m.node.id != id);
        let up = others.filter(|m| m.node.state == NodeState::Up && m.node.weight > 0).count();
        up >= self.settings.replicas as usize
    }

    /// The member that `node` names, made suspect and without weight when it is new.
    fn member(&mut self, node: &Node, now: Instant) -> Result<&mut Member, Refusal> {
        if self.removed.contains(&node.id.0) {
            return Err(Refusal::Removed { id: node.id });
        }
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const GIB: u64 = 1 << 30;
    const PATIENCE: Patience = Patience {
        suspect_after: Duration::from_millis(1500),
        down_after: Duration::from_secs(30),
        out_after: Duration::from_secs(60),
    };

    fn membership(nodes: Vec<Node>, replicas: u32, now: Instant) -> Membership {
        let compression = Compression::Off;
        let settings = Settings { replicas, min_replicas: 1, compression };
        Membership::new(PATIENCE, Known { nodes, removed: BTreeSet::new(), settings }, now)
    }

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
        let mut m = membership(vec![], 2, t);
        m.report(LinkId(1), node(1, 9001), disks(100), t).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up);
        assert_eq!(m.take_changed().unwrap().nodes[0].weight, 100);
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
        let mut m = membership(vec![], 2, t);
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
        let mut m = membership(vec![], 2, t);
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
        let mut m = membership(known, 2, t);
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
        let mut m = membership(vec![], 2, t);
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
        let mut m = membership(vec![], 2, t);
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
        let mut m = membership(vec![], 2, t);
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
        assert_eq!(
            m.take_changed().unwrap().nodes[0].weight,
            50,
            "its chunks are looked for as before"
        );
        m.report(LinkId(1), node(1, 9001), failed(true), t + ms(60_000)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Suspect, "it is there, though");
        m.report(LinkId(2), node(1, 9001), disks(50), t + ms(60_100)).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up);
    }

    #[test]
    fn a_registered_node_whose_disks_failed_is_suspect_but_there() {
        let t = Instant::now();
        let foreign = Node { name: String::new(), ..node(1, 9001) };
        let mut m = membership(vec![], 2, t);
        m.register(foreign.clone(), Health::Broken, t).unwrap();
        for seconds in 1..60 {
            m.probed(foreign.id, Health::Broken, t + ms(1000 * seconds));
            m.tick(t + ms(1000 * seconds + 500));
            assert_eq!(state(&m, 1), NodeState::Suspect);
        }
        m.probed(foreign.id, Health::Well, t + ms(60_000));
        assert_eq!(state(&m, 1), NodeState::Up);
    }

    /// Nodes 1 to `count` report at `at`.
    fn all_report(m: &mut Membership, count: u128, at: Instant) {
        for number in 1..=count {
            let port = 9000 + u16::try_from(number).unwrap();
            let link = LinkId(u64::try_from(number).unwrap());
            m.report(link, node(number, port), disks(10), at).unwrap();
        }
    }

    #[test]
    fn a_node_that_stays_down_is_out_and_up_again_when_it_is_back() {
        let t = Instant::now();
        let mut m = membership(vec![], 2, t);
        all_report(&mut m, 3, t);
        for second in 0..120 {
            let now = t + ms(1000 * second);
            all_report(&mut m, 2, now);
            m.tick(now);
            let expected = match second {
                0..2 => NodeState::Up,
                2..30 => NodeState::Suspect,
                30..90 => NodeState::Down,
                _ => NodeState::Out,
            };
            assert_eq!(state(&m, 3), expected, "after {second} s");
        }
        let elsewhere = Node { port: 9999, ..node(3, 9003) };
        m.report(LinkId(9), elsewhere, disks(10), t + ms(120_000)).unwrap();
        assert_eq!(state(&m, 3), NodeState::Up);
        assert_eq!(m.get(node(3, 0).id).unwrap().node.port, 9999);
    }

    #[test]
    fn a_node_is_not_out_while_too_few_others_could_take_over() {
        let t = Instant::now();
        let mut m = membership(vec![], 2, t);
        all_report(&mut m, 2, t);
        for second in 1..200 {
            all_report(&mut m, 1, t + ms(1000 * second));
            m.tick(t + ms(1000 * second));
        }
        assert_eq!(state(&m, 2), NodeState::Down);
        m.report(LinkId(3), node(3, 9003), disks(10), t + ms(200_000)).unwrap();
        m.tick(t + ms(200_001));
        assert_eq!(state(&m, 2), NodeState::Out, "now there is room");
    }

    #[test]
    fn out_is_remembered_and_a_broken_node_gets_there_too() {
        let t = Instant::now();
        let known = vec![Node { state: NodeState::Out, weight: 5, ..node(3, 9003) }];
        let mut m = membership(known, 2, t);
        assert!(!m.awaits_any());
        let broken = || {
            let mut status = disks(10).unwrap();
            status.disks[0].failed = true;
            Some(status)
        };
        for second in 0..70 {
            let now = t + ms(1000 * second);
            all_report(&mut m, 2, now);
            m.report(LinkId(4), node(4, 9004), broken(), now).unwrap();
            m.tick(now);
            assert_eq!(state(&m, 3), NodeState::Out);
        }
        assert_eq!(state(&m, 4), NodeState::Out, "its disks are gone, though it reports");
        m.report(LinkId(4), node(4, 9004), disks(10), t + ms(70_000)).unwrap();
        assert_eq!(state(&m, 4), NodeState::Up);
    }

    #[test]
    fn what_people_decide_stands_whatever_the_node_does() {
        let t = Instant::now();
        let mut m = membership(vec![], 2, t);
        all_report(&mut m, 4, t);
        let (one, two) = (node(1, 0).id, node(2, 0).id);
        m.decide(one, Some(NodeState::Draining), t);
        m.decide(two, Some(NodeState::Maintenance), t);
        for second in 1..200 {
            let now = t + ms(1000 * second);
            m.report(LinkId(3), node(3, 9003), None, now).unwrap();
            m.report(LinkId(4), node(4, 9004), None, now).unwrap();
            m.tick(now);
        }
        assert_eq!((state(&m, 1), state(&m, 2)), (NodeState::Draining, NodeState::Maintenance));
        let t = t + ms(200_000);
        all_report(&mut m, 2, t);
        assert_eq!((state(&m, 1), state(&m, 2)), (NodeState::Draining, NodeState::Maintenance));
        let again = m.take_changed().unwrap().nodes;
        let mut restarted = membership(again, 2, t);
        assert_eq!(state(&restarted, 1), NodeState::Draining);
        assert_eq!(state(&restarted, 2), NodeState::Maintenance);
        all_report(&mut restarted, 4, t);
        for id in [one, two] {
            restarted.decide(id, None, t);
        }
        assert_eq!((state(&restarted, 1), state(&restarted, 2)), (NodeState::Up, NodeState::Up));
        m.decide(node(3, 0).id, None, t);
        assert_eq!(state(&m, 3), NodeState::Up, "nothing was decided about it");
    }

    #[test]
    fn a_removed_node_is_refused_until_it_is_taken_back() {
        let t = Instant::now();
        let mut m = membership(vec![], 1, t);
        all_report(&mut m, 2, t);
        m.take_changed();
        let id = node(1, 0).id;
        m.remove(id);
        assert_eq!(m.take_changed().unwrap().nodes.len(), 1);
        let refused = m.report(LinkId(7), node(1, 9001), None, t).unwrap_err();
        assert!(refused.to_string().contains("cairn node resume"), "{refused}");
        assert!(m.register(node(1, 9001), Health::Well, t).is_err());
        let known = Known {
            nodes: vec![Node { weight: 1, ..node(1, 9001) }],
            removed: m.removed().clone(),
            settings: m.settings(),
        };
        assert_eq!(Membership::new(PATIENCE, known, t).members().count(), 0);
        m.readmit(id);
        m.report(LinkId(7), node(1, 9001), None, t).unwrap();
        assert_eq!(state(&m, 1), NodeState::Up);
    }

    #[test]
    fn other_settings_make_a_new_map() {
        let t = Instant::now();
        let mut m = membership(vec![], 2, t);
        m.set_settings(m.settings());
        assert!(m.take_changed().is_none());
        m.set_settings(Settings { replicas: 3, min_replicas: 2, ..m.settings() });
        assert_eq!(m.take_changed().unwrap().settings.replicas, 3);
        m.set_settings(Settings { compression: Compression::Lz4, ..m.settings() });
        assert_eq!(m.take_changed().unwrap().settings.compression, Compression::Lz4);
    }

    #[test]
    fn silence_while_the_master_itself_was_away_proves_nothing() {
        let t = Instant::now();
        let mut m = membership(vec![], 2, t);
        m.report(LinkId(1), node(1, 9001), None, t).unwrap();
        m.forgive(ms(60_000), t + ms(60_100));
        m.tick(t + ms(60_100));
        assert_eq!(state(&m, 1), NodeState::Up);
    }
}
