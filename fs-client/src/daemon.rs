//! [`serve`]: a mount from its session with the master to its clean end.
//!
//! The daemon never looks into its own mount: a stat there would wait for an answer from itself.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use cairn_daemon::io_error::plain;
use cairn_daemon::{
    metrics::{
        Page,
        page::{Bound, PageError},
    },
    notify,
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
    fuse::{Adapter, MountSettings, Mounted, mount_table},
    metrics::{self, socket},
    rpc::ConnectError,
    vfs::Vfs,
};

/// How long the daemon tries to write back what is left when it has to end.
const LAST_FLUSH: Duration = Duration::from_secs(60);

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
    /// There is no session with the master.
    #[error(transparent)]
    Connect(#[from] ConnectError),
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

/// Mounts, calls `ready`, and serves until somebody unmounts or the process is told to end.
///
/// # Errors
/// Why there is no mount, or what was lost at its end.
pub async fn serve(settings: Settings, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let at = settings.mount.at.display().to_string();
    let bound = Bound::to(settings.metrics_listen).await?;
    let vfs = Vfs::connect(&settings.client, settings.dirty_bytes).await?;
    let (deadline, shown) = (settings.client.deadline, settings.mount.shown);
    let adapter = Adapter::new(Arc::clone(&vfs), Handle::current(), deadline, shown);
    let activity = adapter.activity();
    vfs.keep_atimes(settings.mount.atime);
    let mut mounted = match Mounted::new(adapter, &settings.mount) {
        Ok(mounted) => mounted,
        Err(why) => {
            vfs.session().clone().close().await;
            let remedy = remedy(&why);
            return Err(DaemonError::Mount { at, why, remedy });
        }
    };
    tracing::info!(at, source = settings.mount.source, "mounted");
    let public = bound.map(|bound| bound.serve(metrics::site(&vfs, &activity)));
    let private = serve_on_socket(&settings.mount.at, &vfs, &activity);
    ready();
    let ended = tokio::select! {
        ended = mounted.ended() => ended,
        _ = terminate.recv() => unmount(&vfs, &mut mounted, &at).await,
        _ = interrupt.recv() => unmount(&vfs, &mut mounted, &at).await,
    };
    notify::stopping("writing back what is left");
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
    notify::stopping("writing back and unmounting");
    if let Ok(Err(error)) = timeout(LAST_FLUSH, vfs.sync_all()).await {
        tracing::error!(at, %error, "not everything could be written back");
    }
    if let Err(error) = mounted.unmount() {
        tracing::warn!(at, %error, "the mount is in use: taking it away from its users");
        return rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH)
            .map_err(io::Error::from);
    }
    mounted.ended().await
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => ": is FUSE there? Load it with: modprobe fuse",
        Some(libc::EACCES | libc::EPERM) => {
            ": to mount as an ordinary user, take a directory of your own, install fuse3 (fusermount3), and see that /dev/fuse may be opened"
        }
        _ => "",
    }
}
