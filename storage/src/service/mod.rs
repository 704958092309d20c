//! The gRPC edge: converts, checks what was received, delegates to the [`Store`].
//!
//! [`unary`] has the two plain calls, [`put_stream`] and [`get_stream`] the streams that mounts use ([`bulk`]: their bytes),
//! [`verify`] the long check, [`repair`] what makes and drops copies, [`admin`] the rest. No chunk logic in here.

mod admin;
mod backups;
mod bulk;
mod get_stream;
mod put_stream;
mod repair;
mod sweep;
mod unary;
mod verify;

use std::{pin::Pin, sync::Arc};

use cairn_proto::{
    ChunkId, Malformed, handshake,
    limits::BATCH_CHUNKS,
    pb::{self, storage_service_server::StorageService},
};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{backups::Backups, repair::Repair, scrub::Scrubber, status::Identity, store::Store};

pub use bulk::Bulk;

/// What a streaming call answers with.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// See the module.
pub struct ChunkService {
    store: Arc<Store>,
    identity: Arc<Identity>,
    repair: Arc<Repair>,
    scrubber: Arc<Scrubber>,
    backups: Arc<Backups>,
    stopping: Stopping,
}

/// Where a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// From this machine, over the local socket.
    Near,
    /// Over TCP.
    Far,
}

/// Tells streams that the node is about to stop.
#[derive(Clone)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Stops when the sender says so or is gone.
    pub fn new(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Returns when the node is about to stop.
    pub async fn wait(&mut self) {
        // An error means that nobody runs the node any more.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether it is about to.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

impl ChunkService {
    /// Serves `store`.
    pub fn new(
        store: Arc<Store>,
        identity: Arc<Identity>,
        repair: Arc<Repair>,
        scrubber: Arc<Scrubber>,
        backups: Arc<Backups>,
        stopping: Stopping,
    ) -> Self {
        Self { store, identity, repair, scrubber, backups, stopping }
    }
}

/// Checks the ids of a batch.
fn ids(wire: &[bytes::Bytes]) -> Result<Vec<ChunkId>, Malformed> {
    check_count(wire.len())?;
    wire.iter().map(|id| ChunkId::try_from(id.as_ref())).collect()
}

fn check_count(n: usize) -> Result<(), Malformed> {
    if n > BATCH_CHUNKS {
        return Err(Malformed::new("batch", format!("{n} chunks, at most {BATCH_CHUNKS}")));
    }
    Ok(())
}

#[tonic::async_trait]
impl StorageService for ChunkService {
    async fn put_chunk(
        &self,
        request: Request<pb::PutChunkRequest>,
    ) -> Result<Response<pb::PutChunkResponse>, Status> {
        unary::put_chunk(&self.store, request.into_inner()).await.map(Response::new)
    }

    async fn get_chunk(
        &self,
        request: Request<pb::GetChunkRequest>,
    ) -> Result<Response<pb::GetChunkResponse>, Status> {
        unary::get_chunk(&self.store, request.into_inner()).await.map(Response::new)
    }

    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        admin::hello(self, &request.into_inner()).map(Response::new)
    }

    type PutStream = Replies<pb::PutBatchReply>;

    async fn put(
        &self,
        request: Request<Streaming<pb::PutBatch>>,
    ) -> Result<Response<Self::PutStream>, Status> {
        handshake::require(request.metadata())?;
        let replies =
            put_stream::open(Arc::clone(&self.store), request.into_inner(), self.stopping.clone());
        Ok(Response::new(replies))
    }

    type GetStream = Replies<pb::GetBatchReply>;

    async fn get(
        &self,
        request: Request<Streaming<pb::GetBatch>>,
    ) -> Result<Response<Self::GetStream>, Status> {
        handshake::require(request.metadata())?;
        let replies = get_stream::open(
            Arc::clone(&self.store),
            request.into_inner(),
            Caller::Far,
            self.stopping.clone(),
        );
        Ok(Response::new(replies))
    }

    async fn have(
        &self,
        request: Request<pb::HaveRequest>,
    ) -> Result<Response<pb::HaveResponse>, Status> {
        handshake::require(request.metadata())?;
        admin::have(&self.store, &request.into_inner()).await.map(Response::new)
    }

    async fn list_chunks(
        &self,
        request: Request<pb::ListChunksRequest>,
    ) -> Result<Response<pb::ListChunksResponse>, Status> {
        handshake::require(request.metadata())?;
        admin::list_chunks(&self.store, &request.into_inner()).await.map(Response::new)
    }

    type VerifyStream = Replies<pb::VerifyProgress>;

    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        handshake::require(request.metadata())?;
        Ok(Response::new(verify::open(Arc::clone(&self.store), self.stopping.clone())))
    }

    async fn node_status(
        &self,
        request: Request<pb::NodeStatusRequest>,
    ) -> Result<Response<pb::NodeStatusResponse>, Status> {
        handshake::require(request.metadata())?;
        Ok(Response::new(admin::node_status(self).await))
    }

    async fn keep_backup(
        &self,
        request: Request<pb::KeepBackupRequest>,
    ) -> Result<Response<pb::KeepBackupResponse>, Status> {
        handshake::require(request.metadata())?;
        backups::keep(self, request.into_inner()).await.map(Response::new)
    }

    async fn backups(
        &self,
        request: Request<pb::BackupsRequest>,
    ) -> Result<Response<pb::BackupsResponse>, Status> {
        handshake::require(request.metadata())?;
        Ok(Response::new(backups::all(self).await))
    }

    async fn group_digests(
        &self,
        request: Request<pb::GroupDigestsRequest>,
    ) -> Result<Response<pb::GroupDigestsResponse>, Status> {
        handshake::require(request.metadata())?;
        admin::group_digests(&self.store, &request.into_inner()).await.map(Response::new)
    }

    type PullGroupsStream = Replies<pb::PullProgress>;

    async fn pull_groups(
        &self,
        request: Request<pb::PullRequest>,
    ) -> Result<Response<Self::PullGroupsStream>, Status> {
        handshake::require(request.metadata())?;
        repair::pull(&self.repair, request.get_ref(), self.stopping.clone()).map(Response::new)
    }

    async fn drop_group(
        &self,
        request: Request<pb::DropRequest>,
    ) -> Result<Response<pb::DropResponse>, Status> {
        handshake::require(request.metadata())?;
        repair::leave(&self.repair, request.get_ref()).await.map(Response::new)
    }

    async fn scrub(
        &self,
        request: Request<pb::ScrubRequest>,
    ) -> Result<Response<pb::ScrubResponse>, Status> {
        handshake::require(request.metadata())?;
        Ok(Response::new(pb::ScrubResponse { was_running: self.scrubber.begin() }))
    }

    type SweepStream = Replies<pb::SweepProgress>;

    async fn sweep(
        &self,
        request: Request<Streaming<pb::SweepPart>>,
    ) -> Result<Response<Self::SweepStream>, Status> {
        handshake::require(request.metadata())?;
        let parts = request.into_inner();
        sweep::open(&self.store, parts, self.stopping.clone()).await.map(Response::new)
    }
}
