//! A node against a master that comes late, restarts, belongs elsewhere. The master here answers the
//! two calls that a node makes and writes down what it is told.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::{
    ChunkError, ChunkId, ClusterMap, NodeId,
    handshake::Doorkeeper,
    pb::{
        self,
        master_service_server::{MasterService, MasterServiceServer},
    },
    transport,
};
use cairn_storage::{
    config::Config,
    disk::fault::{Call, FaultDisk},
    format::{NewNode, format},
    heartbeat::{Heartbeat, describe},
    segment::writer::SegmentShape,
    server::{self, Running},
    service::Stopping,
    status::Identity,
    store::{Store, StoreLimits, Volume, VolumeSetup, index::Counting},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming, service::interceptor::InterceptedService,
    transport::server::TcpIncoming,
};
use uuid::Uuid;

const FS: Uuid = Uuid::from_u128(5);
const PATIENCE: Duration = Duration::from_secs(10);

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Recorder {
    heard: mpsc::Sender<pb::NodeReport>,
    orders: pb::NodeOrders,
}

fn not_asked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a node does not ask this"))
}

macro_rules! unasked {
    ($($call:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl MasterService for Recorder {
            $(async fn $call(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                not_asked()
            })*

            type SessionStream = Replies<pb::ServerFrame>;
            type NodeSessionStream = Replies<pb::NodeOrders>;
            type WalkStream = Replies<pb::WalkEntry>;
            type FsckStream = Replies<pb::FsckProgress>;
            type DumpStream = Replies<pb::DumpPart>;
            type CollectGarbageStream = Replies<pb::CollectProgress>;

            async fn hello(
                &self,
                _: Request<pb::HelloRequest>,
            ) -> Result<Response<pb::HelloResponse>, Status> {
                Ok(Response::new(pb::HelloResponse::default()))
            }

            async fn node_session(
                &self,
                request: Request<Streaming<pb::NodeReport>>,
            ) -> Result<Response<Self::NodeSessionStream>, Status> {
                let (heard, mut reports) = (self.heard.clone(), request.into_inner());
                let (orders, queue) = mpsc::channel(1);
                orders.try_send(Ok(self.orders.clone())).unwrap();
                tokio::spawn(async move {
                    while let Ok(Some(report)) = reports.message().await {
                        if heard.send(report).await.is_err() {
                            break;
                        }
                    }
                    drop(orders);
                });
                Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
            }
        }
    };
}

unasked! {
    register_node(pb::RegisterRequest) -> pb::RegisterResponse;
    request_put_targets(pb::PutTargetsRequest) -> pb::PutTargetsResponse;
    announce_manifest(pb::ManifestRequest) -> pb::ManifestResponse;
    list_files(pb::ListFilesRequest) -> pb::ListFilesResponse;
    get_manifest(pb::GetManifestRequest) -> pb::GetManifestResponse;
    request_get_targets(pb::GetTargetsRequest) -> pb::GetTargetsResponse;
    session(Streaming<pb::ClientFrame>) -> Replies<pb::ServerFrame>;
    status(pb::StatusRequest) -> pb::StatusResponse;
    walk(pb::WalkRequest) -> Replies<pb::WalkEntry>;
    fsck(pb::FsckRequest) -> Replies<pb::FsckProgress>;
    change_node(pb::ChangeNodeRequest) -> pb::ChangeNodeResponse;
    set_copies(pb::SetCopiesRequest) -> pb::SetCopiesResponse;
    dump(pb::DumpRequest) -> Replies<pb::DumpPart>;
    set_quota(pb::SetQuotaRequest) -> pb::Quota;
    remove_quota(pb::RemoveQuotaRequest) -> pb::Quota;
    quotas(pb::QuotasRequest) -> pb::QuotasResponse;
    collect_garbage(pb::CollectRequest) -> Replies<pb::CollectProgress>;
}

struct Master {
    address: SocketAddr,
    reports: mpsc::Receiver<pb::NodeReport>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Master {
    fn start(listen: SocketAddr, fs: Uuid, orders: pb::NodeOrders) -> Self {
        let incoming = TcpIncoming::bind(listen).unwrap();
        let address = incoming.local_addr().unwrap();
        let (heard, reports) = mpsc::channel(64);
        let (stop, stopped) = oneshot::channel();
        let service = InterceptedService::new(
            MasterServiceServer::new(Recorder { heard, orders }),
            Doorkeeper::new(fs, None),
        );
        let serving = tokio::spawn(transport::server().serve_with_incoming_shutdown(
            service,
            incoming,
            async {
                let _ = stopped.await;
            },
        ));
        Self { address, reports, stop, serving }
    }

    async fn next(&mut self) -> pb::NodeReport {
        timeout(PATIENCE, self.reports.recv()).await.expect("a report in time").unwrap()
    }

    /// The first report for which `wanted` holds.
    async fn until(&mut self, wanted: impl Fn(&pb::NodeReport) -> bool) -> pb::NodeReport {
        loop {
            let report = self.next().await;
            if wanted(&report) {
                return report;
            }
        }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        drop(self.reports);
        timeout(PATIENCE, self.serving).await.unwrap().unwrap().unwrap();
    }
}

fn orders(gc_epoch: u64) -> pb::NodeOrders {
    let map = ClusterMap {
        epoch: 9,
        nodes: Vec::new(),
        pg_bits: 10,
        replicas: 2,
        min_replicas: 1,
        compression: cairn_proto::Compression::Off,
    };
    pb::NodeOrders { map: Some((&map).into()), gc_epoch, report_ms: 50 }
}

fn make(dir: &Path) {
    let new = NewNode {
        data: vec![dir.to_owned()],
        fs: FS,
        node: None,
        name: "node1".into(),
        chunk_size: 65536,
    };
    format(&new).unwrap();
}

async fn serve(dir: &Path, master: SocketAddr) -> Running {
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        zone: "rack7".into(),
        ..Config::new(vec![dir.to_owned()], master.to_string())
    };
    server::start(config).await.unwrap()
}

/// An address on which nothing listens at the moment.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_finds_a_master_that_comes_late_or_restarts_and_says_goodbye() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("node");
    make(&dir);
    let address = free_address();
    let node = serve(&dir, address).await;

    let mut master = Master::start(address, FS, orders(1));
    let first = master.next().await;
    let about = first.node.unwrap();
    assert_eq!(about.node_id, node.node_id.to_string());
    assert_eq!((about.host.as_str(), about.port), ("127.0.0.1", u32::from(node.address.port())));
    assert_eq!((about.zone.as_str(), about.name.as_str()), ("rack7", "node1"));
    assert!(about.weight >= 1);
    assert_eq!(first.status.unwrap().disks.len(), 1);
    let told = master.until(|r| r.map_epoch == 9).await;
    assert_eq!(told.gc_epoch, 1);
    master.stop().await;

    let mut master = Master::start(address, FS, orders(4));
    master.until(|r| r.gc_epoch == 4).await;
    node.stop().await;
    master.until(|r| r.leaving).await;
    master.stop().await;

    // The epoch survives, also where the master is away.
    let node = serve(&dir, address).await;
    let mut master = Master::start(address, FS, orders(0));
    assert_eq!(master.next().await.gc_epoch, 4);
    node.stop().await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_another_file_system_is_not_reported_to() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("node");
    make(&dir);
    let listen = "127.0.0.1:0".parse().unwrap();
    let mut master = Master::start(listen, Uuid::from_u128(6), orders(1));
    let node = serve(&dir, master.address).await;
    assert!(timeout(Duration::from_millis(300), master.reports.recv()).await.is_err());
    node.stop().await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_reported_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let disk = FaultDisk::new(64 << 20);
    let volume = Volume::open(VolumeSetup {
        name: "broken".into(),
        disk: Arc::new(disk.clone()),
        index_dir: tmp.path().join("index"),
        index_cache: 1 << 20,
        shape: SegmentShape { bytes: 1 << 20, chunk_size: 65536 },
        reserve: Some(0),
        counting: Counting::default(),
        fs: FS,
    });
    let limits = StoreLimits { chunk_size: 65536, put_bytes: 1 << 20, get_bytes: 1 << 20 };
    let store = Arc::new(Store::new(vec![volume.unwrap()], limits).0);
    let node_id = NodeId(Uuid::from_u128(3));
    let identity =
        Arc::new(Identity { node_id, name: "node1".into(), fs: FS, started: Instant::now() });
    // Reports at their own pace would come every eight seconds.
    let orders = pb::NodeOrders { report_ms: 10_000, ..orders(1) };
    let mut master = Master::start("127.0.0.1:0".parse().unwrap(), FS, orders);
    let heartbeat = Heartbeat {
        master: master.address.to_string(),
        token: None,
        node: describe(&identity, "127.0.0.1".into(), 1, String::new(), &store),
        identity,
        store: Arc::clone(&store),
        connected: Arc::default(),
        map: watch::Sender::new(None),
    };
    let (stop, stopped) = watch::channel(false);
    let beating = tokio::spawn(heartbeat.run(Stopping::new(stopped)));
    let failed = |report: &pb::NodeReport| report.status.as_ref().unwrap().disks[0].failed;
    master.until(|r| r.map_epoch == 9 && !failed(r)).await;

    disk.fail_always(Call::Sync, 5);
    let data = bytes::Bytes::from_static(b"chunk");
    let began = Instant::now();
    let outcome = store.put(vec![(ChunkId::of(&data), data)]).await;
    assert_eq!(outcome, [Err(ChunkError::DiskFailed)]);
    master.until(failed).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    stop.send_replace(true);
    timeout(PATIENCE, beating).await.unwrap().unwrap();
    master.stop().await;
}
