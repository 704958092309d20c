//! What nodes hold of each group, as they last told: fetched when a node says that it changed, or when
//! somebody needs to know how it is *now*.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use cairn_proto::{ChunkError, Node, NodeId, pb};

use super::clock::Tick;
use crate::nodes::chunk_client::ChunkClient;

/// A node that changes all the time is asked this often.
const PAUSE: Duration = Duration::from_secs(1);
/// A node that did not answer is asked again after this.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What one node holds of one group. Equal digests mean equal sets of chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    /// How many.
    pub(super) chunks: u64,
    /// Their stored bytes.
    pub(super) bytes: u64,
    /// XOR of their ids.
    pub(super) xor: [u8; 32],
}

impl Digest {
    /// Whether the node has nothing of the group.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks == 0
    }
}

/// Digests by group; groups of which the node has nothing are left out.
pub(super) type Digests = BTreeMap<u32, Digest>;

/// An answer of a node.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) node: NodeId,
    /// When it was asked.
    pub(super) asked: Tick,
    pub(super) answer: Result<(Digests, u64), ChunkError>,
}

/// Asks `node`, which was decided at `asked`.
pub(super) async fn ask(chunks: &ChunkClient, node: Node, pg_bits: u32, asked: Tick) -> Told {
    let answer = chunks.group_digests(&node, pg_bits).await.and_then(|answer| {
        let digests: Option<Digests> =
            answer.groups.iter().map(|wire| parse(wire, pg_bits)).collect();
        Ok((digests.ok_or(ChunkError::Malformed)?, answer.version))
    });
    Told { node: node.id, asked, answer }
}

fn parse(wire: &pb::GroupDigest, pg_bits: u32) -> Option<(u32, Digest)> {
    let xor = wire.xor.as_ref().try_into().ok()?;
    let known = wire.group < 1 << pg_bits;
    known.then_some((wire.group, Digest { chunks: wire.chunks, bytes: wire.bytes, xor }))
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Holding {
    digests: Digests,
    version: u64,
    /// When it was asked; zero: never.
    as_of: Tick,
    asked_last: Option<Instant>,
    asking: bool,
    failed: bool,
}

/// What is known of all nodes.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    nodes: HashMap<NodeId, Holding>,
}

impl Holdings {
    /// Whether it is time to ask `node`, which reports `version`: it changed, or what is known is from
    /// before `needed`. If so it counts as being asked.
    pub(super) fn should_ask(
        &mut self,
        node: NodeId,
        version: u64,
        needed: Tick,
        now: Instant,
    ) -> bool {
        let holding = self.nodes.entry(node).or_default();
        let since = holding.asked_last.map(|at| now.saturating_duration_since(at));
        let stale = holding.as_of < needed;
        let changed = holding.version != version || holding.as_of == Tick::NEVER;
        let due = if holding.failed {
            since.is_none_or(|since| since >= PAUSE_AFTER_FAILURE)
        } else {
            stale || (changed && since.is_none_or(|since| since >= PAUSE))
        };
        let ask = due && !holding.asking;
        if ask {
            holding.asking = true;
            holding.asked_last = Some(now);
        }
        ask
    }

    /// A node has answered, or not. True when that is news.
    pub(super) fn note(&mut self, told: Told) -> bool {
        let holding = self.nodes.entry(told.node).or_default();
        holding.asking = false;
        holding.failed = told.answer.is_err();
        let Ok((digests, version)) = told.answer else { return false };
        holding.digests = digests;
        holding.version = version;
        holding.as_of = told.asked;
        true
    }

    /// Whether `node` has told after `since`, or cannot tell.
    pub(super) fn has_told_since(&self, node: NodeId, since: Tick) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|held| held.as_of > since || (held.failed && !held.asking))
    }

    /// Nodes that are no longer in the cluster are forgotten.
    pub(super) fn keep(&mut self, known: impl Fn(NodeId) -> bool) {
        self.nodes.retain(|id, _| known(*id));
    }

    /// What `node` held as of when; `None` while it has told nothing.
    pub(super) fn of(&self, node: NodeId) -> Option<(&Digests, Tick)> {
        let holding = self.nodes.get(&node)?;
        (holding.as_of > Tick::NEVER).then_some((&holding.digests, holding.as_of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_asked_when_it_changed_or_when_it_matters() {
        let (id, t) = (NodeId(uuid::Uuid::from_u128(1)), Instant::now());
        let ticks: Vec<Tick> = {
            let mut clock = super::super::clock::Clock::default();
            (0..4).map(|_| clock.tick()).collect()
        };
        let told = |asked, version| Told { node: id, asked, answer: Ok((Digests::new(), version)) };
        let mut holdings = Holdings::default();
        assert!(holdings.should_ask(id, 5, Tick::NEVER, t), "nothing is known");
        assert!(!holdings.should_ask(id, 5, Tick::NEVER, t), "it is being asked");
        assert!(holdings.of(id).is_none());
        assert!(holdings.note(told(ticks[1], 5)));
        assert!(!holdings.should_ask(id, 5, Tick::NEVER, t + PAUSE), "nothing has changed");
        assert!(!holdings.should_ask(id, 6, Tick::NEVER, t), "it may be changing all the time");
        assert!(holdings.should_ask(id, 6, ticks[2], t), "somebody needs to know");
        holdings.note(told(ticks[2], 6));
        assert!(holdings.should_ask(id, 7, Tick::NEVER, t + PAUSE));
        let failed = Told { node: id, asked: ticks[3], answer: Err(ChunkError::Unreachable) };
        assert!(!holdings.note(failed));
        assert!(!holdings.should_ask(id, 7, ticks[3], t + PAUSE), "not at once");
        assert!(holdings.should_ask(id, 7, ticks[3], t + PAUSE * 2));
        assert_eq!(holdings.of(id).unwrap().1, ticks[2]);
    }
}
