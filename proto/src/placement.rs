//! Where the copies of a chunk belong: a pure function of its id and the map.
//!
//! The first `pg_bits` bits of the id are the chunk's placement [`Group`]. A group orders the nodes by
//! weighted rendezvous hashing (Thaler and Ravishankar 1998, with the weights of Schindelhauer and
//! Schomaker 2005: a node's score is `-ln(u) / weight` for a uniform `u` that depends on group and node
//! alone; the smallest comes first), then takes nodes of distinct zones before the rest. So a node that
//! is added or removed moves only its own share.
//!
//! This function must never change under data. It uses integers only, and the golden vectors below
//! hold its answers.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::{ChunkId, ClusterMap, Node, NodeId};

/// A placement group: the leading bits of the ids of the chunks in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(pub u32);

impl Group {
    /// The group of `id` when groups have `pg_bits` bits (at most 16).
    pub fn of(id: &ChunkId, pg_bits: u32) -> Self {
        let bytes = id.as_bytes();
        let head = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Self(if pg_bits == 0 { 0 } else { head >> (32 - pg_bits) })
    }

    /// Number of groups.
    pub const fn count(pg_bits: u32) -> u32 {
        1 << pg_bits
    }
}

/// `-log2((x + 1) / 2^64)` in units of 2^-40, by repeated squaring; 0 to 64 * 2^40.
fn neg_log2(x: u64) -> u64 {
    const FRACTION: u32 = 40;
    let value = u128::from(x) + 1;
    let exponent = 127 - value.leading_zeros();
    // 1 <= mantissa < 2 with 63 fraction bits
    let mut mantissa = value << 63 >> exponent;
    let mut fraction = 0u64;
    for _ in 0..FRACTION {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >= 1 << 64 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    (64 << FRACTION) - ((u64::from(exponent) << FRACTION) | fraction)
}

fn draw(group: Group, node: NodeId) -> u64 {
    let mut hash = Sha256::new();
    hash.update(group.0.to_be_bytes());
    hash.update(node.0.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(digest[..8].try_into().expect("eight of 32 bytes"))
}

/// Compares `a / wa` with `b / wb` without dividing.
fn by_score(a: (u64, u32), b: (u64, u32)) -> std::cmp::Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

impl ClusterMap {
    /// The group of a chunk under this map.
    pub fn group(&self, id: &ChunkId) -> Group {
        Group::of(id, self.pg_bits)
    }

    /// All nodes with a weight, in the order in which `group` prefers them, whatever their states.
    pub fn order(&self, group: Group) -> Vec<&Node> {
        self.order_of(group, |_| true)
    }

    /// The nodes with a weight that `counts`, in the order in which `group` prefers them. A zone all of
    /// whose nodes do not count has no say in it.
    fn order_of(&self, group: Group, counts: impl Fn(&Node) -> bool) -> Vec<&Node> {
        let mut scored: Vec<_> = self
            .nodes
            .iter()
            .filter(|n| n.weight > 0 && counts(n))
            .map(|n| ((neg_log2(draw(group, n.id)), n.weight), n))
            .collect();
        scored.sort_by(|a, b| by_score(a.0, b.0).then_with(|| a.1.id.cmp(&b.1.id)));
        let mut zones = HashSet::new();
        let (first, rest): (Vec<_>, Vec<_>) =
            scored.into_iter().map(|(_, node)| node).partition(|n| zones.insert(n.zone.as_str()));
        first.into_iter().chain(rest).collect()
    }

    /// The nodes that a new chunk of `group` is put to: the first `replicas` that take writes. Fewer
    /// when fewer are up; the caller compares with `min_replicas`.
    pub fn write_targets(&self, group: Group) -> Vec<&Node> {
        let mut nodes = self.order_of(group, |n| n.state.takes_writes());
        nodes.truncate(self.replicas as usize);
        nodes
    }

    /// The nodes where the copies of `group` belong in the long run: the first `replicas` that are
    /// neither out nor being emptied, whether they can be reached at present or not.
    pub fn homes(&self, group: Group) -> Vec<&Node> {
        let mut nodes = self.order_of(group, |n| n.state.is_home());
        nodes.truncate(self.replicas as usize);
        nodes
    }

    /// Every node that may hold a chunk of `group`, the most likely first: nodes in a good state in
    /// preference order, then the others. A node without weight comes last in its class.
    pub fn read_order(&self, group: Group) -> Vec<&Node> {
        let mut nodes = self.order(group);
        nodes.extend(self.nodes.iter().filter(|n| n.weight == 0));
        nodes.sort_by_key(|n| !n.state.reads_first());
        nodes
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Compression, NodeState};

    fn map(weights: &[u32], zones: &[&str]) -> ClusterMap {
        let node = |(i, w): (usize, &u32)| Node {
            id: NodeId(Uuid::from_u128(i as u128 + 1)),
            host: "127.0.0.1".into(),
            port: 9001,
            weight: *w,
            zone: zones[i % zones.len()].into(),
            state: NodeState::Up,
            name: format!("node{}", i + 1),
        };
        ClusterMap {
            epoch: 1,
            nodes: weights.iter().enumerate().map(node).collect(),
            pg_bits: 10,
            replicas: 2,
            min_replicas: 1,
            compression: Compression::Off,
        }
    }

    fn names(nodes: &[&Node]) -> String {
        nodes.iter().map(|n| &n.name[4..]).collect()
    }

    #[test]
    fn golden_vectors() {
        assert_eq!(Group::of(&ChunkId::of(b"abc"), 10), Group(0xba78 >> 6));
        assert_eq!(neg_log2(u64::MAX), 0);
        assert_eq!(neg_log2(u64::MAX >> 1), 1 << 40);
        assert_eq!(neg_log2(0), 64 << 40);
        assert_eq!(neg_log2(0x1234_5678_9abc_def0), GOLDEN_LOG);
        let m = map(&[1, 1, 2, 4], &["a"]);
        let orders: Vec<_> = [0, 1, 2, 511, 1023].map(|g| names(&m.order(Group(g)))).into();
        assert_eq!(orders, GOLDEN_ORDERS);
    }

    const GOLDEN_LOG: u64 = 4_193_296_765_537;
    const GOLDEN_ORDERS: [&str; 5] = ["1432", "4123", "4321", "3412", "3142"];

    #[test]
    fn share_follows_weight() {
        let m = map(&[1, 1, 2, 4], &["a"]);
        let mut first = [0u32; 4];
        for g in 0..8192 {
            let n = m.order(Group(g))[0].name[4..].parse::<usize>().unwrap();
            first[n - 1] += 1;
        }
        for (share, weight) in first.into_iter().zip([1u32, 1, 2, 4]) {
            assert!(share.abs_diff(8192 * weight / 8) < 8192 * weight / 80 + 100, "{first:?}");
        }
    }

    #[test]
    fn an_added_node_takes_only_its_share() {
        let (before, after) = (map(&[1, 1, 1], &["a"]), map(&[1, 1, 1, 1], &["a"]));
        let mut moved = 0;
        for g in (0..1024).map(Group) {
            let (old, new) = (before.write_targets(g), after.write_targets(g));
            for node in &new {
                if !old.iter().any(|o| o.id == node.id) {
                    assert_eq!(node.name, "node4");
                    moved += 1;
                }
            }
        }
        assert!((460..564).contains(&moved), "{moved} of 2048 copies moved, 512 expected");
    }

    /// Which copies are on other nodes than before: node that has it now, and how many.
    fn moved(before: &ClusterMap, after: &ClusterMap) -> std::collections::BTreeMap<String, u32> {
        let mut moved = std::collections::BTreeMap::new();
        for g in (0..1024).map(Group) {
            let old = before.homes(g);
            let new = after.homes(g);
            assert_eq!(new.len(), after.replicas as usize);
            for node in new.iter().filter(|n| !old.iter().any(|o| o.id == n.id)) {
                *moved.entry(node.name.clone()).or_default() += 1;
            }
        }
        moved
    }

    #[test]
    fn homes_follow_only_who_joins_and_who_goes() {
        let before = map(&[2, 2, 2, 2], &["a"]);
        let after = map(&[2, 2, 2, 2, 1], &["a"]);
        let joined = moved(&before, &after);
        // One ninth of the weight: 2048 / 9.
        assert_eq!(joined.keys().collect::<Vec<_>>(), ["node5"]);
        assert!(joined["node5"].abs_diff(2048 / 9) <= 2048 / 90, "{joined:?}");
        for state in [NodeState::Out, NodeState::Draining] {
            let mut after = before.clone();
            after.nodes[1].state = state;
            let left = moved(&before, &after);
            assert!(!left.contains_key("node2"));
            let share: u32 = left.values().sum();
            assert!(share.abs_diff(2048 / 4) <= 2048 / 40, "{left:?}");
        }
        for state in [NodeState::Down, NodeState::Suspect, NodeState::Maintenance] {
            let mut after = before.clone();
            after.nodes[1].state = state;
            assert!(moved(&before, &after).is_empty(), "{state:?} moves nothing");
        }
    }

    #[test]
    fn homes_are_in_distinct_zones_as_long_as_a_zone_has_a_node_left() {
        let mut m = map(&[1, 1, 1, 1], &["a", "b"]);
        m.nodes[1].state = NodeState::Out;
        for g in (0..1024).map(Group) {
            let homes = m.homes(g);
            assert_ne!(homes[0].zone, homes[1].zone, "{}", names(&homes));
            assert_eq!(names(&homes), names(&m.write_targets(g)));
        }
        m.nodes[3].state = NodeState::Draining;
        assert!((0..1024).map(Group).all(|g| m.homes(g).iter().all(|n| n.zone == "a")));
    }

    #[test]
    fn distinct_zones_come_first() {
        let m = map(&[1, 1, 1, 1], &["a", "b"]);
        for g in (0..1024).map(Group) {
            let t = m.write_targets(g);
            assert_ne!(t[0].zone, t[1].zone);
        }
    }

    #[test]
    fn nodes_that_are_not_up_take_no_writes_but_are_read_last() {
        let mut m = map(&[1, 1, 1], &["a"]);
        m.nodes[0].state = NodeState::Down;
        for g in (0..64).map(Group) {
            assert!(m.write_targets(g).iter().all(|n| n.name != "node1"));
            assert_eq!(m.write_targets(g).len(), 2);
            assert_eq!(m.read_order(g).last().unwrap().name, "node1");
            assert_eq!(m.read_order(g).len(), 3);
        }
    }
}
