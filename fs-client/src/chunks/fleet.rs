//! [`Fleet`]: the storage nodes as this client sees them: connections, load, who was late.
//!
//! A node has two bulk connections, each with one Put and one Get stream; requests go to the one with
//! less on it, or by turns where neighbours shall stay together. A node that failed or was late is remembered for
//! [`AVOID`] and read last meanwhile; this is an opinion about reads only, where chunks are *put* is decided by the
//! master's map alone.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_proto::{ClusterMap, Node, NodeId, handshake::Greeting};
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tracing::warn;

use super::{
    Order, Turn,
    asks::Asks,
    gets::Gets,
    hashing::Hashing,
    local_reads::LocalReads,
    pipe::{Cargo, Pipe},
    puts::Puts,
    reads::Reads,
};
use crate::rpc::connect::{self, Lazy};

/// Bulk connections per node.
const CONNECTIONS: usize = 2;
/// So much more on one of them than on another, and requests no longer go by turns.
const SLACK: usize = 4 << 20;
/// With less on them puts go where there is less: neighbours on the disk matter where there is much to come.
const FEW: usize = 1 << 20;
/// Spreads runs over connections in another way than over nodes: 2^64 divided by the golden ratio.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;
/// A connection that owes answers for so long is not waited for.
const SILENT: Duration = Duration::from_millis(100);
/// Setting up a connection to a node that takes longer counts as failed.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a node that failed or was late is read last.
const AVOID: Duration = Duration::from_secs(3);
/// The same node is reported at most this often.
const REPORT: Duration = Duration::from_millis(500);

struct Lane {
    puts: Arc<Pipe<Puts>>,
    gets: Arc<Pipe<Gets>>,
}

/// One storage node.
pub(super) struct NodeLink {
    pub(super) id: NodeId,
    /// As messages name it.
    pub(super) name: String,
    address: String,
    lanes: Vec<Lane>,
    /// On a connection of its own: questions do not queue behind the bulk.
    asks: Arc<Asks>,
    local: Arc<LocalReads>,
    born: Instant,
    /// Milliseconds after `born`.
    avoid_until: AtomicU64,
    /// Smoothed time to an answer, in microseconds.
    latency: AtomicU64,
    reported: Mutex<Option<Instant>>,
}

impl NodeLink {
    fn new(node: &Node, shared: &Shared) -> Option<Self> {
        let Shared { greeting, hashing, reads } = shared;
        let address = node.address();
        let lazy = || match connect::lazy(node, CONNECT) {
            Ok(lazy) => Some(lazy),
            Err(why) => {
                warn!(node = node.name, address, why, "the map names an address that is none");
                None
            }
        };
        let name = format!("{} ({address})", node.name);
        let local = LocalReads::new(name.clone(), reads.clone());
        let lane = || {
            let Lazy { channel, near } = lazy()?;
            let wire = InterceptedService::new(channel.clone(), greeting.clone());
            let client = connect::storage_client(channel, greeting.clone());
            let (hashing, local) = (hashing.clone(), local.clone());
            let gets = Gets { wire: wire.clone(), client, hashing, near, local };
            Some(Lane { puts: Pipe::new(Puts { wire }), gets: Pipe::new(gets) })
        };
        Some(Self {
            id: node.id,
            name,
            lanes: (0..CONNECTIONS).map(|_| lane()).collect::<Option<_>>()?,
            asks: Asks::new(connect::storage_client(lazy()?.channel, greeting.clone())),
            local,
            address,
            born: Instant::now(),
            avoid_until: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            reported: Mutex::new(None),
        })
    }

    /// The Put stream for what has this place. When much is on its way those of a run go one way, so that they lie
    /// together on the disk.
    pub(super) fn puts(&self, order: Order) -> Arc<Pipe<Puts>> {
        choose(self.lanes.iter().map(|lane| &lane.puts), Some(order.run()), FEW)
    }

    /// The Get stream for what has its turn then. What is asked for in order goes one way with its run, so that they are
    /// read together.
    pub(super) fn gets(&self, turn: Turn) -> Arc<Pipe<Gets>> {
        let run = turn.row.map(|_| turn.run.wrapping_mul(SCATTER) >> 32);
        choose(self.lanes.iter().map(|lane| &lane.gets), run, 0)
    }

    /// How long reads of the node's files, on this machine, have brought nothing.
    pub(super) fn reading_silently(&self) -> Duration {
        self.local.silence()
    }

    /// What the node has already.
    pub(super) fn asks(&self) -> &Arc<Asks> {
        &self.asks
    }

    /// Bytes asked for and not answered, or not read yet where the answer says.
    pub(super) fn reading(&self) -> usize {
        self.lanes.iter().map(|lane| lane.gets.load()).sum::<usize>() + self.local.load()
    }

    /// Whether it failed or was late a moment ago.
    pub(super) fn is_avoided(&self) -> bool {
        self.avoid_until.load(Ordering::Relaxed) > self.now()
    }

    /// It failed or was late.
    pub(super) fn avoid(&self) {
        let until = self.now() + millis(AVOID);
        self.avoid_until.store(until, Ordering::Relaxed);
    }

    /// It answered after `took`.
    pub(super) fn answered(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 8);
        let old = self.latency.load(Ordering::Relaxed);
        // A lost update between two readers of the old value only costs one sample.
        self.latency.store(old - old / 8 + took / 8, Ordering::Relaxed);
    }

    /// How long an answer usually takes.
    pub(super) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency.load(Ordering::Relaxed))
    }

    /// Whether it is time to report it (again); if so the caller does.
    pub(super) fn may_report(&self) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let due = reported.is_none_or(|at| at.elapsed() >= REPORT);
        if due {
            *reported = Some(Instant::now());
        }
        due
    }

    fn now(&self) -> u64 {
        millis(self.born.elapsed())
    }
}

impl Drop for NodeLink {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.puts.close();
            lane.gets.close();
        }
    }
}

/// The one whose turn it is, or the one with the least on it; see [`position`].
fn choose<'a, C: Cargo>(
    pipes: impl Iterator<Item = &'a Arc<Pipe<C>>> + Clone,
    turn: Option<u64>,
    few: usize,
) -> Arc<Pipe<C>> {
    let loads: Vec<_> = pipes.clone().map(|p| (p.load(), p.silence() < SILENT)).collect();
    let chosen = pipes.clone().nth(position(&loads, turn, few));
    chosen.expect("a node has at least one connection").clone()
}

/// Of connections with so many bytes on them, which do answer: the one whose turn it is, unless another has much less
/// to do, or any less while that one has less than `few` bytes.
fn position(loads: &[(usize, bool)], turn: Option<u64>, few: usize) -> usize {
    let least = (0..loads.len()).min_by_key(|n| loads[*n].0).unwrap_or(0);
    let Some(turn) = turn else { return least };
    let turn = (turn % loads.len().max(1) as u64) as usize;
    let (load, answers) = loads[turn];
    let much = if load < few || !answers { 0 } else { SLACK };
    if load <= loads[least].0 + much { turn } else { least }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What all links use.
struct Shared {
    greeting: Greeting,
    hashing: Hashing,
    reads: Arc<Reads>,
}

/// See the head of this file.
pub(super) struct Fleet {
    shared: Shared,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    epoch: u64,
    links: HashMap<NodeId, Arc<NodeLink>>,
}

impl Fleet {
    pub(super) fn new(greeting: Greeting, hashing: Hashing, reads: Arc<Reads>) -> Self {
        Self { shared: Shared { greeting, hashing, reads }, known: Mutex::new(Known::default()) }
    }

    /// The link to `node` of `map`; `None` when its address makes no sense. A node that moved gets a
    /// new one; a node that left the map is forgotten.
    pub(super) fn link(&self, map: &ClusterMap, node: &Node) -> Option<Arc<NodeLink>> {
        let mut forgotten = Vec::new();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.epoch < map.epoch {
            known.epoch = map.epoch;
            forgotten.extend(known.links.extract_if(|id, link| {
                map.node(*id).is_none_or(|node| node.address() != link.address)
            }));
        }
        let link = match known.links.get(&node.id) {
            Some(link) if link.address == node.address() => Some(link.clone()),
            // The caller's map is older than what is known: the newer address stands.
            Some(link) if map.epoch < known.epoch => Some(link.clone()),
            Some(_) | None => {
                let link = NodeLink::new(node, &self.shared).map(Arc::new);
                if let Some(link) = &link {
                    forgotten
                        .extend(known.links.insert(node.id, link.clone()).map(|l| (node.id, l)));
                }
                link
            }
        };
        drop(known);
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stay_together_unless_that_keeps_them_waiting() {
        let turns = |loads: &[(usize, bool)], few| {
            [Some(4), Some(5), None].map(|turn| position(loads, turn, few))
        };
        assert_eq!(turns(&[(0, true), (0, true)], 0), [0, 1, 0]);
        assert_eq!(turns(&[(FEW, true), (0, true)], 0), [0, 1, 1], "it takes turns");
        assert_eq!(turns(&[(FEW - 1, true), (0, true)], FEW), [1, 1, 1], "there is little to do");
        assert_eq!(turns(&[(FEW, true), (0, true)], FEW), [0, 1, 1]);
        assert_eq!(
            turns(&[(FEW + SLACK + 1, true), (FEW, true)], FEW),
            [1, 1, 1],
            "much more on it"
        );
        assert_eq!(turns(&[(FEW + 1, false), (FEW, true)], FEW), [1, 1, 1], "it does not answer");
        assert_eq!(turns(&[(7, true)], FEW), [0, 0, 0]);
    }
}
