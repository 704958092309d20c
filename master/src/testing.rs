//! Real masters in this process, and clients and storage nodes that speak the wire to them. Tests only.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    ChunkId,
    handshake::Greeting,
    pb::{
        self,
        master_service_client::MasterServiceClient,
        storage_service_server::{StorageService, StorageServiceServer},
    },
    transport,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, server::TcpIncoming},
};
use uuid::Uuid;

use crate::{
    config::{Config, EngineKind},
    format::{Format, PG_BITS_DEFAULT},
    server::{self, Running},
};

pub(crate) const CHUNK: u32 = 4096;
pub(crate) const ENGINES: [EngineKind; 2] = [EngineKind::Memory, EngineKind::Fjall];
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type Calls = MasterServiceClient<InterceptedService<Channel, Greeting>>;

/// A master that serves a directory of its own.
pub(crate) struct TestMaster {
    pub(crate) config: Config,
    pub(crate) fs: Uuid,
    running: Option<Running>,
    _home: tempfile::TempDir,
}

impl TestMaster {
    pub(crate) async fn start(engine: EngineKind) -> Self {
        Self::start_with(engine, |_| ()).await
    }

    pub(crate) async fn start_with(engine: EngineKind, adjust: impl FnOnce(&mut Config)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data: PathBuf = home.path().join("master");
        let fs = Uuid::new_v4();
        let format = Format {
            fs_uuid: fs,
            chunk_size: CHUNK,
            replicas: 2,
            min_replicas: 1,
            pg_bits: PG_BITS_DEFAULT,
            compression: cairn_proto::Compression::Off,
        };
        server::format(&data, &format).unwrap();
        let mut config = Config::new(data);
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.engine = engine;
        adjust(&mut config);
        let running = server::start(config.clone()).await.unwrap();
        Self { config, fs, running: Some(running), _home: home }
    }

    pub(crate) async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.running = Some(server::start(self.config.clone()).await.unwrap());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address
    }

    pub(crate) async fn calls(&self) -> Calls {
        self.calls_as(Greeting::new(Some(self.fs), self.config.token.as_ref())).await
    }

    pub(crate) async fn calls_as(&self, greeting: Greeting) -> Calls {
        let endpoint = transport::endpoint(&self.address().to_string(), PATIENCE).unwrap();
        let channel = endpoint.connect().await.unwrap();
        MasterServiceClient::with_interceptor(channel, greeting)
            .max_decoding_message_size(cairn_proto::limits::MESSAGE_MAX)
    }

    pub(crate) async fn client(&self) -> TestClient {
        TestClient::open(self, pb::OpenSession { client_name: "test".into(), ..Default::default() })
            .await
            .unwrap()
    }

    pub(crate) async fn resume(&self, session_id: u64, open_inodes: Vec<u64>) -> TestClient {
        let client_name = "test".into();
        let open = pb::OpenSession { session_id, client_name, next_seq: 1000, open_inodes };
        TestClient::open(self, open).await.unwrap()
    }

    pub(crate) async fn status(&self) -> pb::StatusResponse {
        self.calls().await.status(pb::StatusRequest {}).await.unwrap().into_inner()
    }
}

/// A client with one session stream.
pub(crate) struct TestClient {
    pub(crate) welcome: pb::Welcome,
    frames: mpsc::Sender<pb::ClientFrame>,
    replies: Streaming<pb::ServerFrame>,
    pub(crate) durable_below: u64,
    pub(crate) maps: Vec<pb::ClusterMap>,
    next_seq: u64,
}

impl TestClient {
    pub(crate) async fn open(master: &TestMaster, open: pb::OpenSession) -> Result<Self, Status> {
        let first = pb::ClientFrame {
            body: Some(pb::client_frame::Body::OpenSession(open)),
            ..Default::default()
        };
        Self::begin(master.calls().await, first).await
    }

    pub(crate) async fn begin(mut calls: Calls, first: pb::ClientFrame) -> Result<Self, Status> {
        let (frames, sent) = mpsc::channel(20_000);
        frames.send(first).await.unwrap();
        let replies = calls.session(ReceiverStream::new(sent)).await?.into_inner();
        let mut client = Self {
            welcome: pb::Welcome::default(),
            frames,
            replies,
            durable_below: 0,
            maps: vec![],
            next_seq: 1,
        };
        match client.frame().await?.and_then(|f| f.body) {
            Some(pb::server_frame::Body::Welcome(welcome)) => client.welcome = welcome,
            other => panic!("instead of a welcome: {other:?}"),
        }
        Ok(client)
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn frame(&mut self) -> Result<Option<pb::ServerFrame>, Status> {
        let frame = timeout(PATIENCE, self.replies.message()).await.expect("a frame in time")?;
        if let Some(frame) = &frame {
            self.durable_below = self.durable_below.max(frame.durable_below);
            if let Some(pb::server_frame::Body::Push(push)) = &frame.body
                && let Some(pb::push::Kind::Map(map)) = &push.kind
            {
                self.maps.push(map.clone());
            }
        }
        Ok(frame)
    }

    pub(crate) async fn send(&self, seq: u64, kind: Option<pb::op::Kind>) {
        let op = pb::Op { caller: Some(pb::Caller::default()), kind };
        let body = Some(pb::client_frame::Body::Op(op));
        self.frames.send(pb::ClientFrame { seq, acked_below: 0, body }).await.unwrap();
    }

    pub(crate) async fn raw(&self, frame: pb::ClientFrame) {
        self.frames.send(frame).await.unwrap();
    }

    /// The next reply, whatever its number.
    pub(crate) async fn next_reply(&mut self) -> (u64, pb::reply::Kind) {
        loop {
            let frame = self.frame().await.unwrap().expect("the stream goes on");
            if let Some(pb::server_frame::Body::Reply(reply)) = frame.body {
                return (frame.seq, reply.kind.expect("a reply says something"));
            }
        }
    }

    pub(crate) async fn op_as(&mut self, seq: u64, kind: pb::op::Kind) -> pb::reply::Kind {
        self.send(seq, Some(kind)).await;
        let (answered, reply) = self.next_reply().await;
        assert_eq!(answered, seq);
        reply
    }

    pub(crate) async fn op(&mut self, kind: pb::op::Kind) -> pb::reply::Kind {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.op_as(seq, kind).await
    }

    /// The error that ends the stream.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match self.frame().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a reason"),
                Err(status) => return status,
            }
        }
    }

    /// Reads until a pushed map fulfils the condition.
    pub(crate) async fn map_where(
        &mut self,
        fits: impl Fn(&pb::ClusterMap) -> bool,
    ) -> pb::ClusterMap {
        loop {
            if let Some(map) = self.maps.iter().find(|m| fits(m)) {
                return map.clone();
            }
            self.frame().await.unwrap().expect("the stream goes on");
        }
    }
}

pub(crate) fn create(name: &str) -> pb::op::Kind {
    pb::op::Kind::Create(pb::Create {
        parent: 1,
        name: Bytes::copy_from_slice(name.as_bytes()),
        mode: libc::S_IFREG | 0o644,
        exclusive: true,
        open: true,
        ..Default::default()
    })
}

pub(crate) fn ino_of(reply: &pb::reply::Kind) -> u64 {
    match reply {
        pb::reply::Kind::Entry(entry) => entry.attr.as_ref().expect("an entry has attributes").ino,
        other => panic!("instead of an entry: {other:?}"),
    }
}

/// Waits until `probe` answers something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A node's report stream, without a node behind it.
pub(crate) struct TestNode {
    pub(crate) id: Uuid,
    pub(crate) port: u32,
    reports: mpsc::Sender<pb::NodeReport>,
    pub(crate) orders: Streaming<pb::NodeOrders>,
}

impl TestNode {
    pub(crate) async fn join(master: &TestMaster, id: Uuid, port: u32) -> Self {
        let (reports, sent) = mpsc::channel(16);
        let stream = ReceiverStream::new(sent);
        let orders = master.calls().await.node_session(stream).await.unwrap().into_inner();
        let node = Self { id, port, reports, orders };
        node.report(false).await;
        node
    }

    pub(crate) async fn report(&self, leaving: bool) {
        self.report_status(leaving, None).await;
    }

    pub(crate) async fn report_status(
        &self,
        leaving: bool,
        status: Option<pb::NodeStatusResponse>,
    ) {
        let node = pb::Node {
            node_id: self.id.to_string(),
            host: "127.0.0.1".into(),
            port: self.port,
            zone: "a".into(),
            name: format!("n{}", self.port),
            ..Default::default()
        };
        let report = pb::NodeReport { node: Some(node), leaving, status, ..Default::default() };
        self.reports.send(report).await.unwrap();
    }
}

/// A storage node in memory: the calls that the master makes.
#[derive(Clone, Default)]
pub(crate) struct TestStorage {
    pub(crate) chunks: Arc<Mutex<HashMap<ChunkId, Bytes>>>,
    /// What it says of itself.
    pub(crate) status: Arc<Mutex<pb::NodeStatusResponse>>,
}

/// The status of a node whose disks work or have failed.
pub(crate) fn disks(failed: &[bool]) -> pb::NodeStatusResponse {
    let disk = |failed: &bool| pb::DiskStatus { failed: *failed, ..Default::default() };
    pb::NodeStatusResponse { disks: failed.iter().map(disk).collect(), ..Default::default() }
}

impl TestStorage {
    /// Serves until the task is aborted.
    pub(crate) async fn serve(&self) -> (u32, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = u32::from(listener.local_addr().unwrap().port());
        let service = StorageServiceServer::new(self.clone());
        let task = tokio::spawn(async move {
            transport::server()
                .serve_with_incoming(service, TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        (port, task)
    }

    pub(crate) async fn hold(&self, data: &[u8]) -> String {
        let id = ChunkId::of(data);
        self.chunks.lock().await.insert(id, Bytes::copy_from_slice(data));
        id.to_string()
    }
}

type Nothing<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl StorageService for TestStorage {
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

    type PutStream = Nothing<pb::PutBatchReply>;
    type GetStream = Nothing<pb::GetBatchReply>;
    type VerifyStream = Nothing<pb::VerifyProgress>;

    async fn put_chunk(
        &self,
        request: Request<pb::PutChunkRequest>,
    ) -> Result<Response<pb::PutChunkResponse>, Status> {
        let put = request.into_inner();
        let id: ChunkId = put.chunk_id.parse()?;
        assert!(id.verify(&put.data));
        self.chunks.lock().await.insert(id, put.data);
        Ok(Response::new(pb::PutChunkResponse { status: "ok".into() }))
    }

    async fn get_chunk(
        &self,
        request: Request<pb::GetChunkRequest>,
    ) -> Result<Response<pb::GetChunkResponse>, Status> {
        let id: ChunkId = request.into_inner().chunk_id.parse()?;
        let data = self.chunks.lock().await.get(&id).cloned();
        let data = data.ok_or_else(|| Status::not_found("no such chunk"))?;
        Ok(Response::new(pb::GetChunkResponse { data, ..Default::default() }))
    }

    async fn have(
        &self,
        request: Request<pb::HaveRequest>,
    ) -> Result<Response<pb::HaveResponse>, Status> {
        let chunks = self.chunks.lock().await;
        let length = |id: &Bytes| {
            let id = ChunkId::try_from(id.as_ref()).unwrap();
            chunks.get(&id).map_or(0, |data| data.len() as u32 + 1)
        };
        let stored_len_plus_one = request.into_inner().ids.iter().map(length).collect();
        Ok(Response::new(pb::HaveResponse { stored_len_plus_one, gc_epoch: 1 }))
    }

    async fn node_status(
        &self,
        _request: Request<pb::NodeStatusRequest>,
    ) -> Result<Response<pb::NodeStatusResponse>, Status> {
        Ok(Response::new(self.status.lock().await.clone()))
    }

    async fn hello(
        &self,
        _request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    async fn put(
        &self,
        _request: Request<Streaming<pb::PutBatch>>,
    ) -> Result<Response<Self::PutStream>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    async fn get(
        &self,
        _request: Request<Streaming<pb::GetBatch>>,
    ) -> Result<Response<Self::GetStream>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    async fn list_chunks(
        &self,
        _request: Request<pb::ListChunksRequest>,
    ) -> Result<Response<pb::ListChunksResponse>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    async fn verify(
        &self,
        _request: Request<pb::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    type PullGroupsStream = Nothing<pb::PullProgress>;

    async fn group_digests(
        &self,
        _: Request<pb::GroupDigestsRequest>,
    ) -> Result<Response<pb::GroupDigestsResponse>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    async fn pull_groups(
        &self,
        _: Request<pb::PullRequest>,
    ) -> Result<Response<Self::PullGroupsStream>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    async fn drop_group(
        &self,
        _: Request<pb::DropRequest>,
    ) -> Result<Response<pb::DropResponse>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    async fn scrub(
        &self,
        _: Request<pb::ScrubRequest>,
    ) -> Result<Response<pb::ScrubResponse>, Status> {
        Err(Status::unimplemented("the master does not call it"))
    }

    type SweepStream = Nothing<pb::SweepProgress>;

    async fn sweep(
        &self,
        _: Request<Streaming<pb::SweepPart>>,
    ) -> Result<Response<Self::SweepStream>, Status> {
        Err(Status::unimplemented("this node collects nothing"))
    }
}
