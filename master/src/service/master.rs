//! `impl MasterService`: each call converts, delegates and converts back.

use std::{pin::Pin, sync::Arc};

use cairn_proto::{
    handshake,
    pb::{self, master_service_server::MasterService},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::Service;
use crate::{cluster::node_session, session::outbox::OutboxStream};

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service as tonic wants it.
#[derive(Clone)]
pub(crate) struct Edge(pub(crate) Arc<Service>);

#[async_trait]
impl MasterService for Edge {
    async fn register_node(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        self.0.register(request.into_inner()).await.map(Response::new)
    }

    async fn request_put_targets(
        &self,
        request: Request<pb::PutTargetsRequest>,
    ) -> Result<Response<pb::PutTargetsResponse>, Status> {
        self.0.put_targets(&request.into_inner()).map(Response::new)
    }

    async fn announce_manifest(
        &self,
        request: Request<pb::ManifestRequest>,
    ) -> Result<Response<pb::ManifestResponse>, Status> {
        self.0.announce(request.into_inner()).await.map(Response::new)
    }

    async fn list_files(
        &self,
        request: Request<pb::ListFilesRequest>,
    ) -> Result<Response<pb::ListFilesResponse>, Status> {
        self.0.list(request.into_inner()).await.map(Response::new)
    }

    async fn get_manifest(
        &self,
        request: Request<pb::GetManifestRequest>,
    ) -> Result<Response<pb::GetManifestResponse>, Status> {
        self.0.file_manifest(request.into_inner()).await.map(Response::new)
    }

    async fn request_get_targets(
        &self,
        request: Request<pb::GetTargetsRequest>,
    ) -> Result<Response<pb::GetTargetsResponse>, Status> {
        self.0.get_targets(&request.into_inner()).map(Response::new)
    }

    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        self.0.greet(&request.into_inner()).map(Response::new)
    }

    type SessionStream = OutboxStream;

    async fn session(
        &self,
        request: Request<Streaming<pb::ClientFrame>>,
    ) -> Result<Response<OutboxStream>, Status> {
        handshake::require(request.metadata())?;
        Ok(Response::new(self.0.sessions.serve(request.into_inner())))
    }

    type NodeSessionStream = node_session::Orders;

    async fn node_session(
        &self,
        request: Request<Streaming<pb::NodeReport>>,
    ) -> Result<Response<node_session::Orders>, Status> {
        handshake::require(request.metadata())?;
        let stopping = self.0.sessions.stopping.clone();
        Ok(Response::new(node_session::serve(&self.0.cluster, request.into_inner(), stopping)))
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.0.status().await.map(Response::new)
    }

    type WalkStream = Boxed<pb::WalkEntry>;

    async fn walk(
        &self,
        request: Request<pb::WalkRequest>,
    ) -> Result<Response<Self::WalkStream>, Status> {
        handshake::require(request.metadata())?;
        let entries = self.0.walk(request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(entries))))
    }

    async fn change_node(
        &self,
        request: Request<pb::ChangeNodeRequest>,
    ) -> Result<Response<pb::ChangeNodeResponse>, Status> {
        handshake::require(request.metadata())?;
        self.0.change_node(request.into_inner()).await.map(Response::new)
    }

    async fn set_copies(
        &self,
        request: Request<pb::SetCopiesRequest>,
    ) -> Result<Response<pb::SetCopiesResponse>, Status> {
        handshake::require(request.metadata())?;
        self.0.set_copies(request.into_inner()).await.map(Response::new)
    }

    type FsckStream = Boxed<pb::FsckProgress>;

    async fn fsck(
        &self,
        request: Request<pb::FsckRequest>,
    ) -> Result<Response<Self::FsckStream>, Status> {
        handshake::require(request.metadata())?;
        let progress = self.0.fsck(request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(progress))))
    }

    async fn set_quota(
        &self,
        request: Request<pb::SetQuotaRequest>,
    ) -> Result<Response<pb::Quota>, Status> {
        handshake::require(request.metadata())?;
        self.0.set_quota(request.into_inner()).await.map(Response::new)
    }

    async fn remove_quota(
        &self,
        request: Request<pb::RemoveQuotaRequest>,
    ) -> Result<Response<pb::Quota>, Status> {
        handshake::require(request.metadata())?;
        self.0.remove_quota(request.into_inner()).await.map(Response::new)
    }

    async fn quotas(
        &self,
        request: Request<pb::QuotasRequest>,
    ) -> Result<Response<pb::QuotasResponse>, Status> {
        handshake::require(request.metadata())?;
        self.0.quotas(request.into_inner()).await.map(Response::new)
    }

    type DumpStream = Boxed<pb::DumpPart>;

    async fn dump(
        &self,
        request: Request<pb::DumpRequest>,
    ) -> Result<Response<Self::DumpStream>, Status> {
        handshake::require(request.metadata())?;
        let parts = self.0.dump().await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(parts))))
    }

    type CollectGarbageStream = Boxed<pb::CollectProgress>;

    async fn collect_garbage(
        &self,
        request: Request<pb::CollectRequest>,
    ) -> Result<Response<Self::CollectGarbageStream>, Status> {
        handshake::require(request.metadata())?;
        let progress = self.0.collect(request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(progress))))
    }
}
