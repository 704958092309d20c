//! A thin client to storage nodes: have, get, put, and what repair asks. Every call has a deadline.
//!
//! Connections are kept by address and bounded in number; tonic connects them again by itself. What
//! comes back is checked: a chunk whose bytes do not match its id is an error, never data.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{
    ChunkError, ChunkId, Node,
    handshake::Greeting,
    limits::{BATCH_CHUNKS, MESSAGE_MAX},
    pb::{self, storage_service_client::StorageServiceClient},
    status, transport,
};
use tokio::time::timeout;
use tonic::{
    Request, Status, Streaming, service::interceptor::InterceptedService, transport::Channel,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A dropping asks all homes about every chunk of a group.
const DROP_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECTIONS_MAX: usize = 256;

type Client = StorageServiceClient<InterceptedService<Channel, Greeting>>;

/// Connections to the nodes.
#[derive(Clone, Debug)]
pub(crate) struct ChunkClient {
    greeting: Greeting,
    clients: Arc<Mutex<HashMap<String, Client>>>,
}

impl ChunkClient {
    /// Greets every node with `greeting`.
    pub(crate) fn new(greeting: Greeting) -> Self {
        Self { greeting, clients: Arc::default() }
    }

    fn client(&self, node: &Node) -> Result<Client, ChunkError> {
        let address = node.address();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address) {
            return Ok(client.clone());
        }
        if clients.len() >= CONNECTIONS_MAX {
            clients.clear();
        }
        let channel = transport::endpoint(&address, CONNECT_TIMEOUT)
            .map_err(|_| ChunkError::Unreachable)?
            .connect_lazy();
        let client = StorageServiceClient::with_interceptor(channel, self.greeting.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        clients.insert(address, client.clone());
        Ok(client)
    }

    /// The stored length of each of `ids` on `node`, `None` where it has none, and the least epoch of
    /// garbage collection that what it has was stamped with by this question.
    pub(crate) async fn have(
        &self,
        node: &Node,
        ids: &[ChunkId],
    ) -> Result<(Vec<Option<u32>>, u64), ChunkError> {
        self.lengths(node, ids, true).await
    }

    /// The same without stamping anything.
    pub(crate) async fn has(
        &self,
        node: &Node,
        ids: &[ChunkId],
    ) -> Result<Vec<Option<u32>>, ChunkError> {
        Ok(self.lengths(node, ids, false).await?.0)
    }

    async fn lengths(
        &self,
        node: &Node,
        ids: &[ChunkId],
        touch: bool,
    ) -> Result<(Vec<Option<u32>>, u64), ChunkError> {
        let mut lengths = Vec::with_capacity(ids.len());
        let mut stamp = u64::MAX;
        for batch in ids.chunks(BATCH_CHUNKS) {
            let mut client = self.client(node)?;
            let wire = batch.iter().map(|id| id.to_wire()).collect();
            let request = pb::HaveRequest { ids: wire, touch };
            let answer = within(client.have(Request::new(request))).await?;
            if answer.stored_len_plus_one.len() != batch.len() {
                return Err(ChunkError::Malformed);
            }
            // A node that knows no epochs collects nothing.
            stamp = stamp.min(if answer.gc_epoch == 0 { u64::MAX } else { answer.gc_epoch });
            lengths.extend(answer.stored_len_plus_one.into_iter().map(|n| n.checked_sub(1)));
        }
        Ok((lengths, stamp))
    }

    /// The stored bytes of `id`, verified, from the first of `nodes` that has them.
    pub(crate) async fn get(&self, nodes: &[Node], id: ChunkId) -> Result<Bytes, ChunkError> {
        let mut worst = ChunkError::NotFound;
        for node in nodes {
            match self.get_from(node, id).await {
                Ok(data) => return Ok(data),
                Err(ChunkError::NotFound) => {}
                Err(e) => worst = e,
            }
        }
        Err(worst)
    }

    async fn get_from(&self, node: &Node, id: ChunkId) -> Result<Bytes, ChunkError> {
        let mut client = self.client(node)?;
        let request = pb::GetChunkRequest { chunk_id: id.to_string() };
        let answer = within(client.get_chunk(Request::new(request))).await?;
        if id.verify(&answer.data) { Ok(answer.data) } else { Err(ChunkError::Damaged) }
    }

    /// What `node` holds of each group.
    pub(crate) async fn group_digests(
        &self,
        node: &Node,
        pg_bits: u32,
    ) -> Result<pb::GroupDigestsResponse, ChunkError> {
        let mut client = self.client(node)?;
        within(client.group_digests(Request::new(pb::GroupDigestsRequest { pg_bits }))).await
    }

    /// Has `node` pull; what it says about it, from now on without a deadline.
    pub(crate) async fn pull(
        &self,
        node: &Node,
        request: pb::PullRequest,
    ) -> Result<Streaming<pb::PullProgress>, ChunkError> {
        let mut client = self.client(node)?;
        within(client.pull_groups(Request::new(request))).await
    }

    /// Has `node` let go of a group.
    pub(crate) async fn drop_group(
        &self,
        node: &Node,
        request: pb::DropRequest,
    ) -> Result<pb::DropResponse, ChunkError> {
        let mut client = self.client(node)?;
        let call = client.drop_group(Request::new(request));
        match timeout(DROP_TIMEOUT, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(refused)) => Err(status::to_chunk(&refused)),
            Err(_) => Err(ChunkError::Unreachable),
        }
    }

    /// The chunks of a group that count, up to `limit` of them after `after`.
    pub(crate) async fn list_group(
        &self,
        node: &Node,
        (group, pg_bits): (u32, u32),
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<GroupPage, ChunkError> {
        let after_the_one_before = group.checked_sub(1).map(|group| last_id(group, pg_bits));
        let next = (group + 1 < 1 << pg_bits).then(|| first_id(group + 1, pg_bits));
        let wire = |id: Option<ChunkId>| id.map(ChunkId::to_wire).unwrap_or_default();
        let request = pb::ListChunksRequest {
            after: wire(after.or(after_the_one_before)),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            before: wire(next),
        };
        let mut client = self.client(node)?;
        let answer = within(client.list_chunks(Request::new(request))).await?;
        let id = |entry: &pb::ChunkEntry| ChunkId::try_from(entry.id.as_ref());
        let last = answer.chunks.last().map(id).transpose();
        let last = last.map_err(|_| ChunkError::Malformed)?.filter(|_| !answer.end);
        if last.is_some() && last <= after {
            return Err(ChunkError::Malformed);
        }
        let counted = answer.chunks.iter().filter(|entry| !entry.uncounted).map(id);
        let chunks: Result<_, _> = counted.collect();
        Ok(GroupPage { chunks: chunks.map_err(|_| ChunkError::Malformed)?, last })
    }

    /// Puts `data` to `node`; durable there when this returns.
    pub(crate) async fn put(
        &self,
        node: &Node,
        id: ChunkId,
        data: Bytes,
    ) -> Result<(), ChunkError> {
        let mut client = self.client(node)?;
        let request = pb::PutChunkRequest { chunk_id: id.to_string(), data };
        within(client.put_chunk(Request::new(request))).await.map(|_| ())
    }

    /// Roots of backups that `node` keeps.
    pub(crate) async fn backups(&self, node: &Node) -> Result<Vec<pb::SealedBackup>, ChunkError> {
        let mut client = self.client(node)?;
        Ok(within(client.backups(Request::new(pb::BackupsRequest {}))).await?.backups)
    }

    /// The newest epoch of garbage collection that `node` knows.
    pub(crate) async fn gc_epoch(&self, node: &Node) -> Result<u64, ChunkError> {
        let mut client = self.client(node)?;
        Ok(within(client.node_status(Request::new(pb::NodeStatusRequest {}))).await?.gc_epoch)
    }

    /// Gives `node` the root of a backup; durable there when this returns.
    pub(crate) async fn keep_backup(
        &self,
        node: &Node,
        request: pb::KeepBackupRequest,
    ) -> Result<(), ChunkError> {
        let mut client = self.client(node)?;
        within(client.keep_backup(Request::new(request))).await.map(|_| ())
    }
}

/// A part of what a node has of a group.
#[derive(Debug)]
pub(crate) struct GroupPage {
    /// Those that count.
    pub(crate) chunks: Vec<ChunkId>,
    /// Where to go on; `None` at the end.
    pub(crate) last: Option<ChunkId>,
}

/// The least id of a group; groups have at least one bit here, or there is only one.
fn first_id(group: u32, pg_bits: u32) -> ChunkId {
    let mut id = [0; ChunkId::LEN];
    id[..4].copy_from_slice(&(group << (32 - pg_bits)).to_be_bytes());
    ChunkId::from_bytes(id)
}

/// The greatest id of a group.
fn last_id(group: u32, pg_bits: u32) -> ChunkId {
    let mut id = [0xff; ChunkId::LEN];
    let head = (group << (32 - pg_bits)) | (u32::MAX >> pg_bits);
    id[..4].copy_from_slice(&head.to_be_bytes());
    ChunkId::from_bytes(id)
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, ChunkError> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(refused)) => Err(status::to_chunk(&refused)),
        Err(_) => Err(ChunkError::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::Group;

    use super::*;

    #[test]
    fn ids_of_a_group_begin_and_end_where_it_does() {
        for (group, bits) in [(1, 1), (5, 10), (1022, 10), (65_534, 16)] {
            assert_eq!(Group::of(&first_id(group, bits), bits), Group(group));
            assert_eq!(Group::of(&last_id(group, bits), bits), Group(group));
            assert!(last_id(group - 1, bits) < first_id(group, bits));
        }
    }
}
