//! A thin client to storage nodes: have, get, put. Every call has a deadline.
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
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Channel};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
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

    /// The stored length of each of `ids` on `node`, `None` where it has none. What it has is
    /// stamped with the current epoch.
    pub(crate) async fn have(
        &self,
        node: &Node,
        ids: &[ChunkId],
    ) -> Result<Vec<Option<u32>>, ChunkError> {
        let mut lengths = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH_CHUNKS) {
            let mut client = self.client(node)?;
            let wire = batch.iter().map(|id| id.to_wire()).collect();
            let request = pb::HaveRequest { ids: wire, touch: true };
            let answer = within(client.have(Request::new(request))).await?;
            if answer.stored_len_plus_one.len() != batch.len() {
                return Err(ChunkError::Malformed);
            }
            lengths.extend(answer.stored_len_plus_one.into_iter().map(|n| n.checked_sub(1)));
        }
        Ok(lengths)
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

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, ChunkError> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(refused)) => Err(status::to_chunk(&refused)),
        Err(_) => Err(ChunkError::Unreachable),
    }
}
