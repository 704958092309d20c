//! Storage nodes for tests: real servers on loopback that can be slow, silent, full, damaged or dead.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{
    ChunkError, ChunkId, Node, NodeId, NodeState,
    handshake::Doorkeeper,
    pb::{
        self, storage_service_server::StorageService, storage_service_server::StorageServiceServer,
    },
    transport,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::rpc::scripted::{listen, runtime};

/// How a node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Slow(Duration),
    Silent,
    Full,
    Damaged,
}

pub(super) struct Disk {
    pub(super) mood: Mood,
    pub(super) chunks: HashMap<ChunkId, Bytes>,
    /// The batches received.
    pub(super) puts: Vec<Vec<ChunkId>>,
    /// Their sizes.
    pub(super) gets: Vec<usize>,
    /// Numbers of chunks that were asked for together.
    pub(super) asks: Vec<usize>,
}

/// One node. Ends with its runtime, connections and all.
pub(super) struct StorageNode {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    name: String,
    disk: Arc<Mutex<Disk>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for StorageNode {
    fn drop(&mut self) {
        self.kill();
    }
}

impl StorageNode {
    pub(super) fn start(fs: Uuid, name: &str) -> Self {
        let disk = Disk {
            mood: Mood::Good,
            chunks: HashMap::new(),
            puts: vec![],
            gets: vec![],
            asks: vec![],
        };
        let disk = Arc::new(Mutex::new(disk));
        let runtime = runtime();
        let service = Service { disk: disk.clone() };
        let service = StorageServiceServer::with_interceptor(service, Doorkeeper::new(fs, None));
        let (listener, address) = listen(&runtime);
        runtime.spawn(transport::server().serve_with_incoming(service, listener));
        let id = NodeId(Uuid::new_v4());
        Self { id, address, name: name.to_owned(), disk, runtime: Some(runtime) }
    }

    /// As kill -9 does it: the sockets close.
    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    pub(super) fn set(&self, mood: Mood) {
        self.disk().mood = mood;
    }

    pub(super) fn entry(&self, state: NodeState) -> Node {
        Node {
            id: self.id,
            host: "127.0.0.1".to_owned(),
            port: self.address.port(),
            weight: 1,
            zone: String::new(),
            state,
            name: self.name.clone(),
        }
    }
}

struct Service {
    disk: Arc<Mutex<Disk>>,
}

impl Disk {
    fn put(&mut self, batch: &pb::PutBatch) -> pb::PutBatchReply {
        let ids = batch.chunks.iter().map(|chunk| ChunkId::try_from(chunk.id.as_ref()).unwrap());
        self.puts.push(ids.collect());
        let mut failures = Vec::new();
        for (position, chunk) in (0..).zip(&batch.chunks) {
            let id = ChunkId::try_from(chunk.id.as_ref()).unwrap();
            assert!(id.verify(&chunk.data));
            if self.mood == Mood::Full {
                let error = Some(ChunkError::NoSpace.into());
                failures.push(pb::PutFailure { position, error });
            } else {
                self.chunks.insert(id, chunk.data.clone());
            }
        }
        pb::PutBatchReply { seq: batch.seq, failures, gc_epoch: 1 }
    }

    fn get(&mut self, batch: &pb::GetBatch) -> pb::GetBatchReply {
        self.gets.push(batch.ids.len());
        let item = |id: &Bytes| match self.chunks.get(&ChunkId::try_from(id.as_ref()).unwrap()) {
            None => {
                let error = Some(ChunkError::NotFound.into());
                pb::GetItem { error, ..pb::GetItem::default() }
            }
            Some(data) if self.mood == Mood::Damaged => {
                let mut wrong = data.to_vec();
                wrong[0] ^= 1;
                pb::GetItem { data: wrong.into(), ..pb::GetItem::default() }
            }
            Some(data) => pb::GetItem { data: data.clone(), ..pb::GetItem::default() },
        };
        pb::GetBatchReply { seq: batch.seq, items: batch.ids.iter().map(item).collect() }
    }
}

/// Answers each message with `answer`, unless the mood forbids.
fn serve<Q: Send + 'static, A: Send + 'static>(
    disk: Arc<Mutex<Disk>>,
    mut input: Streaming<Q>,
    answer: impl Fn(&mut Disk, &Q) -> A + Send + 'static,
) -> ReceiverStream<Result<A, Status>> {
    let (out, stream) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok(Some(batch)) = input.message().await {
            let mood = disk.lock().unwrap().mood;
            match mood {
                Mood::Silent => continue,
                Mood::Slow(delay) => tokio::time::sleep(delay).await,
                Mood::Good | Mood::Full | Mood::Damaged => {}
            }
            let reply = answer(&mut disk.lock().unwrap(), &batch);
            if out.send(Ok(reply)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this script"))
}

#[tonic::async_trait]
impl StorageService for Service {
    async fn keep_backup(
        &self,
        _: Request<pb::KeepBackupRequest>,
    ) -> Result<Response<pb::KeepBackupResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn backups(
        &self,
        _: Request<pb::BackupsRequest>,
    ) -> Result<Response<pb::BackupsResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    type PutStream = ReceiverStream<Result<pb::PutBatchReply, Status>>;
    type GetStream = ReceiverStream<Result<pb::GetBatchReply, Status>>;
    type VerifyStream = ReceiverStream<Result<pb::VerifyProgress, Status>>;

    async fn put(
        &self,
        request: Request<Streaming<pb::PutBatch>>,
    ) -> Result<Response<Self::PutStream>, Status> {
        Ok(Response::new(serve(self.disk.clone(), request.into_inner(), Disk::put)))
    }

    async fn get(
        &self,
        request: Request<Streaming<pb::GetBatch>>,
    ) -> Result<Response<Self::GetStream>, Status> {
        Ok(Response::new(serve(self.disk.clone(), request.into_inner(), Disk::get)))
    }

    async fn have(
        &self,
        request: Request<pb::HaveRequest>,
    ) -> Result<Response<pb::HaveResponse>, Status> {
        if self.disk.lock().unwrap().mood == Mood::Silent {
            std::future::pending::<()>().await;
        }
        let mut disk = self.disk.lock().unwrap();
        disk.asks.push(request.get_ref().ids.len());
        let len = |id: &Bytes| {
            let data = disk.chunks.get(&ChunkId::try_from(id.as_ref()).unwrap());
            data.map_or(0, |data| u32::try_from(data.len()).unwrap() + 1)
        };
        let stored_len_plus_one = request.get_ref().ids.iter().map(len).collect();
        Ok(Response::new(pb::HaveResponse { stored_len_plus_one, gc_epoch: 1 }))
    }

    async fn put_chunk(
        &self,
        _: Request<pb::PutChunkRequest>,
    ) -> Result<Response<pb::PutChunkResponse>, Status> {
        no()
    }

    async fn get_chunk(
        &self,
        _: Request<pb::GetChunkRequest>,
    ) -> Result<Response<pb::GetChunkResponse>, Status> {
        no()
    }

    async fn hello(
        &self,
        _: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        no()
    }

    async fn list_chunks(
        &self,
        _: Request<pb::ListChunksRequest>,
    ) -> Result<Response<pb::ListChunksResponse>, Status> {
        no()
    }

    async fn verify(
        &self,
        _: Request<pb::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        no()
    }

    async fn node_status(
        &self,
        _: Request<pb::NodeStatusRequest>,
    ) -> Result<Response<pb::NodeStatusResponse>, Status> {
        no()
    }

    type PullGroupsStream = ReceiverStream<Result<pb::PullProgress, Status>>;

    async fn group_digests(
        &self,
        _: Request<pb::GroupDigestsRequest>,
    ) -> Result<Response<pb::GroupDigestsResponse>, Status> {
        no()
    }

    async fn pull_groups(
        &self,
        _: Request<pb::PullRequest>,
    ) -> Result<Response<Self::PullGroupsStream>, Status> {
        no()
    }

    async fn drop_group(
        &self,
        _: Request<pb::DropRequest>,
    ) -> Result<Response<pb::DropResponse>, Status> {
        no()
    }

    async fn scrub(
        &self,
        _: Request<pb::ScrubRequest>,
    ) -> Result<Response<pb::ScrubResponse>, Status> {
        no()
    }

    type SweepStream = ReceiverStream<Result<pb::SweepProgress, Status>>;

    async fn sweep(
        &self,
        _: Request<Streaming<pb::SweepPart>>,
    ) -> Result<Response<Self::SweepStream>, Status> {
        no()
    }
}
