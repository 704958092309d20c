//! A master for tests: a real server on loopback whose session stream does what a test tells it to.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use cairn_proto::{
    ClusterMap, FsError,
    handshake::{Doorkeeper, Token, VERSION},
    pb::{
        self, client_frame::Body, master_service_server::MasterService,
        master_service_server::MasterServiceServer, op::Kind, reply, server_frame,
    },
    transport,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::config::ClientConfig;

pub(crate) const CHUNK_SIZE: u32 = 64 * 1024;

type Frames = mpsc::Sender<Result<pb::ServerFrame, Status>>;

/// What the master knows and how it misbehaves.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) incarnation: u64,
    pub(crate) map: Option<ClusterMap>,
    pub(crate) window: u32,
    /// Every frame received, in order.
    pub(crate) heard: Vec<pb::ClientFrame>,
    /// Every mutation executed, in order; a lost one is taken out.
    pub(crate) executed: Vec<(u64, u64, String)>,
    /// Stored replies of mutations.
    pub(crate) replies: BTreeMap<(u64, u64), pb::Reply>,
    /// Replies say that everything before them is durable.
    pub(crate) durable: bool,
    /// Break the connection instead of answering this many more operations.
    pub(crate) drop_replies: u32,
    /// Take operations and do nothing.
    pub(crate) mute: bool,
    /// Answer nothing at all, not even pings.
    pub(crate) dead: bool,
    /// The sessions that are known.
    pub(crate) sessions: Vec<u64>,
    /// A new map after a report about a node.
    pub(crate) after_report: Option<ClusterMap>,
    pub(crate) reports: u32,
    next_ino: u64,
    /// Connections of an earlier life are not listened to.
    life: u64,
    streams: Vec<Frames>,
    held: Vec<(Frames, u64, pb::Op)>,
}

/// The server. Ends with its runtime, connections and all.
pub(crate) struct Master {
    pub(crate) address: SocketAddr,
    pub(crate) fs: Uuid,
    script: Arc<Mutex<Script>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Master {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Master {
    pub(crate) fn start(token: Option<Token>) -> Self {
        let fs = Uuid::new_v4();
        let script = Script { incarnation: 1, window: 64, durable: true, ..Script::default() };
        let script = Arc::new(Mutex::new(script));
        let runtime = runtime();
        let service = Service { script: script.clone(), fs };
        let service = MasterServiceServer::with_interceptor(service, Doorkeeper::new(fs, token));
        let (listener, address) = listen(&runtime);
        runtime.spawn(transport::server().serve_with_incoming(service, listener));
        Self { address, fs, script, runtime: Some(runtime) }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig {
            deadline: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            ..ClientConfig::new(self.address.to_string())
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Breaks all connections.
    pub(crate) fn hang_up(&self) {
        self.script().hang_up();
    }

    /// As if killed and started again; `lost` last mutations had not reached the disk.
    pub(crate) fn restart(&self, lost: usize) {
        let mut script = self.script();
        script.incarnation += 1;
        let keep = script.executed.len() - lost;
        for (session, seq, _) in script.executed.split_off(keep) {
            script.replies.remove(&(session, seq));
        }
        script.hang_up();
    }

    pub(crate) fn push_map(&self, map: &ClusterMap) {
        let mut script = self.script();
        script.map = Some(map.clone());
        script.push_map(map);
    }

    /// Answers what was held back while mute.
    pub(crate) fn speak(&self) {
        let mut script = self.script();
        script.mute = false;
        for (frames, seq, op) in std::mem::take(&mut script.held) {
            script.operation(0, seq, op, &frames);
        }
    }

    pub(crate) fn words(&self) -> Vec<String> {
        self.script().executed.iter().map(|(_, _, word)| word.clone()).collect()
    }

    /// Waits until `check` holds.
    pub(crate) async fn until(&self, check: impl Fn(&Script) -> bool) {
        for _ in 0..1000 {
            if check(&self.script()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it did not happen within 5 s");
    }
}

impl Script {
    fn hang_up(&mut self) {
        self.life += 1;
        self.held.clear();
        for stream in self.streams.drain(..) {
            let _ = stream.try_send(Err(Status::unavailable("scripted end")));
        }
    }

    fn push_map(&self, map: &ClusterMap) {
        let kind = Some(pb::push::Kind::Map(map.into()));
        let push = server_frame::Body::Push(pb::Push { push_id: 7, kind });
        for stream in &self.streams {
            let frame = pb::ServerFrame { seq: 0, durable_below: 0, body: Some(push.clone()) };
            let _ = stream.try_send(Ok(frame));
        }
    }

    fn welcome(&mut self, open: &pb::OpenSession) -> (u64, pb::ServerFrame) {
        let resumed = self.sessions.contains(&open.session_id);
        let session_id = if resumed {
            open.session_id
        } else {
            let id = 100 + self.heard.len() as u64;
            self.sessions.push(id);
            id
        };
        let nobody = pb::ClusterMap { replicas: 1, min_replicas: 1, ..pb::ClusterMap::default() };
        let welcome = pb::Welcome {
            session_id,
            incarnation: self.incarnation,
            resumed,
            heartbeat_ms: 1000,
            expiry_ms: 60_000,
            map: Some(self.map.as_ref().map_or(nobody, pb::ClusterMap::from)),
            chunk_size: CHUNK_SIZE,
            root_ino: 1,
            window: self.window,
        };
        let body = Some(server_frame::Body::Welcome(welcome));
        (session_id, pb::ServerFrame { seq: 0, durable_below: 0, body })
    }

    fn operation(&mut self, session: u64, seq: u64, op: pb::Op, frames: &Frames) {
        if self.mute {
            self.held.push((frames.clone(), seq, op));
            return;
        }
        let stored = self.replies.get(&(session, seq)).cloned();
        let reply = stored.unwrap_or_else(|| self.execute(session, seq, &op));
        if self.drop_replies > 0 {
            self.drop_replies -= 1;
            self.hang_up();
            return;
        }
        let durable_below = if self.durable { seq + 1 } else { 0 };
        let body = Some(server_frame::Body::Reply(reply));
        let _ = frames.try_send(Ok(pb::ServerFrame { seq, durable_below, body }));
    }

    fn execute(&mut self, session: u64, seq: u64, op: &pb::Op) -> pb::Reply {
        let done = reply::Kind::Done(pb::Done {});
        let (word, kind) = match op.kind.as_ref().unwrap() {
            Kind::Create(create) => {
                self.next_ino += 1;
                let ino = if create.ino == 0 { 1000 + self.next_ino } else { create.ino };
                let attr = pb::Attr { ino, ..pb::Attr::default() };
                let entry = pb::Entry { attr: Some(attr), created: true, ..pb::Entry::default() };
                let name = String::from_utf8_lossy(&create.name).into_owned();
                (Some(format!("create {name} {ino}")), reply::Kind::Entry(entry))
            }
            Kind::Unlink(unlink) => {
                (Some(format!("unlink {}", String::from_utf8_lossy(&unlink.name))), done)
            }
            Kind::Rmdir(_) => (None, reply::Kind::Error(FsError::NotEmpty.into())),
            Kind::Open(_) => (None, reply::Kind::Opened(pb::Opened::default())),
            Kind::GetAttr(get) => {
                let attr = pb::Attr { ino: get.ino, ..pb::Attr::default() };
                (None, reply::Kind::Attr(pb::AttrReply { attr: Some(attr) }))
            }
            Kind::ReportNode(_) => {
                self.reports += 1;
                if let Some(map) = self.after_report.take() {
                    self.map = Some(map.clone());
                    self.push_map(&map);
                }
                (None, done)
            }
            _ => (None, done),
        };
        let reply = pb::Reply { lease: None, kind: Some(kind) };
        if let Some(word) = word {
            self.executed.push((session, seq, word));
            self.replies.insert((session, seq), reply.clone());
        }
        reply
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(crate) fn listen(runtime: &tokio::runtime::Runtime) -> (TcpListenerStream, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let _inside = runtime.enter();
    (TcpListenerStream::new(TcpListener::from_std(listener).unwrap()), address)
}

struct Service {
    script: Arc<Mutex<Script>>,
    fs: Uuid,
}

impl Service {
    async fn talk(script: Arc<Mutex<Script>>, mut input: Streaming<pb::ClientFrame>, out: Frames) {
        let mut session = 0;
        let life = script.lock().unwrap().life;
        while let Ok(Some(frame)) = input.message().await {
            let mut script = script.lock().unwrap();
            if script.life != life {
                return;
            }
            script.heard.push(frame.clone());
            if script.dead {
                continue;
            }
            match frame.body {
                Some(Body::OpenSession(open)) => {
                    let (id, welcome) = script.welcome(&open);
                    session = id;
                    script.streams.push(out.clone());
                    let _ = out.try_send(Ok(welcome));
                }
                Some(Body::Ping(_)) => {
                    let body = Some(server_frame::Body::Pong(pb::Pong {}));
                    let durable_below = if script.durable { u64::MAX } else { 0 };
                    let _ = out.try_send(Ok(pb::ServerFrame { seq: 0, durable_below, body }));
                }
                Some(Body::Op(op)) => script.operation(session, frame.seq, op, &out),
                Some(Body::EndSession(_)) => {
                    script.sessions.retain(|known| *known != session);
                    script.streams.retain(|stream| !stream.same_channel(&out));
                    return;
                }
                Some(Body::PushAck(_)) | None => {}
            }
        }
    }
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this script"))
}

#[tonic::async_trait]
impl MasterService for Service {
    type SessionStream = ReceiverStream<Result<pb::ServerFrame, Status>>;
    type NodeSessionStream = ReceiverStream<Result<pb::NodeOrders, Status>>;
    type WalkStream = ReceiverStream<Result<pb::WalkEntry, Status>>;
    type FsckStream = ReceiverStream<Result<pb::FsckProgress, Status>>;
    type DumpStream = ReceiverStream<Result<pb::DumpPart, Status>>;

    async fn hello(
        &self,
        _: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        Ok(Response::new(pb::HelloResponse {
            version: VERSION,
            fs_uuid: self.fs.to_string(),
            chunk_size: CHUNK_SIZE,
            ..pb::HelloResponse::default()
        }))
    }

    async fn session(
        &self,
        request: Request<Streaming<pb::ClientFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, frames) = mpsc::channel(4096);
        tokio::spawn(Self::talk(self.script.clone(), request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(frames)))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        Ok(Response::new(pb::StatusResponse { files: 3, ..pb::StatusResponse::default() }))
    }

    async fn change_node(
        &self,
        _: Request<pb::ChangeNodeRequest>,
    ) -> Result<Response<pb::ChangeNodeResponse>, Status> {
        no()
    }

    async fn set_copies(
        &self,
        _: Request<pb::SetCopiesRequest>,
    ) -> Result<Response<pb::SetCopiesResponse>, Status> {
        no()
    }

    async fn fsck(
        &self,
        _: Request<pb::FsckRequest>,
    ) -> Result<Response<Self::FsckStream>, Status> {
        let (out, progress) = mpsc::channel(1);
        out.try_send(Ok(pb::FsckProgress { done: true, ..pb::FsckProgress::default() })).unwrap();
        Ok(Response::new(ReceiverStream::new(progress)))
    }

    async fn set_quota(
        &self,
        _: Request<pb::SetQuotaRequest>,
    ) -> Result<Response<pb::Quota>, Status> {
        no()
    }

    async fn remove_quota(
        &self,
        _: Request<pb::RemoveQuotaRequest>,
    ) -> Result<Response<pb::Quota>, Status> {
        no()
    }

    async fn quotas(
        &self,
        _: Request<pb::QuotasRequest>,
    ) -> Result<Response<pb::QuotasResponse>, Status> {
        no()
    }

    async fn dump(
        &self,
        _: Request<pb::DumpRequest>,
    ) -> Result<Response<Self::DumpStream>, Status> {
        no()
    }

    async fn walk(
        &self,
        _: Request<pb::WalkRequest>,
    ) -> Result<Response<Self::WalkStream>, Status> {
        no()
    }

    async fn node_session(
        &self,
        _: Request<Streaming<pb::NodeReport>>,
    ) -> Result<Response<Self::NodeSessionStream>, Status> {
        no()
    }

    async fn register_node(
        &self,
        _: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        no()
    }

    async fn request_put_targets(
        &self,
        _: Request<pb::PutTargetsRequest>,
    ) -> Result<Response<pb::PutTargetsResponse>, Status> {
        no()
    }

    async fn announce_manifest(
        &self,
        _: Request<pb::ManifestRequest>,
    ) -> Result<Response<pb::ManifestResponse>, Status> {
        no()
    }

    async fn list_files(
        &self,
        _: Request<pb::ListFilesRequest>,
    ) -> Result<Response<pb::ListFilesResponse>, Status> {
        no()
    }

    async fn get_manifest(
        &self,
        _: Request<pb::GetManifestRequest>,
    ) -> Result<Response<pb::GetManifestResponse>, Status> {
        no()
    }

    async fn request_get_targets(
        &self,
        _: Request<pb::GetTargetsRequest>,
    ) -> Result<Response<pb::GetTargetsResponse>, Status> {
        no()
    }

    type CollectGarbageStream = ReceiverStream<Result<pb::CollectProgress, Status>>;

    async fn collect_garbage(
        &self,
        _: Request<pb::CollectRequest>,
    ) -> Result<Response<Self::CollectGarbageStream>, Status> {
        Err(Status::unimplemented("not in this script"))
    }
}
