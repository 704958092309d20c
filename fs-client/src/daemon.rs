//! [`serve`]: a mount from its session with the master to its clean end, or to the daemon that follows.
//!
//! The mount itself is the [supervisor](crate::supervisor)'s, which hands the connection to the kernel
//! and the record of open files to each daemon.
//!
//! The daemon never looks into its own mount: a stat there would wait for an answer from itself.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_daemon::io_error::plain;
use cairn_daemon::metrics::{
    Page,
    page::{Bound, PageError},
};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    activity::Activity,
    config::ClientConfig,
    fuse::{Adapter, MountSettings, Mounted, mount_table, refusal::Refusal},
    metrics::{self, socket},
    rpc::ConnectError,
    supervisor::{Record, mounting},
    vfs::{StartError, Vfs},
};

/// How long the daemon tries to write back what is left when it has to end.
const LAST_FLUSH: Duration = Duration::from_secs(60);
/// How often a daemon that follows another looks for the master.
const AGAIN: Duration = Duration::from_millis(200);
/// How long operations may take to end before the next daemon gets them.
const HANDING_ON: Duration = Duration::from_secs(5);

/// Everything about one mount.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How to reach the store.
    pub client: ClientConfig,
    /// Bound of written bytes that are not committed yet.
    pub dirty_bytes: usize,
    /// Address on which metrics are served, if any, beside the mount's socket.
    pub metrics_listen: Option<SocketAddr>,
    /// Where and how to mount.
    pub mount: MountSettings,
}

/// Why there is no mount, or no longer one.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// There is no session with the master, or the disk cache is not for this mount.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The kernel refuses to mount.
    #[error("cannot mount at {at}: {}{remedy}", plain(.why))]
    Mount {
        /// Where.
        at: String,
        /// What the system says.
        why: io::Error,
        /// What to do, when that is known.
        remedy: &'static str,
    },
    /// There is no page for metrics.
    #[error(transparent)]
    Metrics(#[from] PageError),
    /// Signals cannot be handled.
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    /// Written bytes could not be brought to the store.
    #[error(
        "the mount at {at} has ended, but not everything that was written could be stored: {why}"
    )]
    Lost {
        /// Where.
        at: String,
        /// Why.
        why: String,
    },
    /// The connection to the kernel broke.
    #[error("the mount at {at} has ended: {why}")]
    Broken {
        /// Where.
        at: String,
        /// What the system says.
        why: io::Error,
    },
}

impl DaemonError {
    /// The kernel refuses to mount at `at`.
    pub fn mount(at: &Path, why: io::Error) -> Self {
        let remedy = remedy(&why);
        Self::Mount { at: at.display().to_string(), why, remedy }
    }
}

/// What to do about a mount that the kernel refuses, when that is known.
fn remedy(error: &io::Error) -> &'static str {
    // By kind: what fusermount3 says comes without a number.
    match error.kind() {
        io::ErrorKind::NotFound => ": is FUSE there? Load it with: modprobe fuse",
        io::ErrorKind::PermissionDenied => {
            ": to mount as an ordinary user, take a directory of your own, install fuse3 (fusermount3), and see that /dev/fuse may be opened"
        }
        _ => "",
    }
}

/// What a daemon has from its supervisor.
#[derive(Debug)]
pub struct Inheritance {
    /// The connection to the kernel.
    pub device: OwnedFd,
    /// What outlives daemons.
    pub record: Arc<Record>,
}

/// Serves, calls `ready` when it does, and returns when somebody unmounts, when the process is told to
/// end, or when the next daemon shall go on.
///
/// # Errors
/// Why there is no mount, or what was lost at its end.
pub async fn serve(
    mut settings: Settings,
    inheritance: Inheritance,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    let Inheritance { device, record } = inheritance;
    settings.client.record = Some(Arc::clone(&record));
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let mut hand_on = signal(SignalKind::user_defined2()).map_err(DaemonError::Signals)?;
    let at = settings.mount.at.display().to_string();
    let bound = Bound::to(settings.metrics_listen).await?;
    let old = record.session();
    let vfs = tokio::select! {
        vfs = connect(&settings, &device, &record) => vfs?,
        _ = terminate.recv() => return detach(&settings.mount.at),
        _ = interrupt.recv() => return detach(&settings.mount.at),
    };
    let restored = vfs.restore(&settings.client, &record, old).await;
    let (deadline, shown) = (settings.client.deadline, settings.mount.shown);
    let adapter = Adapter::new(Arc::clone(&vfs), Handle::current(), deadline, shown);
    let (activity, notices, draining) = (adapter.activity(), adapter.notices(), adapter.draining());
    vfs.keep_atimes(settings.mount.atime);
    let mut mounted = match Mounted::new(adapter, &settings.mount, device, &record) {
        Ok(mounted) => mounted,
        Err(why) => {
            vfs.session().clone().close().await;
            return Err(DaemonError::mount(&settings.mount.at, why));
        }
    };
    let generation = record.generation();
    let (handles, stale) = (restored.handles, restored.stale);
    tracing::info!(at, source = settings.mount.source, generation, handles, stale, "mounted");
    for ino in restored.damaged {
        notices.forget_all(ino).await;
    }
    let public = bound.map(|bound| bound.serve(metrics::site(&vfs, &activity)));
    let private = serve_on_socket(&settings.mount.at, &vfs, &activity);
    ready();
    let ended = tokio::select! {
        ended = mounted.ended() => ended,
        _ = terminate.recv() => unmount(&vfs, &mut mounted, &at).await,
        _ = interrupt.recv() => unmount(&vfs, &mut mounted, &at).await,
        _ = hand_on.recv() => {
            step_back(&vfs, &activity, &draining).await;
            return Ok(());
        }
    };
    for page in private.into_iter().chain(public) {
        page.stop().await;
    }
    let flushed = match timeout(LAST_FLUSH, vfs.shutdown()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the store did not take it within {} s", LAST_FLUSH.as_secs())),
    };
    tracing::info!(at, "unmounted");
    flushed.map_err(|why| DaemonError::Lost { at: at.clone(), why })?;
    ended.map_err(|why| DaemonError::Broken { at, why })
}

/// The session with the master. The first daemon says why there is none; a later one waits for the
/// master, and from the deadline on refuses what programs ask for.
async fn connect(
    settings: &Settings,
    device: &OwnedFd,
    record: &Record,
) -> Result<Arc<Vfs>, DaemonError> {
    let began = Instant::now();
    let mut refusal = None;
    loop {
        let why = match Vfs::connect(&settings.client, settings.dirty_bytes).await {
            Ok(vfs) => {
                drop(refusal);
                return Ok(vfs);
            }
            Err(why) => why,
        };
        let passes = matches!(why, StartError::Connect(ConnectError::Unreachable { .. }));
        if record.first_reply().is_none() || !passes || !mounting::is_connected(device) {
            return Err(why.into());
        }
        if refusal.is_none() && began.elapsed() >= settings.client.deadline {
            tracing::warn!("{why}; operations fail until it is back");
            refusal = Refusal::begin(device).inspect_err(|e| tracing::warn!("{e}")).ok();
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Leaves the mount to the next daemon: what is under way is answered, what was written is committed,
/// what comes later waits. The session with the master stays, for the next one to take over from.
async fn step_back(vfs: &Vfs, activity: &Activity, draining: &AtomicBool) {
    tracing::info!("handing the mount on to the next daemon");
    draining.store(true, Ordering::Release);
    let began = Instant::now();
    while activity.underway() > 0 && began.elapsed() < HANDING_ON {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    match timeout(LAST_FLUSH, vfs.sync_all()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "not everything could be written back"),
        Err(_) => tracing::error!("not everything could be written back in time"),
    }
    vfs.chunks().close_disk_cache().await;
}

/// Takes the mount away from its users, before anything was served.
fn detach(at: &Path) -> Result<(), DaemonError> {
    let broken = |why| DaemonError::Broken { at: at.display().to_string(), why };
    mounting::detach(at).map_err(broken)
}

/// Metrics and profile for the mount's owner. A mount that cannot have a socket does without.
fn serve_on_socket(at: &Path, vfs: &Arc<Vfs>, activity: &Arc<Activity>) -> Option<Page> {
    let owner = rustix::process::geteuid().as_raw();
    let mount = mount_table::find(at)?;
    let page = socket::path(&mount.device, owner).and_then(|path| {
        let site = metrics::site_with_profile(vfs, activity);
        Page::unix(&path, site).map_err(|error| error.to_string())
    });
    page.inspect_err(|why| {
        tracing::warn!("`cairn profile` will not find this mount: {why}");
    })
    .ok()
}

/// Unmounts because the process was told to end. What is in use is taken away from its users.
async fn unmount(vfs: &Vfs, mounted: &mut Mounted, at: &str) -> io::Result<()> {
    tracing::info!(at, "told to end: writing back and unmounting");
    if let Ok(Err(error)) = timeout(LAST_FLUSH, vfs.sync_all()).await {
        tracing::error!(at, %error, "not everything could be written back");
    }
    if let Err(error) = mounted.unmount() {
        tracing::warn!(at, %error, "the mount is in use: taking it away from its users");
        return mounting::detach(Path::new(at));
    }
    mounted.ended().await
}
