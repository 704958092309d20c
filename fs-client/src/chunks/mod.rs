//! Chunks to and from the storage nodes: verified, cached, replicated, with fail-over.
//!
//! - [`put`](Chunks::put): `put` (placement, fail-over) over `puts`; [`get`](Chunks::get): `cache`, then
//!   `flight` (one fetch for many), then `disk_cache`, where there is one, then `get` (choice of node,
//!   hedging) over `gets`.
//! - `fleet`: nodes, their connections and whether they are well; `pipe`: a batched, pipelined stream,
//!   which `puts` and `gets` fill with meaning; `local_reads`: the files of a node on this machine, `stretches` of
//!   them in one go; `asks`: what a node has already; `asking`: whether to ask.
//! - `hashing`: SHA-256 and compression, by the threads of `jobs`; `budget`: bounds in bytes; `traffic`: bytes sent and spared.
//!
//! Everything that waits has a bound in time, everything that holds bytes one in bytes. Knows nothing
//! of files.

mod asking;
mod asks;
mod budget;
mod cache;
mod disk_cache;
mod fleet;
mod flight;
mod get;
mod gets;
mod hashing;
mod jobs;
mod local_reads;
mod pipe;
mod put;
mod puts;
mod reads;
#[cfg(test)]
mod scripted;
mod stretches;
#[cfg(test)]
mod tests;
mod traffic;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{
    ChunkError, ChunkId, ChunkRef, ClusterMap, Codec, Group, Ino, NodeState, handshake::Greeting,
};
use futures_util::future::join_all;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::info;

use self::{
    asking::Asking,
    budget::Budget,
    cache::{Cache, Key},
    disk_cache::DiskCache,
    fleet::{Fleet, NodeLink},
    flight::{Flights, Landing},
    hashing::Hashing,
};
pub use self::{
    disk_cache::{CacheRefused, DiskCacheFigures},
    reads::Reads,
    traffic::Traffic,
};
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

/// Neighbours in a file that are put to a node in one batch, and fetched from one node, where there is a choice: its disk
/// reads them in one go, and what they share of a batch. The next ones come from the next node.
const RUN: u64 = 16;

/// Which of the nodes that are equally good is asked for a chunk, and when.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    run: u64,
    /// `None`: behind all that were asked for before.
    row: Option<Order>,
}

impl Turn {
    /// For chunk `index` of the file `ino`.
    pub fn of(ino: Ino, index: u64) -> Self {
        Self { run: ino.get().wrapping_add(index / RUN), row: None }
    }

    /// At this place, with the others of its run: rather together with them than a little sooner.
    pub fn in_row(self, place: Order) -> Self {
        Self { row: Some(place), ..self }
    }

    /// Whether both, of the same file, are asked of one node where there is a choice.
    pub fn shares_run(self, other: Self) -> bool {
        self.run == other.run
    }
}

/// A place in the row of all puts and gets. Of what waits for a node the least leaves first, so that what follows one
/// another in a file does so on the disk, and is read from it in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(u64);

impl Order {
    /// What lies between two multiples of [`RUN`] chunks of one file, where they were written in order.
    fn run(self) -> u64 {
        self.0 / RUN
    }

    /// The place with this number.
    #[cfg(test)]
    const fn numbered(number: u64) -> Self {
        Self(number)
    }
}

struct Inner {
    session: Session,
    deadline: Duration,
    cache: Cache,
    disk: Option<DiskCache>,
    flights: Flights,
    fleet: Fleet,
    hashing: Hashing,
    /// Every chunk is asked for before it is sent.
    ask_before_put: bool,
    asking: Asking,
    traffic: traffic::Counters,
    reads: Arc<Reads>,
    /// The next [`Order`].
    order: AtomicU64,
    upload: Budget,
    download: Budget,
    /// Half of the download budget, so that read-ahead never keeps readers waiting.
    ahead: Budget,
}

impl Inner {
    /// See [`Chunks::order`].
    fn order(&self, index: u64) -> Order {
        let place = |n: u64| if index.is_multiple_of(RUN) { n.next_multiple_of(RUN) } else { n };
        let next = |n| Some(place(n) + 1);
        let n = self.order.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Order(place(n.unwrap_or_else(|n| n)))
    }

    /// Where a get stands in the row. What is asked for alone begins no run.
    fn place_of(&self, turn: Turn) -> Order {
        turn.row.unwrap_or_else(|| self.order(1))
    }

    /// The disk cache, where there is one, is given the stored bytes that `id` names.
    fn keep_on_disk(&self, id: ChunkId, stored: &Bytes) {
        if let Some(disk) = &self.disk {
            disk.keep(id, stored);
        }
    }

    /// Bytes that a fetch of `chunk` may take in memory. What a frame becomes is known when it is decoded.
    fn room(&self, chunk: &ChunkRef) -> usize {
        match chunk.codec {
            Codec::Plain => chunk.stored_len as usize,
            Codec::Lz4 | Codec::Zstd => self.session.chunk_size().max(chunk.stored_len) as usize,
        }
    }

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
    /// Must be called within a tokio runtime. Takes no disk cache: see [`Chunks::open`].
    pub fn new(session: Session, config: &ClientConfig) -> Self {
        Self::build(session, config, None)
    }

    /// The same with the disk cache that `config` names, if it does.
    ///
    /// # Errors
    /// When the directory of the cache is not for this mount.
    pub async fn open(session: Session, config: &ClientConfig) -> Result<Self, CacheRefused> {
        let disk = match &config.disk_cache {
            Some(disk) => {
                Some(DiskCache::start(disk, session.fs_uuid(), session.chunk_size()).await?)
            }
            None => None,
        };
        Ok(Self::build(session, config, disk))
    }

    fn build(session: Session, config: &ClientConfig, disk: Option<DiskCache>) -> Self {
        let greeting = Greeting::new(Some(session.fs_uuid()), config.token.as_ref());
        let hashing = Hashing::new();
        let reads = Arc::<Reads>::default();
        Self {
            inner: Arc::new(Inner {
                session,
                deadline: config.deadline,
                cache: Cache::new(config.cache_bytes),
                disk,
                flights: Flights::default(),
                fleet: Fleet::new(greeting, hashing.clone(), reads.clone()),
                hashing,
                ask_before_put: config.ask_before_put,
                asking: Asking::default(),
                traffic: traffic::Counters::default(),
                reads,
                order: AtomicU64::new(0),
                upload: Budget::new(config.upload_bytes),
                download: Budget::new(config.download_bytes),
                ahead: Budget::new(config.download_bytes / 2),
            }),
        }
    }

    /// The content of `chunk`, whose stored bytes are verified against its id: at least `logical_len`
    /// bytes in a buffer of their own. From memory, from a fetch that is under way, or from a node; another node after any
    /// failure. Cancel-safe; a caller that goes away does not disturb others who want the same chunk.
    ///
    /// # Errors
    /// `NotFound` or `Damaged` when every node that may hold it has answered so (fetch the manifest
    /// once more: the chunk may have been replaced); `Unreachable` at the deadline.
    pub async fn get(&self, chunk: &ChunkRef, turn: Turn) -> Result<Bytes, ChunkError> {
        if let Some(data) = self.cached(chunk) {
            self.found(1);
            return Ok(data);
        }
        self.inner.reads.miss();
        let (landing, fetched) = self.inner.flights.join(chunk.into());
        if let Some(landing) = landing {
            let (inner, chunk) = (self.inner.clone(), *chunk);
            tokio::spawn(async move { fetch(&inner, chunk, turn, landing).await });
        }
        // The fetch ends by its own deadline, and never without an answer.
        let data = fetched.await.unwrap_or(Err(ChunkError::Unreachable))?;
        if fits(&data, chunk) { Ok(data) } else { Err(ChunkError::Damaged) }
    }

    /// For the count: a reader has found `chunks` chunks with [`Chunks::cached`].
    pub fn found(&self, chunks: usize) {
        self.inner.reads.hit(chunks);
    }

    /// The content of the chunk, as of [`Chunks::get`], if it is in memory.
    pub fn cached(&self, chunk: &ChunkRef) -> Option<Bytes> {
        self.inner.cache.get(&chunk.into()).filter(|data| fits(data, chunk))
    }

    /// Begins to fetch what is neither in memory nor under way, as far as the budget for this reaches.
    /// Never waits, never fails.
    pub fn prefetch(&self, refs: impl IntoIterator<Item = (ChunkRef, Turn)>) {
        let mut run: Vec<Ahead> = Vec::new();
        for (chunk, turn) in refs {
            if self.inner.cache.has(&Key::from(&chunk)) {
                continue;
            }
            let Some(budget) = self.inner.ahead.try_take(self.inner.room(&chunk)) else { break };
            let Some(landing) = self.inner.flights.ahead(Key::from(&chunk)) else { continue };
            if run.last().is_some_and(|last| !last.turn.shares_run(turn)) {
                self.fetch_ahead(std::mem::take(&mut run));
            }
            let place = self.order(run.len() as u64);
            run.push(Ahead { chunk, turn: turn.in_row(place), landing, budget });
        }
        self.fetch_ahead(run);
    }

    /// All in one task, so that a node is asked for all of them at once.
    fn fetch_ahead(&self, run: Vec<Ahead>) {
        if run.is_empty() {
            return;
        }
        let inner = self.inner.clone();
        tokio::spawn(async move {
            let fetch = |Ahead { chunk, turn, landing, budget }: Ahead| {
                let fetch = fetch(&inner, chunk, turn, landing);
                async move {
                    fetch.await;
                    drop(budget);
                }
            };
            join_all(run.into_iter().map(fetch)).await;
        });
    }

    /// The place behind all that were given out, for chunk `index` of a file.
    pub fn order(&self, index: u64) -> Order {
        self.inner.order(index)
    }

    /// Stores `data` (1 to chunk size bytes) on every node where its group belongs. `Ok` means durable
    /// there. Waits while more than the configured bytes are on their way. The cache keeps `data`, so
    /// hand over a buffer of its own, not a slice of a larger one. Cancel-safe.
    ///
    /// # Errors
    /// `NoSpace` when a node that is needed is full; `TooFewNodes` or `Unreachable` at the deadline;
    /// `BadLength` at once.
    pub async fn put(&self, order: Order, data: Bytes) -> Result<Stored, ChunkError> {
        let ask = self.inner.ask_before_put || self.inner.asking.pays(data.len());
        put::put(&self.inner, order, data, ask).await
    }

    /// As [`Chunks::put`] for what was put before and is most likely still there: the nodes are asked
    /// first.
    ///
    /// # Errors
    /// As for [`Chunks::put`].
    pub async fn put_again(&self, order: Order, data: Bytes) -> Result<Stored, ChunkError> {
        put::put(&self.inner, order, data, true).await
    }

    /// What was read so far.
    pub fn reads(&self) -> &Reads {
        &self.inner.reads
    }

    /// Bytes that the cache takes now, and at most.
    pub fn cache_size(&self) -> (usize, usize) {
        self.inner.cache.size()
    }

    /// What the disk cache has done and takes; nothing without one.
    pub fn disk_cache(&self) -> DiskCacheFigures {
        self.inner.disk.as_ref().map(DiskCache::figures).unwrap_or_default()
    }

    /// Leaves the disk cache as the next mount shall find it. Chunks are had without it afterwards.
    pub async fn close_disk_cache(&self) {
        if let Some(disk) = &self.inner.disk {
            disk.close().await;
        }
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

/// What is fetched before somebody wants it.
struct Ahead {
    chunk: ChunkRef,
    turn: Turn,
    landing: Landing,
    budget: OwnedSemaphorePermit,
}

async fn fetch(inner: &Inner, chunk: ChunkRef, turn: Turn, landing: Landing) {
    // Between the caller's look into the cache and its joining, an earlier fetch may have landed.
    let fetched = match inner.cache.get(&Key::from(&chunk)) {
        Some(data) => Ok(data),
        None => match stored(inner, &chunk, turn, &landing).await {
            Ok(stored) => inner.hashing.unpack(&chunk, stored, inner.session.chunk_size()).await,
            Err(error) => Err(error),
        },
    };
    if let Ok(data) = &fetched {
        inner.cache.insert(Key::from(&chunk), data.clone());
    }
    landing.land(&fetched);
}

/// The stored bytes of `chunk`, from the disk cache or from the nodes.
async fn stored(
    inner: &Inner,
    chunk: &ChunkRef,
    turn: Turn,
    landing: &Landing,
) -> Result<Bytes, ChunkError> {
    let nodes = from_nodes(inner, chunk, turn, landing);
    match &inner.disk {
        Some(disk) => disk.get_or(chunk.id, nodes).await,
        None => nodes.await,
    }
}

async fn from_nodes(
    inner: &Inner,
    chunk: &ChunkRef,
    turn: Turn,
    landing: &Landing,
) -> Result<Bytes, ChunkError> {
    let fetched = get::get(inner, chunk, turn, || landing.is_wanted()).await;
    if let Ok(data) = &fetched {
        inner.reads.fetched(data.len());
        inner.keep_on_disk(chunk.id, data);
    }
    fetched
}

/// Whether `data` can be the content of `chunk`. Two references may claim different lengths for one id;
/// one of them is wrong.
fn fits(data: &Bytes, chunk: &ChunkRef) -> bool {
    match chunk.codec {
        Codec::Plain => data.len() == chunk.stored_len as usize,
        Codec::Lz4 | Codec::Zstd => data.len() >= chunk.logical_len as usize,
    }
}
