//! The wiring of a node: lock and check the directories, recover the store, bind, serve, beat; and the
//! same backwards.
//!
//! Order of stopping: say goodbye to the master, end the streams, finish queued puts, close the store,
//! release the locks.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use cairn_daemon::{
    io_error::explain,
    metrics::{
        Page,
        page::{Bound, PageError, Site},
    },
};
use cairn_proto::{
    Malformed, NodeId,
    handshake::{Doorkeeper, Greeting, Token},
    limits::MESSAGE_MAX,
    local_socket, transport,
};
use tokio::{
    net::UnixListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{service::interceptor::InterceptedService, transport::server::TcpIncoming};

use crate::{
    backups::Backups,
    config::Config,
    disk::RealDisk,
    format::{DataDir, FormatError},
    heartbeat::{self, Heartbeat},
    metrics,
    peer::Peers,
    repair::Repair,
    scrub::Scrubber,
    segment::writer::SegmentShape,
    service::{Bulk, ChunkService, Stopping},
    status::Identity,
    store::{
        Store, StoreLimits, Volume, VolumeSetup, groups::Groups, index::Counting,
        recovery::RecoveryError,
    },
};

/// How long connections may take to finish what they do when the node stops.
const STREAMS_END: Duration = Duration::from_secs(5);

/// Why a node did not start; a sentence with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A data directory was refused.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A data directory could not be brought back to work.
    #[error("{}: {error}", .dir.display())]
    Recovery {
        /// The directory.
        dir: PathBuf,
        /// Why.
        error: RecoveryError,
    },
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {error} (--listen)")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: String,
    },
    /// The token file cannot be used.
    #[error("cannot use the token file {}: {why}", .path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no page for metrics.
    #[error(transparent)]
    Metrics(#[from] PageError),
    /// Others could not reach the node.
    #[error("{0}")]
    Advertise(String),
}

/// A node that serves. Dropping it stops the node without waiting; [`Running::stop`] waits.
pub struct Running {
    /// Address served on.
    pub address: SocketAddr,
    /// Who the node is.
    pub node_id: NodeId,
    metrics: Option<Page>,
    scrubbing: JoinHandle<()>,
    stop: watch::Sender<bool>,
    heartbeat: JoinHandle<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    store: Arc<Store>,
    store_gone: oneshot::Receiver<()>,
    dirs: Vec<DataDir>,
}

/// Starts a node; returns when it can be connected to. The master may be away.
///
/// # Errors
/// See [`StartError`].
pub async fn start(config: Config) -> Result<Running, StartError> {
    let token = config.token_file.as_ref().map(read_token).transpose()?;
    let dirs = DataDir::open_all(&config.data)?;
    let identity = Arc::new(identity(&config, &dirs[0]));
    let incoming = TcpIncoming::bind(config.listen)
        .map_err(|e| StartError::Bind { address: config.listen, error: explain(&e) })?
        .with_nodelay(Some(true));
    let address = incoming
        .local_addr()
        .map_err(|e| StartError::Bind { address: config.listen, error: e.to_string() })?;
    let (host, port) = advertised(&config, address)?;
    let local = (port == address.port()).then(|| local(identity.node_id, port)).flatten();
    let page = Bound::to(config.metrics_listen).await?;
    let (store, store_gone, dirs) = open_store(&config, dirs).await?;
    count_groups(&store);
    let (stop, stopped) = watch::channel(false);
    let stopping = Stopping::new(stopped);
    if !address.ip().is_loopback() && token.is_none() {
        tracing::warn!(%address, "serving beyond this machine without --token-file: anybody who reaches this port can read and write");
    }
    let connected = Arc::new(AtomicBool::new(false));
    let map = watch::Sender::new(None);
    let peers = Peers::new(identity.fs, Greeting::new(Some(identity.fs), token.as_ref()));
    let repair =
        Arc::new(Repair::new(Arc::clone(&store), peers, identity.node_id, map.subscribe()));
    let scrubber = Arc::new(Scrubber::new(Arc::clone(&store), config.scrub));
    let metrics = page.map(|page| {
        page.serve(Site::new(metrics::registry(&store, &repair, Arc::clone(&connected))))
    });
    let heartbeat = Heartbeat {
        master: config.master.clone(),
        token: token.clone(),
        node: heartbeat::describe(&identity, host, port, config.zone, &store),
        identity: Arc::clone(&identity),
        store: Arc::clone(&store),
        map,
        connected: Arc::clone(&connected),
    };
    let chunks = ChunkService::new(
        Arc::clone(&store),
        Arc::clone(&identity),
        repair,
        Arc::clone(&scrubber),
        Arc::new(Backups::new(dirs.iter().map(|dir| dir.path.as_path()))),
        stopping.clone(),
    );
    let service = InterceptedService::new(
        Bulk::new(chunks, MESSAGE_MAX),
        Doorkeeper::new(identity.fs, token),
    );
    let serving = tokio::spawn(serve(service, incoming, local, stopping.clone()));
    let heartbeat = tokio::spawn(heartbeat.run(stopping.clone()));
    let scrubbing = tokio::spawn(async move { scrubber.run(stopping).await });
    tracing::info!(%address, node = %identity.node_id, name = %identity.name, "serving chunks");
    let node_id = identity.node_id;
    Ok(Running {
        address,
        node_id,
        metrics,
        scrubbing,
        stop,
        heartbeat,
        serving,
        store,
        store_gone,
        dirs,
    })
}

impl Running {
    /// Where metrics are served, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(Page::address)
    }

    /// Stops cleanly; returns when the directories can be served by another.
    pub async fn stop(self) {
        let Self {
            metrics, scrubbing, stop, heartbeat, mut serving, store, store_gone, dirs, ..
        } = self;
        if let Some(page) = metrics {
            page.stop().await;
        }
        stop.send_replace(true);
        if scrubbing.await.is_err() {
            tracing::error!("scrub panicked");
        }
        if heartbeat.await.is_err() {
            tracing::error!("the heartbeat panicked");
        }
        match timeout(STREAMS_END, &mut serving).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(e))) => tracing::error!("serving ended with an error: {e}"),
            Ok(Err(_)) => tracing::error!("the server panicked"),
            Err(_) => {
                tracing::warn!("some connections did not end in time: they are cut");
                serving.abort();
            }
        }
        let closing = tokio::task::spawn_blocking(move || store.close());
        if closing.await.is_err() {
            tracing::error!("closing the store panicked");
        }
        // Calls that were under way still hold the store; the files are theirs until then.
        if timeout(STREAMS_END, store_gone).await.is_err() {
            tracing::warn!("some calls did not end in time");
        }
        drop(dirs);
        tracing::info!("stopped");
    }
}

/// The short way for clients on this machine. Not where others are sent to another port: whoever put something
/// in between wants it there.
fn local(node: NodeId, port: u16) -> Option<UnixListener> {
    let listener = local_socket::listen(node, port);
    let why = "clients on this machine come over TCP";
    listener.inspect_err(|e| tracing::warn!("no local socket, {why}: {}", explain(e))).ok()
}

/// Serves both ways until the node stops.
async fn serve(
    service: InterceptedService<Bulk, Doorkeeper>,
    incoming: TcpIncoming,
    local: Option<UnixListener>,
    stopping: Stopping,
) -> Result<(), tonic::transport::Error> {
    let until = |mut stopping: Stopping| async move { stopping.wait().await };
    let near = async {
        let Some(listener) = local else { return Ok(()) };
        let (service, stop) = (service.clone(), until(stopping.clone()));
        let incoming = UnixListenerStream::new(listener);
        transport::server().serve_with_incoming_shutdown(service, incoming, stop).await
    };
    let stop = until(stopping.clone());
    let far = transport::server().serve_with_incoming_shutdown(service.clone(), incoming, stop);
    tokio::try_join!(near, far).map(|_| ())
}

/// So that the first who asks for digests finds them counted.
fn count_groups(store: &Arc<Store>) {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || {
        if let Err(e) = store.groups().count() {
            tracing::warn!("cannot count the chunks of each group: {e}");
        }
    });
}

fn read_token(path: &PathBuf) -> Result<Token, StartError> {
    let refuse = |why: String| StartError::Token { path: path.clone(), why };
    let text = fs::read_to_string(path).map_err(|e: io::Error| refuse(explain(&e)))?;
    let unfit = |e: Malformed| refuse(format!("{e}: copy the file that the master uses"));
    Token::parse(&text).map_err(unfit)
}

fn identity(config: &Config, first: &DataDir) -> Identity {
    Identity {
        node_id: NodeId(first.format.node_uuid),
        name: config.name.clone().unwrap_or_else(|| first.format.name.clone()),
        fs: first.format.fs_uuid,
        started: Instant::now(),
    }
}

/// Host and port under which others find the node.
fn advertised(config: &Config, address: SocketAddr) -> Result<(String, u16), StartError> {
    let Some(text) = &config.advertise else {
        if address.ip().is_unspecified() {
            return Err(StartError::Advertise(format!(
                "{address} means every address of this machine: say with --advertise HOST:PORT \
                 under which one others reach the node"
            )));
        }
        return Ok((address.ip().to_string(), address.port()));
    };
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = match port.parse().ok()? {
            0 => address.port(),
            port => port,
        };
        (!host.is_empty() && host.len() <= 255).then(|| (host.to_owned(), port))
    });
    parsed.ok_or_else(|| StartError::Advertise(format!("--advertise {text:?} is not HOST:PORT")))
}

type Opened = (Arc<Store>, oneshot::Receiver<()>, Vec<DataDir>);

/// Recovers all directories, on a thread that may block.
async fn open_store(config: &Config, dirs: Vec<DataDir>) -> Result<Opened, StartError> {
    let config = config.clone();
    let task = tokio::task::spawn_blocking(move || {
        let expected = dirs[0].format.disk_count as usize;
        if dirs.len() < expected {
            tracing::warn!(
                "{} of the node's {expected} data directories are given: the chunks on the others \
                 are missing",
                dirs.len()
            );
        }
        let chunk_size = dirs[0].format.chunk_size;
        let groups = Arc::new(Groups::default());
        let volumes: Vec<_> = (0..)
            .zip(&dirs)
            .map(|(volume, dir)| {
                let counting = Counting { groups: Arc::clone(&groups), volume };
                open_volume(&config, dir, dirs.len(), counting)
            })
            .collect::<Result<_, _>>()?;
        let limits =
            StoreLimits { chunk_size, put_bytes: config.put_bytes, get_bytes: config.get_bytes };
        let (store, gone) = Store::new(volumes, limits);
        Ok((Arc::new(store), gone, dirs))
    });
    match task.await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        // Only a runtime that is being shut down cancels blocking work, and it runs nothing more.
        Err(_) => std::future::pending().await,
    }
}

fn open_volume(
    config: &Config,
    dir: &DataDir,
    count: usize,
    counting: Counting,
) -> Result<Volume, StartError> {
    let setup = VolumeSetup {
        name: dir.path.display().to_string(),
        disk: Arc::new(RealDisk::new(dir.segments())),
        index_dir: dir.index(),
        index_cache: config.index_cache / count as u64,
        shape: SegmentShape { bytes: config.segment_bytes, chunk_size: dir.format.chunk_size },
        reserve: config.reserve,
        fs: dir.format.fs_uuid,
        counting,
    };
    Volume::open(setup).map_err(|error| StartError::Recovery { dir: dir.path.clone(), error })
}
