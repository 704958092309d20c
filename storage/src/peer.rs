//! [`Peer`]: another storage node, asked as a client asks: same greeting, same token.
//!
//! Everything has a deadline. What arrives is checked here; whether chunks are what their ids name is
//! checked by whoever stores them.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    ChunkError, ChunkId, Malformed, Node,
    handshake::{self, Greeting},
    limits::{BATCH_CHUNKS, MESSAGE_MAX},
    pb::{self, storage_service_client::StorageServiceClient},
    status::{self, innermost, sentence},
    transport,
};
use tokio::time::timeout;
use tonic::{Status, service::interceptor::InterceptedService, transport::Channel};
use uuid::Uuid;

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(10);
const DATA: Duration = Duration::from_secs(30);

/// Why a node could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{node} {why}")]
pub struct PeerError {
    /// What it is called.
    pub node: String,
    why: String,
}

/// How other nodes of the file system are reached.
#[derive(Clone, Debug)]
pub struct Peers {
    fs: Uuid,
    greeting: Greeting,
}

/// See the module.
#[derive(Clone)]
pub struct Peer {
    name: String,
    client: StorageServiceClient<InterceptedService<Channel, Greeting>>,
}

/// A chunk that a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub id: ChunkId,
    /// Length of its data.
    pub len: u32,
    /// Epoch in which it was last put or touched there.
    pub epoch: u64,
    /// Quarantined or damaged.
    pub uncounted: bool,
}

impl Peers {
    /// Peers of the file system `fs`.
    pub fn new(fs: Uuid, greeting: Greeting) -> Self {
        Self { fs, greeting }
    }

    /// Connects, and makes sure that it is the node meant and not another under its old address.
    ///
    /// # Errors
    /// When it cannot be reached in time, or is another.
    pub async fn connect(&self, node: &Node) -> Result<Peer, PeerError> {
        let name = if node.name.is_empty() { node.id.to_string() } else { node.name.clone() };
        let refuse = |why: String| PeerError { node: name.clone(), why };
        let address = format!("{}:{}", node.host, node.port);
        let endpoint = transport::endpoint(&address, CONNECT)
            .map_err(|e| refuse(format!("has no usable address: {}", innermost(&e))))?;
        let channel = timeout(CONNECT, endpoint.connect())
            .await
            .map_err(|_| refuse("cannot be reached in time".into()))?
            .map_err(|e| refuse(format!("cannot be reached: {}", innermost(&e))))?;
        let client = StorageServiceClient::with_interceptor(channel, self.greeting.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let mut peer = Peer { name: name.clone(), client };
        let hello = pb::HelloRequest {
            version: handshake::VERSION,
            features: handshake::FEATURES,
            fs_uuid: self.fs.to_string(),
        };
        let call = peer.client.hello(hello);
        let answer = within(&peer.name, ANSWER, call).await?.into_inner();
        if answer.node_id != node.id.to_string() {
            return Err(refuse(format!("is not at {address} any more: another node is")));
        }
        Ok(peer)
    }
}

impl Peer {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Chunks with ids between these two, in order, and whether those are all.
    ///
    /// # Errors
    /// When it does not answer in time, or not in order.
    pub async fn list(
        &self,
        after: Option<ChunkId>,
        before: Option<ChunkId>,
        limit: u32,
    ) -> Result<(Vec<Held>, bool), PeerError> {
        let wire = |id: Option<ChunkId>| id.map(ChunkId::to_wire).unwrap_or_default();
        let request = pb::ListChunksRequest { after: wire(after), before: wire(before), limit };
        let mut client = self.client.clone();
        let page = within(&self.name, ANSWER, client.list_chunks(request)).await?.into_inner();
        let mut held = Vec::with_capacity(page.chunks.len().min(BATCH_CHUNKS));
        let mut end = page.end || page.chunks.is_empty();
        for chunk in page.chunks {
            let id = ChunkId::try_from(chunk.id.as_ref()).map_err(|e| self.nonsense(&e))?;
            // A node that does not know `before` lists on.
            if before.is_some_and(|before| id >= before) {
                end = true;
                break;
            }
            let previous = held.last().map(|h: &Held| h.id).or(after);
            if previous.is_some_and(|previous| id <= previous) {
                return Err(self.nonsense(&Malformed::new("listing", "is not in order")));
            }
            let (len, epoch) = (chunk.stored_len, chunk.touched_epoch);
            held.push(Held { id, len, epoch, uncounted: chunk.uncounted });
        }
        Ok((held, end))
    }

    /// Which of these chunks it stamped now, and with which epoch at least.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn touch(&self, ids: &[ChunkId]) -> Result<(Vec<bool>, u64), PeerError> {
        let request =
            pb::HaveRequest { ids: ids.iter().map(|id| id.to_wire()).collect(), touch: true };
        let mut client = self.client.clone();
        let answer = within(&self.name, ANSWER, client.have(request)).await?.into_inner();
        if answer.stored_len_plus_one.len() != ids.len() {
            return Err(self.nonsense(&Malformed::new("answer", "has another length")));
        }
        let have = answer.stored_len_plus_one.iter().map(|len| *len != 0).collect();
        Ok((have, answer.gc_epoch))
    }

    /// The data of these chunks, in their order.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn get(&self, ids: &[ChunkId]) -> Result<Vec<Result<Bytes, ChunkError>>, PeerError> {
        let mut results = Vec::with_capacity(ids.len());
        // It puts off what does not fit into one answer; the first always does.
        while results.len() < ids.len() {
            let items = self.get_some(&ids[results.len()..]).await?;
            let before = results.len();
            for item in items {
                match item.error {
                    None => results.push(Ok(item.data)),
                    Some(error) => match status::chunk_error(&error) {
                        ChunkError::Overloaded => break,
                        other => results.push(Err(other)),
                    },
                }
            }
            if results.len() == before || results.len() > ids.len() {
                return Err(self.nonsense(&Malformed::new("answer", "has another length")));
            }
        }
        Ok(results)
    }

    async fn get_some(&self, ids: &[ChunkId]) -> Result<Vec<pb::GetItem>, PeerError> {
        let ids = ids.iter().map(|id| id.to_wire()).collect();
        let batch = pb::GetBatch { seq: 1, ids, places: false };
        let mut client = self.client.clone();
        let mut answers =
            within(&self.name, DATA, client.get(tokio_stream::once(batch))).await?.into_inner();
        match within(&self.name, DATA, answers.message()).await? {
            Some(reply) => Ok(reply.items),
            None => Err(self.nonsense(&Malformed::new("stream", "ended without an answer"))),
        }
    }

    /// Makes it look whether its copy is what the id names, so that it knows of the damage itself.
    pub async fn report_damaged(&self, id: &ChunkId) {
        let mut client = self.client.clone();
        let request = pb::GetChunkRequest { chunk_id: id.to_string() };
        // Its scrub finds it too, if later.
        let _ = timeout(ANSWER, client.get_chunk(request)).await;
    }

    fn nonsense(&self, why: &Malformed) -> PeerError {
        PeerError { node: self.name.clone(), why: format!("answers nonsense: {why}") }
    }
}

async fn within<T>(
    node: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, PeerError> {
    let refuse = |why: String| PeerError { node: node.to_owned(), why };
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(refuse(format!("answers: {}", sentence(&status)))),
        Err(_) => Err(refuse(format!("gave no answer for {} s", limit.as_secs()))),
    }
}
