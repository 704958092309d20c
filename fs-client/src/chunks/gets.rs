//! [`Gets`]: what the Get stream of a node carries: chunks, or where they lie on this machine. Answers are verified
//! before anybody sees them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId, ChunkRef, bulk, pb, status};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    Order,
    hashing::Hashing,
    local_reads::LocalReads,
    pipe::{Cargo, Item},
    stretches::Stretches,
};
use crate::rpc::connect::{NodeWire, StorageClient};

/// A chunk of this length has its buffer for itself.
const ALONE: usize = 32 * 1024;
/// Longer ones are not read on the network's threads.
const AT_ONCE: u32 = 64 * 1024;
/// Chunks that one thread verifies in a go, so that two share a batch.
const VERIFY: usize = 8;
/// Chunks that one thread reads in a go, where they lie together. Measured: a disk is quicker with 1 MiB at a time.
const READ: usize = 16;
/// Of them, so many are hashed together, while the processor still has them at hand.
const HASHED: usize = 4;
/// A node that is told of damage, or asked for what its files did not give, is waited for so long.
const REPORT: Duration = Duration::from_secs(10);

/// A chunk and how long the node took, or why it does not give it.
pub(super) type Answer = Result<(Bytes, Duration), ChunkError>;

/// One chunk from one node.
pub(super) struct GetItem {
    pub(super) order: Order,
    pub(super) chunk: ChunkRef,
    pub(super) asked: Instant,
    pub(super) reply: oneshot::Sender<Answer>,
}

impl GetItem {
    /// Whether `data`, which `id` names, is the chunk.
    fn fits(&self, id: ChunkId, data: &[u8]) -> bool {
        id == self.chunk.id && data.len() == self.chunk.stored_len as usize
    }

    /// `data` is the chunk.
    fn is(self, data: Bytes) -> Verified {
        let took = self.asked.elapsed();
        Verified::Told(self, Ok((data, took)))
    }
}

impl Item for GetItem {
    fn bytes(&self) -> usize {
        self.chunk.stored_len as usize
    }

    fn order(&self) -> Order {
        self.order
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn fail(self, error: ChunkError) {
        let _ = self.reply.send(Err(error));
    }
}

/// See the head of this file.
pub(super) struct Gets {
    pub(super) wire: NodeWire,
    /// For small calls.
    pub(super) client: StorageClient,
    pub(super) hashing: Hashing,
    /// Whether the node is connected to on this machine: only then its word is taken for where a chunk lies.
    pub(super) near: Arc<AtomicBool>,
    pub(super) local: Arc<LocalReads>,
}

impl Cargo for Gets {
    type Item = GetItem;
    type Request = pb::GetBatch;
    type Response = pb::GetBatchReply;

    /// Other nodes are asked long before that.
    const PATH: &str = bulk::GET;
    const STALL: Duration = Duration::from_secs(3);

    fn request<'a>(&self, seq: u64, items: impl Iterator<Item = &'a GetItem>) -> pb::GetBatch {
        let ids = items.map(|item| item.chunk.id.to_wire()).collect();
        pb::GetBatch { seq, ids, places: self.is_near() && self.local.wanted() }
    }

    fn wire(&self) -> NodeWire {
        self.wire.clone()
    }

    fn seq(response: &pb::GetBatchReply) -> u64 {
        response.seq
    }

    async fn settle(&self, items: Vec<GetItem>, response: pb::GetBatchReply) {
        if items.len() != response.items.len() {
            for item in items {
                item.fail(ChunkError::Unreachable);
            }
            return;
        }
        let mut pairs: Vec<_> = items.into_iter().zip(response.items).collect();
        // The word of others is not taken for a file to open; they send what is asked for.
        if !self.is_near() {
            pairs
                .iter_mut()
                .filter_map(|(_, answer)| answer.place.as_mut())
                .for_each(|place| *place = pb::Place::default());
        }
        if let [(item, answer)] = &mut pairs[..] {
            self.read_now(item, answer);
        }
        let here = pairs.iter().any(|(_, answer)| is_to_be_read(answer));
        if here {
            // As they lie, so that those of one part are neighbours.
            pairs.sort_by(|(_, a), (_, b)| position(a).cmp(&position(b)));
        }
        let mut pairs = pairs.into_iter();
        loop {
            let part: Vec<_> = pairs.by_ref().take(if here { READ } else { VERIFY }).collect();
            if part.is_empty() {
                return;
            }
            let count = part.len();
            let bytes = part.iter().map(|(item, _)| item.bytes()).sum();
            let local = self.local.clone();
            let verify_all = move || verify_all(&local, part);
            if here {
                self.local.submit(count, bytes, verify_all, self.tell_all());
            } else {
                self.hashing.submit(bytes, verify_all, self.tell_all());
            }
        }
    }
}

impl Gets {
    fn is_near(&self) -> bool {
        self.near.load(Relaxed)
    }

    /// A lone chunk in the kernel's memory is read at once: another thread costs more than the copy does.
    fn read_now(&self, item: &GetItem, answer: &mut pb::GetItem) {
        if let Some(place) = place_of(item, answer)
            && place.length <= AT_ONCE
            && let Some(data) = self.local.read_now(place)
        {
            answer.data = data;
        }
    }

    /// Hands on what is verified. At what is not the chunk, the node looks itself.
    fn tell_all(&self) -> impl FnOnce(Vec<Verified>) + Send + 'static {
        let (client, runtime) = (self.client.clone(), Handle::current());
        move |verified| {
            for verified in verified {
                match verified {
                    Verified::Told(item, result) => _ = item.reply.send(result),
                    Verified::Missed(item) => _ = runtime.spawn(ask(client.clone(), item)),
                    Verified::Wrong(item) => {
                        runtime.spawn(report(client.clone(), item.chunk.id));
                        item.fail(ChunkError::Damaged);
                    }
                }
            }
        }
    }
}

/// What a node's answer is worth.
enum Verified {
    /// The chunk, or why the node does not give it.
    Told(GetItem, Answer),
    /// Its file does not hold the chunk where it said: it may have been moved since.
    Missed(GetItem),
    /// The node sent something that is not the chunk.
    Wrong(GetItem),
}

fn is_to_be_read(answer: &pb::GetItem) -> bool {
    answer.place.is_some() && answer.data.is_empty()
}

fn position(answer: &pb::GetItem) -> Option<(&str, u64)> {
    answer.place.as_ref().map(|place| (place.file.as_str(), place.offset))
}

/// Where the answer says that the chunk lies, if it can be the chunk.
fn place_of<'a>(item: &GetItem, answer: &'a pb::GetItem) -> Option<&'a pb::Place> {
    answer.place.as_ref().filter(|place| place.length == item.chunk.stored_len)
}

/// What came in answer to an item: something that may be its chunk, or what there is to tell already.
enum Came {
    /// The chunk is not there, or nobody wants it any more.
    Told(GetItem, ChunkError),
    /// This, from the node's file.
    Read(GetItem, Bytes),
    /// This, from the node.
    Sent(GetItem, Bytes),
}

impl Came {
    fn data(&self) -> &[u8] {
        match self {
            Self::Told(..) => &[],
            Self::Read(_, data) | Self::Sent(_, data) => data,
        }
    }
}

/// Takes it from what was read together, or reads it where the node says.
fn data_of(
    local: &Arc<LocalReads>,
    stretches: &Stretches<'_>,
    item: GetItem,
    answer: pb::GetItem,
) -> Came {
    if item.reply.is_closed() {
        return Came::Told(item, ChunkError::Unreachable);
    }
    if let Some(detail) = &answer.error {
        return Came::Told(item, status::chunk_error(detail));
    }
    match place_of(&item, &answer) {
        Some(place) if answer.data.is_empty() => {
            let data = stretches.get(place).map_or_else(|| local.read(place), Ok);
            Came::Read(item, data.unwrap_or_default())
        }
        _ if answer.place.is_some() => Came::Read(item, answer.data),
        _ => Came::Sent(item, answer.data),
    }
}

fn verify_all(local: &Arc<LocalReads>, part: Vec<(GetItem, pb::GetItem)>) -> Vec<Verified> {
    let mut verified = Vec::with_capacity(part.len());
    let wanted = part.iter().filter(|(item, answer)| item.is_wanted() && is_to_be_read(answer));
    let places = wanted.filter_map(|(item, answer)| place_of(item, answer)).collect();
    let stretches = local.read_together(places);
    let mut came = part.into_iter().map(|(item, answer)| data_of(local, &stretches, item, answer));
    loop {
        let few: Vec<_> = came.by_ref().take(HASHED).collect();
        if few.is_empty() {
            return verified;
        }
        verified.extend(verify(local, few));
    }
}

/// Hashes what came, together.
fn verify(local: &LocalReads, came: Vec<Came>) -> Vec<Verified> {
    let ids = ChunkId::of_each(&came.iter().map(Came::data).collect::<Vec<_>>());
    let verdict = |(came, id): (Came, ChunkId)| match came {
        Came::Told(item, error) => Verified::Told(item, Err(error)),
        Came::Read(item, data) => {
            let right = item.fits(id, &data);
            local.note(right.then_some(data.len()));
            if right { item.is(data) } else { Verified::Missed(item) }
        }
        Came::Sent(item, data) if item.fits(id, &data) => item.is(alone(data)),
        Came::Sent(item, _) => Verified::Wrong(item),
    };
    came.into_iter().zip(ids).map(verdict).collect()
}

/// What arrived over the network is handed on as it is when it is large: a frame of its own, which the transport
/// puts into a buffer of about its length. Small ones share a buffer, so they are copied out: whoever keeps one
/// chunk must not keep many.
fn alone(data: Bytes) -> Bytes {
    if data.len() >= ALONE { data } else { Bytes::copy_from_slice(&data) }
}

/// Has the node look at its copy itself: it then knows, and the copy is healed.
async fn report(mut client: StorageClient, id: ChunkId) {
    let request = pb::GetChunkRequest { chunk_id: id.to_string() };
    // Its scrub finds it too, if later.
    let _ = timeout(REPORT, client.get_chunk(request)).await;
}

/// Has the node send what its files did not give. It looks at its copy before: see [`report`].
async fn ask(mut client: StorageClient, item: GetItem) {
    let request = pb::GetChunkRequest { chunk_id: item.chunk.id.to_string() };
    let result = match timeout(REPORT, client.get_chunk(request)).await {
        Ok(Ok(reply)) => {
            let data = reply.into_inner().data;
            let right = item.fits(ChunkId::of(&data), &data);
            right.then(|| (data, item.asked.elapsed())).ok_or(ChunkError::Damaged)
        }
        Ok(Err(refusal)) => Err(status::to_chunk(&refusal)),
        Err(_) => Err(ChunkError::Unreachable),
    };
    let _ = item.reply.send(result);
}
