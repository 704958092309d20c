//! Clusters of a few nodes and a single group of interest: who is told to pull, who may let go.

use cairn_proto::Node;
use uuid::Uuid;

use super::*;
use crate::repair::{
    clock::{Clock, Tick},
    digests::{Digests, Told},
};

fn id(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

/// A cluster whose nodes hold what a test says of one group.
struct World {
    map: ClusterMap,
    homes: Homes,
    reachable: BTreeSet<NodeId>,
    holdings: Holdings,
    degraded: BTreeMap<u32, bool>,
    busy: HashSet<u32>,
    ledger: Ledger,
    clock: Clock,
}

impl World {
    fn new(nodes: u128, replicas: u32) -> Self {
        let node = |number| Node {
            id: id(number),
            host: "127.0.0.1".into(),
            port: 9001,
            weight: 1,
            zone: String::new(),
            state: NodeState::Up,
            name: format!("node{number}"),
        };
        let nodes = (1..=nodes).map(node).collect();
        let compression = cairn_proto::Compression::Off;
        let map =
            ClusterMap { epoch: 1, nodes, pg_bits: 4, replicas, min_replicas: 1, compression };
        let mut world = Self {
            homes: Homes::of(&map),
            reachable: map.nodes.iter().map(|node| node.id).collect(),
            map,
            holdings: Holdings::default(),
            degraded: BTreeMap::new(),
            busy: HashSet::new(),
            ledger: Ledger::default(),
            clock: Clock::default(),
        };
        let since = world.clock.tick();
        world.ledger.doubt_all(since);
        for number in 1..=world.map.nodes.len() as u128 {
            world.tell(id(number), &[]);
        }
        world
    }

    /// The node says what it has now; nothing of other groups.
    fn tell(&mut self, node: NodeId, groups: &[(u32, Digest)]) -> Tick {
        let asked = self.clock.tick();
        let digests: Digests = groups.iter().copied().collect();
        self.holdings.note(Told { node, asked, answer: Ok((digests, 1)) });
        asked
    }

    fn set_state(&mut self, node: NodeId, state: NodeState) {
        let node = self.map.nodes.iter_mut().find(|n| n.id == node).unwrap();
        node.state = state;
        self.homes = Homes::of(&self.map);
    }

    fn home(&self, which: usize) -> NodeId {
        self.homes.get(GROUP)[which]
    }

    /// A node that is no home of the group.
    fn stranger(&self) -> NodeId {
        let homes = self.homes.get(GROUP);
        self.map.nodes.iter().map(|n| n.id).find(|id| !homes.contains(id)).unwrap()
    }

    fn assess(&mut self) -> Assessment {
        let view = View {
            map: &self.map,
            homes: &self.homes,
            reachable: &self.reachable,
            holdings: &self.holdings,
            degraded: &self.degraded,
            busy: &self.busy,
        };
        assess(&view, &mut self.ledger, Instant::now())
    }
}

const GROUP: u32 = 5;

fn has(number: u8, chunks: u64) -> Digest {
    Digest { chunks, bytes: chunks * 1000, xor: [number; 32] }
}

#[test]
fn an_empty_home_is_filled_before_anybody_lets_go() {
    let mut world = World::new(3, 2);
    let (one, two, stranger) = (world.home(0), world.home(1), world.stranger());
    world.tell(one, &[(GROUP, has(1, 10))]);
    world.tell(stranger, &[(GROUP, has(1, 10))]);
    let found = world.assess();
    let [need] = &found.needs[..] else { panic!("{:?}", found.needs) };
    assert_eq!((need.group, need.home, need.copies, need.bytes), (GROUP, two, 2, 10_000));
    assert_eq!(need.sources.len(), 2);
    assert!(found.excess.is_empty());
    assert_eq!((found.status.groups_not_whole, found.status.groups_to_drop), (1, 0));

    world.tell(two, &[(GROUP, has(1, 10))]);
    let found = world.assess();
    assert!(found.needs.is_empty());
    assert_eq!(found.excess, [Excess { group: GROUP, node: stranger, digest: has(1, 10) }]);
    assert_eq!(found.status.groups_to_drop, 1);
    world.busy.insert(GROUP);
    assert!(world.assess().excess.is_empty(), "it is being worked on");
}

#[test]
fn nobody_lets_go_while_a_home_is_away_or_there_are_too_few() {
    let mut world = World::new(3, 2);
    let (one, two, stranger) = (world.home(0), world.home(1), world.stranger());
    for node in [one, two, stranger] {
        world.tell(node, &[(GROUP, has(1, 10))]);
    }
    assert_eq!(world.assess().excess.len(), 1);
    world.reachable.remove(&two);
    let found = world.assess();
    assert!(found.excess.is_empty() && found.needs.is_empty());
    assert_eq!(found.status.groups_waiting, 1);
    world.reachable.insert(two);
    world.set_state(two, NodeState::Maintenance);
    assert!(world.assess().excess.is_empty(), "what is in maintenance is not relied on");
    world.set_state(two, NodeState::Draining);
    world.set_state(stranger, NodeState::Draining);
    let found = world.assess();
    assert!(found.excess.is_empty(), "one home is not enough for two copies");
    assert_eq!(found.status.groups_waiting, 1);
}

#[test]
fn a_node_that_has_what_no_home_has_is_a_source_and_keeps_it() {
    let mut world = World::new(3, 2);
    let (one, two, stranger) = (world.home(0), world.home(1), world.stranger());
    for home in [one, two] {
        world.tell(home, &[(GROUP, has(1, 10))]);
    }
    world.tell(stranger, &[(GROUP, has(2, 1))]);
    let found = world.assess();
    assert_eq!(found.needs.len(), 1, "one pull of a group at a time");
    assert_eq!(found.status.groups_not_whole, 1);
    assert!(found.excess.is_empty());
    for home in [one, two] {
        let began = world.clock.tick();
        let others = vec![(stranger, has(2, 1)), (one, has(1, 10)), (two, has(1, 10))];
        world.ledger.pulled((GROUP, home), began, (10, others), Instant::now());
    }
    let found = world.assess();
    assert!(found.needs.is_empty());
    assert_eq!(found.excess.len(), 1, "both homes have seen it");
}

#[test]
fn the_fewest_copies_come_first_then_the_degraded() {
    let mut world = World::new(4, 3);
    let all: Vec<NodeId> = world.map.nodes.iter().map(|n| n.id).collect();
    let full: Vec<(u32, Digest)> = (0..4).map(|g| (g, has(1, 10))).collect();
    // Group 1 is on one node only, group 2 is degraded, groups 0 and 3 lack one copy.
    world.degraded.insert(2, true);
    for node in all {
        let groups = (0..4u32).filter(|g| {
            let homes = world.homes.get(*g);
            match g {
                1 => homes[0] == node,
                _ => homes[0] == node || homes[1] == node,
            }
        });
        let held: Vec<_> = groups.map(|g| full[g as usize]).collect();
        world.tell(node, &held);
    }
    let found = world.assess();
    let order: Vec<u32> = found.needs.iter().map(|need| need.group).collect();
    assert_eq!(order, [1, 2, 0, 3]);
    assert!(found.healed.is_empty());
}

#[test]
fn a_degraded_group_is_healed_when_it_is_whole_and_nobody_is_missed() {
    let mut world = World::new(2, 2);
    let (one, two) = (world.home(0), world.home(1));
    world.degraded.insert(GROUP, true);
    world.tell(one, &[(GROUP, has(1, 10))]);
    assert!(world.assess().healed.is_empty());
    world.tell(two, &[(GROUP, has(1, 10))]);
    assert_eq!(world.assess().healed, [GROUP]);
    world.degraded.insert(GROUP, false);
    assert!(world.assess().healed.is_empty(), "a witness is away");
    world.degraded.insert(GROUP, true);
    let since = world.clock.tick();
    world.ledger.doubt((GROUP, one), since);
    let found = world.assess();
    assert!(found.healed.is_empty() && found.unsure, "the digests are from before");
    for home in [one, two] {
        world.tell(home, &[(GROUP, has(1, 10))]);
    }
    assert_eq!(world.assess().healed, [GROUP]);
}

#[test]
fn what_is_to_come_and_to_go_is_counted_by_node() {
    let mut world = World::new(3, 2);
    let (one, two, stranger) = (world.home(0), world.home(1), world.stranger());
    world.tell(one, &[(GROUP, has(1, 10))]);
    world.tell(two, &[(GROUP, has(2, 4))]);
    world.tell(stranger, &[(GROUP, has(3, 2))]);
    let status = world.assess().status;
    let of = |node: NodeId| {
        let share = status.nodes.iter().find(|share| share.node_id == node.to_string()).unwrap();
        (share.chunks, share.bytes_to_get, share.chunks_to_give)
    };
    assert_eq!(of(one), (10, 0, 0));
    assert_eq!(of(two), (4, 6000, 0));
    assert_eq!(of(stranger), (2, 0, 2));
    assert_eq!((status.bytes_to_move, status.chunks_to_move), (6000, 6));
}
