//! Chunks to and from the storage nodes: verified, cached, replicated, with fail-over.
//!
//! - [`put`](Chunks::put): `put` (placement, fail-over) over `puts`; [`get`](Chunks::get): `cache`, then
//!   `flight` (one fetch for many), then `get` (choice of node, hedging) over `gets`.
//! - `fleet`: nodes, their connections and whether they are well; `pipe`: a batched, pipelined stream,
//!   which `puts` and `gets` fill with meaning; `asks`: what a node has already.
//! - `hashing`: SHA-256 on threads of its own; `budget`: bounds in bytes; `traffic`: bytes sent and spared.
//!
//! Everything that waits has a bound in time, everything that holds bytes one in bytes. Knows nothing
//! of files.

mod asks;
mod budget;
mod cache;
mod fleet;
mod flight;
mod get;
mod gets;
mod hashing;
mod pipe;
mod put;
mod puts;
mod reads;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
mod traffic;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    ChunkError, ChunkId, ChunkRef, ClusterMap, Group, NodeState, handshake::Greeting,
};
use tokio::time::timeout;
use tracing::info;

use self::{
    budget::Budget,
    cache::Cache,
    fleet::{Fleet, NodeLink},
    flight::{Flights, Landing},
    hashing::Hashing,
};
pub use self::{reads::Reads, traffic::Traffic};
use crate::{config::ClientConfig, rpc::Session};

/// A chunk that is durable on every node that the map `map_epoch` requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What a manifest says to refer to it.
    pub chunk: ChunkRef,
    /// Epoch of the map that the copies follow; belongs into `Commit.map_epoch`.
    pub map_epoch: u64,
    /// Set when fewer nodes than `replicas` were up; belongs into `Commit.degraded_groups`.
    pub degraded: Option<Group>,
    /// The least epoch of garbage collection that the nodes stamped it with; belongs into
    /// `Commit.gc_epoch`. `u64::MAX` when none of them collects.
    pub gc_epoch: u64,
}

struct Inner {
    session: Session,
    deadline: Duration,
    cache: Cache,
    flights: Flights,
    fleet: Fleet,
    hashing: Hashing,
    /// Whether nodes are asked what they have before it is sent.
    ask_before_put: bool,
    traffic: traffic::Counters,
    reads: Reads,
    upload: Budget,
    download: Budget,
    /// Half of the download budget, so that read-ahead never keeps readers waiting.
    ahead: Budget,
}

impl Inner {
    /// Waits until the map is another than `epoch`, at most for `patience`.
    async fn newer_map(&self, epoch: u64, patience: Duration) {
        let mut map = self.session.watch_map();
        // A session that has ended sends no map; then there is nothing to do but to wait it out.
        let newer = async {
            if map.wait_for(|map| map.epoch != epoch).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = timeout(patience, newer).await;
    }

    /// Tells the master about a node that it still takes for well.
    fn report(&self, map: &ClusterMap, link: &NodeLink, why: &str) {
        let known = match map.node(link.id).map(|node| node.state) {
            Some(NodeState::Up | NodeState::Draining) => false,
            Some(
                NodeState::Suspect | NodeState::Down | NodeState::Out | NodeState::Maintenance,
            )
            | None => true,
        };
        if !known && link.may_report() {
            info!(node = link.name, why, "telling the master");
            self.session.report_node(link.id, map.epoch, why);
        }
    }
}

/// Access to the chunks of a file system. Clones share connections, cache and budgets.
#[derive(Clone)]
pub struct Chunks {
    inner: Arc<Inner>,
}

impl Chunks {
    /// Uses the cluster map of `session` and reports failed nodes through it. Connects when needed.
    /// Must be called within a tokio runtime.
    pub fn new(session: Session, config: &ClientConfig) -> Self {
        let greeting = Greeting::new(Some(session.fs_uuid()), config.token.as_ref());
        let hashing = Hashing::new();
        Self {
            inner: Arc::new(Inner {
                session,
                deadline: config.deadline,
                cache: Cache::new(config.cache_bytes),
                flights: Flights::default(),
                fleet: Fleet::new(greeting, hashing.clone()),
                hashing,
                ask_before_put: config.ask_before_put,
                traffic: traffic::Counters::default(),
                reads: Reads::default(),
                upload: Budget::new(config.upload_bytes),
                download: Budget::new(config.download_bytes),
                ahead: Budget::new(config.download_bytes / 2),
            }),
        }
    }

    /// The stored bytes of `chunk`, verified against its id: exactly `stored_len` bytes in a buffer of
    /// their own. From memory, from a fetch that is under way, or from a node; another node after any
    /// failure. Cancel-safe; a caller that goes away does not disturb others who want the same chunk.
    ///
    /// # Errors
    /// `NotFound` or `Damaged` when every node that may hold it has answered so (fetch the manifest
    /// once more: the chunk may have been replaced); `Unreachable` at the deadline.
    pub async fn get(&self, chunk: &ChunkRef) -> Result<Bytes, ChunkError> {
        if let Some(data) = self.cached(&chunk.id) {
            self.found(1);
            return right_length(data, chunk);
        }
        self.inner.reads.miss();
        let (landing, fetched) = self.inner.flights.join(chunk.id);
        if let Some(landing) = landing {
            tokio::spawn(fetch(self.inner.clone(), *chunk, landing));
        }
        // The fetch ends by its own deadline, and never without an answer.
        let data = fetched.await.unwrap_or(Err(ChunkError::Unreachable))?;
        right_length(data, chunk)
    }

    /// For the count: a reader has found `chunks` chunks with [`Chunks::cached`].
    pub fn found(&self, chunks: usize) {
        self.inner.reads.hit(chunks);
    }

    /// The chunk if it is in memory.
    pub fn cached(&self, id: &ChunkId) -> Option<Bytes> {
        self.inner.cache.get(id)
    }

    /// Begins to fetch what is neither in memory nor under way, as far as the budget for this reaches.
    /// Never waits, never fails.
    pub fn prefetch(&self, refs: impl IntoIterator<Item = ChunkRef>) {
        for chunk in refs {
            if self.inner.cache.has(&chunk.id) {
                continue;
            }
            let Some(budget) = self.inner.ahead.try_take(chunk.stored_len as usize) else { return };
            let Some(landing) = self.inner.flights.ahead(chunk.id) else { continue };
            let inner = self.inner.clone();
            tokio::spawn(async move {
                fetch(inner, chunk, landing).await;
                drop(budget);
            });
        }
    }

    /// Stores `data` (1 to chunk size bytes) on every node where its group belongs. `Ok` means durable
    /// there. Waits while more than the configured bytes are on their way. The cache keeps `data`, so
    /// hand over a buffer of its own, not a slice of a larger one. Cancel-safe.
    ///
    /// # Errors
    /// `NoSpace` when a node that is needed is full; `TooFewNodes` or `Unreachable` at the deadline;
    /// `BadLength` at once.
    pub async fn put(&self, data: Bytes) -> Result<Stored, ChunkError> {
        put::put(&self.inner, data, self.inner.ask_before_put).await
    }

    /// As [`Chunks::put`] for what was put before and is most likely still there: the nodes are asked
    /// first.
    ///
    /// # Errors
    /// As for [`Chunks::put`].
    pub async fn put_again(&self, data: Bytes) -> Result<Stored, ChunkError> {
        put::put(&self.inner, data, true).await
    }

    /// What was read so far.
    pub fn reads(&self) -> &Reads {
        &self.inner.reads
    }

    /// Bytes that the cache takes now, and at most.
    pub fn cache_size(&self) -> (usize, usize) {
        self.inner.cache.size()
    }

    /// Bytes of puts and of gets that are on their way now, and at most.
    pub fn transfers(&self) -> [(usize, usize); 2] {
        let Inner { upload, download, .. } = &*self.inner;
        [upload, download].map(|budget| (budget.taken(), budget.total()))
    }

    /// What puts have brought to the nodes so far.
    pub fn traffic(&self) -> Traffic {
        self.inner.traffic.read()
    }
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}

async fn fetch(inner: Arc<Inner>, chunk: ChunkRef, landing: Landing) {
    // Between the caller's look into the cache and its joining, an earlier fetch may have landed.
    let fetched = match inner.cache.get(&chunk.id) {
        Some(data) => Ok(data),
        None => {
            let fetched = get::get(&inner, &chunk, || landing.is_wanted()).await;
            if let Ok(data) = &fetched {
                inner.reads.fetched(data.len());
            }
            fetched
        }
    };
    if let Ok(data) = &fetched {
        inner.cache.insert(chunk.id, data.clone());
    }
    landing.land(&fetched);
}

/// Two references may claim different lengths for one id; one of them is wrong.
fn right_length(data: Bytes, chunk: &ChunkRef) -> Result<Bytes, ChunkError> {
    if data.len() == chunk.stored_len as usize { Ok(data) } else { Err(ChunkError::Damaged) }
}
