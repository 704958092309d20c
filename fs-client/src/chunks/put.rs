//! Putting one chunk where it belongs: every write target of its group, in parallel.
//!
//! A target that does not answer is reported to the master at once; then a newer map is awaited and
//! the chunk goes on under that. What is durable on a target of the newer map is not sent again. The
//! client never decides on its own that a node may be skipped. Where that pays ([`super::asking`]) each target
//! is asked first, and the chunk is sent only where it is not.
//!
//! Each node says with which epoch of garbage collection it stamped the chunk. The least of all is what
//! the commit has to name.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkRef, ClusterMap, NodeId};
use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{Inner, Order, Stored, cache::Key, fleet::NodeLink, puts::PutItem};

/// A node that owes answers for this long, while another has answered, is given up.
const LAGGARD: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Time for the master to look for itself and send a newer map; then the same nodes are tried again.
const NEWER_MAP: Duration = Duration::from_millis(300);
const NEWER_MAP_MAX: Duration = Duration::from_secs(1);
/// A node that is overloaded is left alone for this long.
const OVERLOADED: Duration = Duration::from_millis(20);

/// A chunk on its way.
struct Load {
    order: Order,
    chunk: ChunkRef,
    /// The stored bytes.
    data: Bytes,
    budget: Arc<OwnedSemaphorePermit>,
    /// Whether the nodes are asked first.
    ask: bool,
    /// Some node had to be given it.
    sent: AtomicBool,
}

/// What a node says of its epoch as one that can be compared. A node that knows no epochs never
/// collects, so its chunks stay.
pub(super) const fn stamp(gc_epoch: u64) -> u64 {
    if gc_epoch == 0 { u64::MAX } else { gc_epoch }
}

pub(super) async fn put(
    inner: &Inner,
    order: Order,
    data: Bytes,
    ask: bool,
) -> Result<Stored, ChunkError> {
    let len = u32::try_from(data.len()).map_err(|_| ChunkError::BadLength)?;
    if len == 0 || len > inner.session.chunk_size() {
        return Err(ChunkError::BadLength);
    }
    let deadline = Instant::now() + inner.deadline;
    let budget = timeout_at(deadline, inner.upload.take(data.len())).await;
    let budget = Arc::new(budget.map_err(|_| ChunkError::Unreachable)?);
    let compression = inner.session.map().compression;
    let alone = inner.upload.taken() <= data.len();
    let (chunk, packed) = inner.hashing.pack(data.clone(), compression, alone).await?;
    let load = Load { order, chunk, data: packed, budget, ask, sent: AtomicBool::new(false) };
    let stored = place(inner, &load, deadline).await?;
    inner.traffic.stored(len, load.sent.into_inner());
    inner.keep_on_disk(chunk.id, &load.data);
    inner.cache.insert(Key::from(&chunk), data);
    Ok(stored)
}

/// Follows the map until every target that it names has the chunk.
async fn place(inner: &Inner, load: &Load, deadline: Instant) -> Result<Stored, ChunkError> {
    let mut durable: HashMap<NodeId, u64> = HashMap::new();
    let mut patience = NEWER_MAP;
    loop {
        let map = inner.session.map();
        let group = map.group(&load.chunk.id);
        let targets = map.write_targets(group);
        let missing: Vec<_> =
            targets.iter().filter(|node| !durable.contains_key(&node.id)).copied().collect();
        let enough = targets.len() >= map.min_replicas as usize;
        if enough && missing.is_empty() {
            let degraded = targets.len() < map.replicas as usize;
            return Ok(Stored {
                chunk: load.chunk,
                map_epoch: map.epoch,
                degraded: degraded.then_some(group),
                gc_epoch: targets.iter().map(|node| durable[&node.id]).min().unwrap_or(u64::MAX),
            });
        }
        let mut failure = None;
        if enough {
            let links: Option<Vec<_>> =
                missing.iter().map(|node| inner.fleet.link(&map, node)).collect();
            let links = links.ok_or(ChunkError::Unreachable)?;
            for (link, result) in spread(inner, load, &map, links, deadline).await {
                match result {
                    Ok(stamp) => _ = durable.insert(link.id, stamp),
                    Err(error) => failure = Some(worse(failure, judge(inner, &map, &link, error))),
                }
            }
        } else {
            failure = Some(ChunkError::TooFewNodes);
        }
        let Some(failure) = failure else { continue };
        let newer = inner.session.map().epoch != map.epoch;
        let hopeful = failure.may_retry() || (failure == ChunkError::NoSpace && newer);
        if !hopeful || Instant::now() >= deadline {
            return Err(failure);
        }
        if failure == ChunkError::Overloaded {
            tokio::time::sleep(OVERLOADED).await;
        } else {
            inner.newer_map(map.epoch, patience.min(deadline - Instant::now())).await;
            patience = (patience * 2).min(NEWER_MAP_MAX);
        }
    }
}

/// Puts to all of `links` at the same time; each answers with the stamp of its copy.
async fn spread(
    inner: &Inner,
    load: &Load,
    map: &ClusterMap,
    links: Vec<Arc<NodeLink>>,
    deadline: Instant,
) -> Vec<(Arc<NodeLink>, Result<u64, ChunkError>)> {
    let answered = AtomicBool::new(false);
    let answered = &answered;
    let one = |link: Arc<NodeLink>| async move {
        let put = async {
            if load.ask {
                let stamp = link.asks().has(&load.chunk).await;
                inner.asking.heard(stamp.is_some());
                if let Some(stamp) = stamp {
                    return Ok(stamp);
                }
            }
            load.sent.store(true, Ordering::Relaxed);
            inner.traffic.leaves(load.chunk.stored_len);
            put_to(&link, load, map.epoch, answered).await
        };
        let result = timeout_at(deadline, put).await.unwrap_or(Err(ChunkError::Unreachable));
        answered.fetch_or(result.is_ok(), Ordering::Relaxed);
        (link, result)
    };
    join_all(links.into_iter().map(one)).await
}

async fn put_to(
    link: &NodeLink,
    load: &Load,
    map_epoch: u64,
    others_answered: &AtomicBool,
) -> Result<u64, ChunkError> {
    let (reply, mut answer) = oneshot::channel();
    let pipe = link.puts(load.order);
    pipe.push(PutItem {
        order: load.order,
        id: load.chunk.id,
        data: load.data.clone(),
        map_epoch,
        reply,
        _budget: load.budget.clone(),
    });
    loop {
        match timeout(LOOK, &mut answer).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => return Err(ChunkError::Unreachable),
            Err(_) if others_answered.load(Ordering::Relaxed) && pipe.silence() >= LAGGARD => {
                pipe.abort();
                return Err(ChunkError::Unreachable);
            }
            Err(_) => {}
        }
    }
}

/// What a node's failure means for the chunk; tells the master if the node is not to be reached.
fn judge(inner: &Inner, map: &ClusterMap, link: &NodeLink, error: ChunkError) -> ChunkError {
    match error {
        ChunkError::Unreachable | ChunkError::DiskFailed => {
            link.avoid();
            inner.report(map, link, &error.to_string());
            error
        }
        ChunkError::NotFound | ChunkError::Damaged | ChunkError::TooFewNodes => {
            warn!(node = link.name, %error, "a node answers a put with nonsense");
            ChunkError::Unreachable
        }
        ChunkError::NoSpace | ChunkError::Overloaded => {
            debug!(node = link.name, %error, "not taken");
            error
        }
        ChunkError::Mismatch | ChunkError::BadLength | ChunkError::Malformed => {
            warn!(node = link.name, %error, "refused");
            error
        }
    }
}

/// Of two failures the one that decides.
fn worse(first: Option<ChunkError>, second: ChunkError) -> ChunkError {
    match first {
        Some(first) if !first.may_retry() || second == ChunkError::Overloaded => first,
        Some(_) | None => second,
    }
}
