//! Chunks of a backup onto the nodes: those that the map names for them, as for any other chunk.
//!
//! Each batch is asked for first (which also keeps it from being collected), what is missing is sent, and
//! what was sent is asked for again. So when a batch is through, every target has said that it has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId, ClusterMap, Node, NodeId};
use thiserror::Error;
use tokio::task::JoinSet;

use crate::nodes::chunk_client::ChunkClient;

/// Chunks sent to a node at a time.
const AT_ONCE: usize = 8;

/// Why chunks could not be stored.
#[derive(Debug, Error)]
pub(crate) enum UploadError {
    /// A node did not take them.
    #[error("{node} does not take chunks: {error}")]
    Node {
        /// Its name and address.
        node: String,
        /// What it said.
        error: ChunkError,
    },
    /// There are not enough nodes.
    #[error("{up} storage nodes take data and a chunk needs {needed}")]
    TooFewNodes {
        /// Nodes.
        up: usize,
        /// At least.
        needed: u32,
    },
}

/// What was done for a batch, or all of them.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    /// Groups that have fewer targets than the file system wants copies.
    pub(crate) degraded: BTreeSet<u32>,
    /// The least epoch of garbage collection that a chunk was stamped with.
    pub(crate) gc_epoch: Option<u64>,
}

impl Sent {
    pub(crate) fn add(&mut self, other: Self) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        self.degraded.extend(other.degraded);
        other.gc_epoch.into_iter().for_each(|stamp| self.stamped(stamp));
    }

    fn stamped(&mut self, stamp: u64) {
        self.gc_epoch = Some(self.gc_epoch.map_or(stamp, |least| least.min(stamp)));
    }
}

/// By node: what it shall have.
type Shares = BTreeMap<NodeId, (Node, Vec<ChunkId>)>;

fn shares(map: &ClusterMap, ids: &[ChunkId], sent: &mut Sent) -> Result<Shares, UploadError> {
    let mut shares = Shares::new();
    for id in ids {
        let group = map.group(id);
        let targets = map.write_targets(group);
        if targets.is_empty() || targets.len() < map.min_replicas as usize {
            return Err(UploadError::TooFewNodes { up: targets.len(), needed: map.min_replicas });
        }
        if targets.len() < map.replicas as usize {
            sent.degraded.insert(group.0);
        }
        for node in targets {
            shares.entry(node.id).or_insert_with(|| (node.clone(), Vec::new())).1.push(*id);
        }
    }
    Ok(shares)
}

/// Stores `batch` on every target of each of its chunks.
pub(crate) async fn store(
    client: &ChunkClient,
    map: &ClusterMap,
    batch: HashMap<ChunkId, Bytes>,
) -> Result<Sent, UploadError> {
    let mut sent = Sent::default();
    let ids: Vec<_> = batch.keys().copied().collect();
    let batch = std::sync::Arc::new(batch);
    let mut nodes = JoinSet::new();
    for (node, ids) in shares(map, &ids, &mut sent)?.into_values() {
        let (client, batch) = (client.clone(), std::sync::Arc::clone(&batch));
        nodes.spawn(async move {
            let outcome = fill(&client, &node, &ids, &batch).await;
            outcome.map_err(|error| UploadError::Node {
                node: format!("node {} at {}", node.name, node.address()),
                error,
            })
        });
    }
    while let Some(outcome) = nodes.join_next().await {
        // A task that panicked has said nothing about its node.
        let (chunks, bytes, stamp) = outcome.map_err(|_| UploadError::Node {
            node: "a node".to_owned(),
            error: ChunkError::Unreachable,
        })??;
        sent.chunks += chunks;
        sent.bytes += bytes;
        sent.stamped(stamp);
    }
    Ok(sent)
}

/// Gives `node` what it lacks; chunks and bytes that were sent, and the least stamp of all.
async fn fill(
    client: &ChunkClient,
    node: &Node,
    ids: &[ChunkId],
    batch: &HashMap<ChunkId, Bytes>,
) -> Result<(u64, u64, u64), ChunkError> {
    let (missing, before) = lacking(client, node, ids).await?;
    let (mut chunks, mut bytes) = (0, 0);
    for some in missing.chunks(AT_ONCE) {
        let mut puts = JoinSet::new();
        for id in some {
            let Some(data) = batch.get(id).cloned() else { continue };
            chunks += 1;
            bytes += data.len() as u64;
            let (client, node, id) = (client.clone(), node.clone(), *id);
            puts.spawn(async move { client.put(&node, id, data).await });
        }
        while let Some(put) = puts.join_next().await {
            put.unwrap_or(Err(ChunkError::Unreachable))?;
        }
    }
    let (still, after) = lacking(client, node, &missing).await?;
    if still.is_empty() {
        Ok((chunks, bytes, before.min(after)))
    } else {
        Err(ChunkError::NotFound)
    }
}

/// What `node` lacks, and the stamp of what it has.
async fn lacking(
    client: &ChunkClient,
    node: &Node,
    ids: &[ChunkId],
) -> Result<(Vec<ChunkId>, u64), ChunkError> {
    let (lengths, stamp) = client.have(node, ids).await?;
    let missing = ids.iter().zip(lengths).filter(|(_, length)| length.is_none());
    Ok((missing.map(|(id, _)| *id).collect(), stamp))
}
