//! Mounting: options, session threads, the mount's read-ahead, unmounting.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use tokio::sync::oneshot;

use super::{Adapter, Shown, mount_table};
use crate::vfs::AtimePolicy;

/// Threads that read requests. They only hand on, so two are enough for any number of cores.
const THREADS: usize = 2;
/// Read-ahead of the mount in KiB; the kernel offers only 128 when mounting.
const READ_AHEAD_KB: &str = "1024";

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Where; absolute.
    pub at: PathBuf,
    /// What `mount` and `df` show as the source.
    pub source: String,
    /// Other users may use the mount. The kernel checks permissions in any case.
    pub allow_other: bool,
    /// Nothing may be changed through this mount.
    pub read_only: bool,
    /// Set-user-id and set-group-id bits count.
    pub suid: bool,
    /// Device nodes are devices.
    pub dev: bool,
    /// No program may be executed.
    pub noexec: bool,
    /// Which reads count for `atime`.
    pub atime: AtimePolicy,
    /// Owner and mode that are shown instead of the stored ones.
    pub shown: Shown,
}

/// A mount that is served.
pub struct Mounted {
    unmounter: SessionUnmounter,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl Mounted {
    /// Mounts and begins to serve.
    ///
    /// # Errors
    /// Why the kernel refuses.
    pub fn new(adapter: Adapter, settings: &MountSettings) -> io::Result<Self> {
        let notices = adapter.notices.clone();
        let mut session = Session::new(adapter, &settings.at, &config(settings))?;
        notices.connect(session.notifier());
        let unmounter = session.unmount_callable();
        let (tell, ended) = oneshot::channel();
        thread::Builder::new().name("fuse".into()).spawn(move || {
            // Nobody is left to hear it when the daemon is going down already.
            let _ = tell.send(session.run());
        })?;
        raise_read_ahead(&settings.at);
        Ok(Self { unmounter, ended })
    }

    /// Waits until somebody unmounts.
    ///
    /// # Errors
    /// Why serving ended otherwise.
    pub async fn ended(&mut self) -> io::Result<()> {
        match (&mut self.ended).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the session's thread is gone")),
        }
    }

    /// Unmounts; fails when the mount is in use.
    ///
    /// # Errors
    /// EBUSY when it is in use.
    pub fn unmount(&mut self) -> io::Result<()> {
        self.unmounter.unmount()
    }
}

fn config(settings: &MountSettings) -> Config {
    let mut options = vec![
        MountOption::FSName(settings.source.clone()),
        // fuser leaves its own form of it out when it mounts without a helper.
        MountOption::CUSTOM("subtype=cairn".to_owned()),
        MountOption::DefaultPermissions,
    ];
    let flags = [
        (settings.read_only, MountOption::RO),
        (settings.suid, MountOption::Suid),
        (settings.dev, MountOption::Dev),
        (settings.noexec, MountOption::NoExec),
        (settings.atime == AtimePolicy::Noatime, MountOption::NoAtime),
    ];
    options.extend(flags.into_iter().filter_map(|(wanted, flag)| wanted.then_some(flag)));
    let mut config = Config::default();
    config.mount_options = options;
    config.acl = if settings.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config
}

/// Only root may; without it reads are in smaller pieces, which the daemon's own read-ahead softens.
fn raise_read_ahead(at: &Path) {
    let Some(mount) = mount_table::find(at) else { return };
    let path = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    if let Err(error) = fs::write(&path, READ_AHEAD_KB) {
        tracing::debug!(%error, path, "the mount keeps the kernel's read-ahead");
    }
}
