//! AnnounceManifest: makes a file of chunks that a plain client has put.
//!
//! The nodes are asked about every chunk first, which also protects the chunks from being collected:
//! a manifest never names a chunk that too few nodes hold. When a cycle of garbage collection comes in
//! between, they are asked again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use cairn_proto::{
    ChunkError, ChunkId, ChunkRef, ClusterMap, Codec, Node, NodeId, NodeState, pb, status,
};
use tokio::task::JoinSet;
use tonic::Status;

use super::{Service, file_path};
use crate::namespace::{Announced, Namespace};

/// What the nodes say about one chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holding {
    stored_len: u32,
    copies: u32,
}

type Holdings = HashMap<ChunkId, Holding>;

/// What all nodes say.
struct Answers {
    holdings: Holdings,
    /// Names of nodes that did not answer.
    silent: Vec<String>,
    /// The least epoch of garbage collection that a chunk was stamped with.
    gc_epoch: u64,
}

/// How often cycles of garbage collection may come between question and announcement.
const TRIES: u32 = 8;

impl Service {
    /// Checks the chunks with the nodes, then makes or replaces the file in one piece.
    pub(super) async fn announce(
        self: &Arc<Self>,
        request: pb::ManifestRequest,
    ) -> Result<pb::ManifestResponse, Status> {
        let path = file_path::check(&request.filename)?.to_owned();
        let ids = parse(&request.chunks)?;
        let map = self.cluster.map();
        if !ids.is_empty() && map.nodes.is_empty() {
            return Err(status::from_chunk(
                ChunkError::TooFewNodes,
                "no storage node is known: start one with `cairn-storage serve`",
            ));
        }
        for _ in 0..TRIES {
            let Answers { holdings, silent, gc_epoch } = self.holdings(&map, &ids).await;
            let refs = references(&ids, &holdings, &silent, self.format.chunk_size, &map)?;
            let name = path.clone();
            let degraded = degraded(&ids, &holdings, &map);
            let work = move |namespace: &mut Namespace| {
                namespace.announce(&name, &refs, &degraded, gc_epoch)
            };
            // A plain client keeps no log, so what it is told must hold.
            let made = self.ops.call(true, work).await?;
            match made.map_err(|error| status::from_fs(error, format!("{path}: {error}")))? {
                Announced::Made => return Ok(pb::ManifestResponse { status: "ok".into() }),
                Announced::VerifyAgain => {}
            }
        }
        Err(Status::unavailable(format!(
            "{path}: the storage nodes do not follow the garbage collection: try again in a moment"
        )))
    }

    /// Who holds what: the targets are asked first, then the others about what is missing.
    async fn holdings(self: &Arc<Self>, map: &ClusterMap, ids: &[ChunkId]) -> Answers {
        let unique: HashSet<ChunkId> = ids.iter().copied().collect();
        let mut all = Answers { holdings: Holdings::new(), silent: Vec::new(), gc_epoch: u64::MAX };
        let mut asked: HashMap<ChunkId, HashSet<NodeId>> = HashMap::new();
        for first_round in [true, false] {
            let mut questions: BTreeMap<String, (Node, Vec<ChunkId>)> = BTreeMap::new();
            for id in &unique {
                let enough = all.holdings.get(id).is_some_and(|h| h.copies >= map.min_replicas);
                if enough && !first_round {
                    continue;
                }
                let group = map.group(id);
                let nodes =
                    if first_round { map.write_targets(group) } else { map.read_order(group) };
                for node in nodes.into_iter().filter(|n| may_answer(n.state)) {
                    if asked.entry(*id).or_default().insert(node.id) {
                        let question = questions.entry(node.id.to_string());
                        question.or_insert_with(|| (node.clone(), Vec::new())).1.push(*id);
                    }
                }
            }
            self.ask(questions.into_values(), &mut all).await;
        }
        all
    }

    async fn ask(
        self: &Arc<Self>,
        questions: impl Iterator<Item = (Node, Vec<ChunkId>)>,
        all: &mut Answers,
    ) {
        let mut answers = JoinSet::new();
        for (node, ids) in questions {
            let service = Arc::clone(self);
            answers.spawn(async move {
                let found = service.chunks.have(&node, &ids).await;
                (node, ids, found)
            });
        }
        while let Some(answer) = answers.join_next().await {
            let Ok((node, ids, found)) = answer else { continue };
            match found {
                Ok((lengths, stamp)) => {
                    all.gc_epoch = all.gc_epoch.min(stamp);
                    for (id, stored_len) in ids.into_iter().zip(lengths) {
                        if let Some(stored_len) = stored_len {
                            let holding = all.holdings.entry(id).or_default();
                            holding.stored_len = stored_len;
                            holding.copies += 1;
                        }
                    }
                }
                Err(error) => all.silent.push(format!("{} ({error})", node.address())),
            }
        }
    }
}

fn may_answer(state: NodeState) -> bool {
    match state {
        NodeState::Up | NodeState::Suspect | NodeState::Draining | NodeState::Maintenance => true,
        NodeState::Down | NodeState::Out => false,
    }
}

fn parse(chunks: &[String]) -> Result<Vec<ChunkId>, Status> {
    let parse = |(index, text): (usize, &String)| {
        text.parse::<ChunkId>()
            .map_err(|e| status::from_chunk(ChunkError::Malformed, format!("chunk {index}: {e}")))
    };
    chunks.iter().enumerate().map(parse).collect()
}

/// The file's references, when every chunk is held and has the length that its place asks for.
fn references(
    ids: &[ChunkId],
    holdings: &Holdings,
    silent: &[String],
    chunk_size: u32,
    map: &ClusterMap,
) -> Result<Vec<ChunkRef>, Status> {
    let mut refs = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let Holding { stored_len, copies } = holdings.get(id).copied().unwrap_or_default();
        if copies < map.min_replicas {
            let absent = if silent.is_empty() {
                String::new()
            } else {
                format!(" (no answer from {})", silent.join(", "))
            };
            return Err(Status::failed_precondition(format!(
                "chunk {index}, {id}, is on {copies} storage nodes and needs {}{absent}: \
                 put it to the targets before announcing the file",
                map.min_replicas
            )));
        }
        let last = index + 1 == ids.len();
        let fits =
            if last { (1..=chunk_size).contains(&stored_len) } else { stored_len == chunk_size };
        if !fits {
            return Err(Status::failed_precondition(format!(
                "chunk {index}, {id}, has {stored_len} bytes: every chunk but the last has exactly \
                 {chunk_size}, and the last at most that"
            )));
        }
        refs.push(ChunkRef { id: *id, stored_len, logical_len: stored_len, codec: Codec::Plain });
    }
    Ok(refs)
}

/// The groups of chunks that fewer targets hold than the file system wants copies: whoever heals looks
/// at those first.
fn degraded(ids: &[ChunkId], holdings: &Holdings, map: &ClusterMap) -> Vec<u32> {
    let lacks = |id: &&ChunkId| holdings.get(id).is_none_or(|held| held.copies < map.replicas);
    let groups: BTreeSet<u32> = ids.iter().filter(lacks).map(|id| map.group(id).0).collect();
    groups.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ClusterMap {
        let compression = cairn_proto::Compression::Off;
        ClusterMap {
            epoch: 1,
            nodes: vec![],
            pg_bits: 10,
            replicas: 2,
            min_replicas: 1,
            compression,
        }
    }

    fn check(lengths: &[u32]) -> Result<Vec<ChunkRef>, Status> {
        let ids: Vec<_> = (0..lengths.len()).map(|i| ChunkId::of(&[i as u8])).collect();
        let held = |(id, len): (&ChunkId, &u32)| {
            (*len > 0).then_some((*id, Holding { stored_len: *len, copies: 1 }))
        };
        let holdings = ids.iter().zip(lengths).filter_map(held).collect();
        references(&ids, &holdings, &[], 4096, &map())
    }

    #[test]
    fn groups_with_too_few_copies_are_named_once() {
        let map = map();
        let ids: Vec<_> = (0..3u8).map(|i| ChunkId::of(&[i])).collect();
        let held = |copies| Holding { stored_len: 1, copies };
        let holdings = [(ids[0], held(2)), (ids[1], held(1)), (ids[2], held(3))].into();
        let named = degraded(&[ids[0], ids[1], ids[1], ids[2]], &holdings, &map);
        assert_eq!(named, [map.group(&ids[1]).0]);
    }

    #[test]
    fn lengths_must_fit_their_places() {
        assert_eq!(check(&[4096, 4096, 7]).unwrap()[2].logical_len, 7);
        assert!(check(&[]).unwrap().is_empty());
        for wrong in [&[4096, 7, 7][..], &[4096, 4097], &[0], &[4096, 0, 4096]] {
            let status = check(wrong).unwrap_err();
            assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{wrong:?}");
        }
        let missing = check(&[4096, 0]).unwrap_err();
        assert!(missing.message().contains(&ChunkId::of(&[1]).to_string()), "{missing}");
    }
}
