//! The only wiring: opens the data directory, starts the threads and tasks, serves, stops in order.
//!
//! Order of a stop: no new connection and no new frame; everything queued is executed, committed and
//! synced; the replies go out; streams end; the port is closed; the lock on the directory goes last.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cairn_codec::Codecs;
use cairn_daemon::{
    io_error::explain,
    metrics::{
        Page,
        page::{Bound, PageError, Site},
    },
};
use cairn_proto::{
    handshake::{Doorkeeper, Greeting},
    limits::MESSAGE_MAX,
    pb::master_service_server::MasterServiceServer,
    transport,
};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tonic::{service::interceptor::InterceptedService, transport::server::TcpIncoming};
use uuid::Uuid;

use crate::{
    activity::Activity,
    backup::{Progress, schedule::Schedule},
    clock::SystemClock,
    cluster::{Cluster, administration, membership::Patience, publish},
    config::{Config, EngineKind},
    engine::{
        Engine, EngineError,
        fjall::{FjallEngine, Options},
        memory::MemoryEngine,
    },
    format::{self, DataDir, Format, FormatError},
    gc::{self, Collector},
    metrics::{self, Sources},
    namespace::{Namespace, OpenError, Params},
    nodes::{chunk_client::ChunkClient, probe::Prober},
    op_thread::{self, Failure, OpQueue},
    repair::{self, Limits, Repair},
    service::{Edge, Service, quota},
    session::{expiry, push, registry::Registry, stream::Sessions},
    sync_thread::{self, Durability},
};

/// Walks and checks that may run at once.
const SCANS: usize = 4;
/// How long clients have to take what is still for them when the master stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a master does not start. Each is a sentence with the remedy.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What is in it.
    #[error("cannot open the metadata in {0}: {1}")]
    Open(String, #[source] OpenError),
    /// What is in it, read for the first time.
    #[error("cannot read the metadata: {0}")]
    Engine(#[from] EngineError),
    /// The port.
    #[error(
        "cannot listen on {0}: the port is in use. Stop the other program \
         (`ss -ltnp` shows it), or choose another port with --listen"
    )]
    PortInUse(SocketAddr),
    /// The address.
    #[error("cannot listen on {0}: {1} (--listen)")]
    Listen(SocketAddr, String),
    /// There is no page for metrics.
    #[error(transparent)]
    Metrics(#[from] PageError),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A master that serves. Dropping it stops it without waiting; [`Running::stop`] waits.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; the port that was picked when 0 was asked for.
    pub address: SocketAddr,
    /// The file system.
    pub fs_uuid: Uuid,
    metrics: Option<Page>,
    stopping: watch::Sender<bool>,
    failure: watch::Receiver<Option<String>>,
    supervisor: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Where metrics are served, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(Page::address)
    }

    /// Stops in order; everything acknowledged is durable when this returns.
    pub async fn stop(self) {
        if let Some(page) = self.metrics {
            page.stop().await;
        }
        self.stopping.send_replace(true);
        // The supervisor has no way to fail but a panic, which is in the log.
        let _ = self.supervisor.await;
    }

    /// Returns when the master cannot go on, with the reason.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "the master's threads have ended".to_owned(),
        }
    }
}

/// Makes `dir` the data directory of a new, empty file system.
///
/// # Errors
/// When the directory holds anything, a setting is out of range, or the disk says no.
pub fn format(dir: &Path, format: &Format) -> Result<(), FormatError> {
    format::format(dir, format, |meta| {
        let engine: Arc<dyn Engine> = Arc::new(FjallEngine::open(meta, Options::default())?);
        let mut namespace = Namespace::open(engine, params(format))?;
        namespace.commit()?;
        namespace.syncer().sync()?;
        Ok::<_, OpenError>(())
    })
}

pub(crate) fn params(format: &Format) -> Params {
    Params { chunk_size: format.chunk_size, clock: Arc::new(SystemClock) }
}

fn open(data: &DataDir, engine: EngineKind) -> Result<Namespace, OpenError> {
    let engine: Arc<dyn Engine> = match engine {
        EngineKind::Fjall => Arc::new(FjallEngine::open(data.meta(), Options::default())?),
        EngineKind::Memory => Arc::new(MemoryEngine::new()),
    };
    Namespace::open(engine, params(&data.format))
}

/// Starts a master on the present tokio runtime.
///
/// # Errors
/// When the directory is not a master's or in use, or the port is taken.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let (data, namespace) = {
        let (dir, engine) = (config.data.clone(), config.engine);
        let opened = spawn_blocking(move || {
            let data = DataDir::open(&dir)?;
            let named = |error| StartError::Open(data.meta().display().to_string(), error);
            let namespace = open(&data, engine).map_err(named)?;
            Ok::<_, StartError>((data, namespace))
        });
        opened.await.map_err(|panic| StartError::Thread(io::Error::other(panic)))??
    };
    let listener = TcpListener::bind(config.listen).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse(config.listen),
        _ => StartError::Listen(config.listen, explain(&error)),
    })?;
    let address = listener.local_addr();
    let address = address.map_err(|e| StartError::Listen(config.listen, explain(&e)))?;
    let page = Bound::to(config.metrics_listen).await?;
    if !address.ip().is_loopback() && config.token.is_none() {
        tracing::warn!(%address, "everybody who reaches this address can read and change all files: give --token-file");
    }
    let fs_uuid = data.format.fs_uuid;
    let (stopping, stop) = watch::channel(false);
    let (failure, failed) = watch::channel(None);
    let parts = assemble(&config, data.format.clone(), address, namespace, &stop, failure)?;
    let metrics = page.map(|page| page.serve(parts.metrics(&config)));
    let supervisor = tokio::spawn(supervise(parts, listener, config, data, stop));
    tracing::info!(%address, file_system = %fs_uuid, "serving");
    Ok(Running { address, fs_uuid, metrics, stopping, failure: failed, supervisor })
}

/// Everything that runs.
struct Parts {
    service: Arc<Service>,
    durability: Arc<Durability>,
    op_thread: JoinHandle<()>,
    sync_thread: JoinHandle<()>,
    tasks: JoinSet<()>,
    failed: watch::Receiver<Option<String>>,
}

impl Parts {
    /// What the page for metrics shows.
    fn metrics(&self, config: &Config) -> Site {
        let service = &self.service;
        let sources = Sources {
            activity: Arc::clone(&service.activity),
            ops: service.ops.clone(),
            durability: Arc::clone(&self.durability),
            sessions: Arc::clone(&service.sessions.registry),
            cluster: Arc::clone(&service.cluster),
            repair: Arc::clone(&service.repair),
            backups: Arc::clone(&service.backups),
            collector: Arc::clone(&service.collector),
        };
        Site::new(metrics::registry(sources, &config.data))
    }
}

fn assemble(
    config: &Config,
    format: Format,
    address: SocketAddr,
    mut namespace: Namespace,
    stopping: &watch::Receiver<bool>,
    failure: Failure,
) -> Result<Parts, StartError> {
    let failed = failure.subscribe();
    let failure = Arc::new(failure);
    let greeting = Greeting::new(Some(format.fs_uuid), config.token.as_ref());
    let stamps = namespace.stamps();
    let cluster = cluster(config, &format, &mut namespace, &greeting)?;
    let registry = Arc::new(Registry::new(namespace.sessions(), Instant::now()));
    let incarnation = namespace.incarnation();
    let durability = Arc::new(Durability::default());
    let activity = Arc::new(Activity::default());
    let sync_thread = sync_thread::start(
        namespace.syncer(),
        Arc::clone(&durability),
        Arc::clone(&activity),
        config.sync_interval,
        Arc::clone(&failure),
    )
    .map_err(StartError::Thread)?;
    let (ops, op_thread) = op_thread::start(
        namespace,
        Arc::clone(&durability),
        Arc::clone(&activity),
        Arc::clone(&registry),
        failure,
    )
    .map_err(StartError::Thread)?;
    let sessions = Arc::new(Sessions {
        ops: ops.clone(),
        registry: Arc::clone(&registry),
        cluster: Arc::clone(&cluster),
        activity: Arc::clone(&activity),
        chunk_size: format.chunk_size,
        expiry: config.session_expiry,
        incarnation,
        stopping: stopping.clone(),
    });
    let mut tasks = background(&cluster, &registry, &ops, config.session_expiry);
    let chunks = ChunkClient::new(greeting.clone());
    let backups = Arc::new(Progress::default());
    let schedule = Schedule {
        ops: ops.clone(),
        cluster: Arc::clone(&cluster),
        chunks: chunks.clone(),
        format: format.clone(),
        progress: Arc::clone(&backups),
        interval: config.backup_interval,
        generations: config.backup_generations,
    };
    tasks.spawn(schedule.run());
    let limits =
        Limits { bandwidth: config.repair_bandwidth, concurrency: config.repair_concurrency };
    let repair = Repair::new(
        Arc::clone(&cluster),
        chunks.clone(),
        ops.clone(),
        Arc::clone(&activity),
        limits,
    );
    tasks.spawn(repair::run(Arc::clone(&repair)));
    let quota_work = Arc::new(Notify::new());
    tasks.spawn(quota::work(ops.clone(), Arc::clone(&quota_work)));
    let collector = Collector::new(ops.clone(), Arc::clone(&cluster), greeting, stamps);
    tasks.spawn(gc::run(Arc::clone(&collector), config.gc_interval));
    let service = Arc::new(Service {
        format,
        address,
        data_dir: in_full(&config.data),
        started: Instant::now(),
        activity,
        ops,
        sessions,
        cluster,
        repair,
        chunks,
        codecs: Codecs::default(),
        backups,
        quota_work,
        collector,
        scans: Arc::new(Semaphore::new(SCANS)),
    });
    Ok(Parts { service, durability, op_thread, sync_thread, tasks, failed })
}

fn in_full(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// The cluster as it was known before this start.
fn cluster(
    config: &Config,
    format: &Format,
    namespace: &mut Namespace,
    greeting: &Greeting,
) -> Result<Arc<Cluster>, EngineError> {
    let patience = Patience {
        suspect_after: config.suspect_after,
        down_after: config.down_after,
        out_after: config.out_after,
    };
    Ok(Cluster::new(
        patience,
        config.safe_mode_grace,
        (namespace.next_map_epoch()?, format.pg_bits),
        administration::known(namespace, format)?,
        Prober::new(greeting.clone()),
        namespace.stamps().epoch,
    ))
}

fn background(
    cluster: &Arc<Cluster>,
    registry: &Arc<Registry>,
    ops: &OpQueue,
    expiry: Duration,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(publish::changes(Arc::clone(cluster), ops.clone()));
    tasks.spawn(publish::time(Arc::clone(cluster), ops.clone()));
    tasks.spawn(push::maps(cluster.maps(), Arc::clone(registry)));
    tasks.spawn(expiry::run(Arc::clone(registry), ops.clone(), expiry));
    tasks
}

/// Serves until told to stop, then stops in order.
async fn supervise(
    parts: Parts,
    listener: TcpListener,
    config: Config,
    data: DataDir,
    mut stop: watch::Receiver<bool>,
) {
    let Parts { service, durability, op_thread, sync_thread, mut tasks, mut failed } = parts;
    let keeper = Doorkeeper::new(data.format.fs_uuid, config.token);
    let calls = MasterServiceServer::new(Edge(Arc::clone(&service)))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let (close, mut closing) = watch::channel(false);
    let closed = async move {
        // An error means that the sender is gone, which is a reason to close as well.
        let _ = closing.wait_for(|close| *close).await;
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let calls = InterceptedService::new(calls, keeper);
    let mut serving =
        tokio::spawn(transport::server().serve_with_incoming_shutdown(calls, incoming, closed));
    tokio::select! {
        // An error means that `Running` was dropped.
        _ = stop.wait_for(|stop| *stop) => {}
        _ = failed.wait_for(Option::is_some) => {}
        ended = &mut serving => tracing::error!(?ended, "the server has ended by itself"),
    }
    close.send_replace(true);
    tasks.shutdown().await;
    service.ops.stop().await;
    join(op_thread).await;
    durability.stop();
    join(sync_thread).await;
    service.sessions.registry.disconnect_all();
    if !serving.is_finished() && timeout(FAREWELL, &mut serving).await.is_err() {
        serving.abort();
    }
    drop(data);
    tracing::info!("stopped");
}

async fn join(thread: JoinHandle<()>) {
    // The threads catch their own panics and report them as a failure.
    let _ = spawn_blocking(move || thread.join()).await;
}
