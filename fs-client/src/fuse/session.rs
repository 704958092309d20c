//! Serving a mount: the session with the kernel, its threads, the mount's read-ahead.
//!
//! The mount belongs to the supervisor, which hands the connection to the kernel on from daemon to
//! daemon. fuser begins every session with the kernel's first request, which comes only once. So it is
//! given that request, as the supervisor has kept it, over a socket pair; then the connection takes the
//! socket's place under the same descriptor number. A later daemon is offered only what the first one
//! agreed to. See `docs/adr/0009-the-mount-survives-its-daemon.md`.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use fuser::{Config, Session, SessionACL};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::oneshot;

use super::{Adapter, Shown, mount_table};
use crate::{
    supervisor::{Record, mounting},
    vfs::AtimePolicy,
};

/// Threads that read requests. They only hand on, so two are enough for any number of cores.
const THREADS: usize = 2;
/// Read-ahead of the mount in KiB; the kernel offers only 128 when mounting.
const READ_AHEAD_KB: &str = "1024";
/// `FUSE_NOTIFY_RESEND`: the kernel sends again what was read and not answered.
const NOTIFY_RESEND: i32 = 7;
/// `FUSE_INIT_EXT`: the second word of flags counts.
const INIT_EXT: u32 = 1 << 30;

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
    at: PathBuf,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl Mounted {
    /// Begins to serve the connection `device`.
    ///
    /// # Errors
    /// When the kernel's first request is not there or not understood, or the system has no thread.
    pub fn new(
        adapter: Adapter,
        settings: &MountSettings,
        device: OwnedFd,
        record: &Arc<Record>,
    ) -> io::Result<Self> {
        let notices = adapter.notices.clone();
        // Nothing is asked before the handshake, so nobody else sets it.
        let _ = adapter.device.set(device.try_clone()?);
        let further = record.first_reply().is_some();
        let session = shake_hands(adapter, settings, &device, record)?;
        notices.connect(session.notifier());
        if further {
            send_again(&device)?;
        }
        drop(device);
        let (tell, ended) = oneshot::channel();
        thread::Builder::new().name("fuse".into()).spawn(move || {
            // Nobody is left to hear it when the daemon is going down already.
            let _ = tell.send(session.run());
        })?;
        raise_read_ahead(&settings.at);
        Ok(Self { at: settings.at.clone(), ended })
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
        mounting::take_away(&self.at)
    }
}

/// A session of fuser's that has had its handshake, on `device`.
fn shake_hands(
    adapter: Adapter,
    settings: &MountSettings,
    device: &OwnedFd,
    record: &Record,
) -> io::Result<Session<Adapter>> {
    let missing = || io::Error::other("the kernel's first request is not there");
    let mut request = record.first_request().ok_or_else(missing)?;
    let agreed = record.first_reply();
    if let Some(agreed) = &agreed {
        narrow(&mut request, agreed);
    }
    let flags = SocketFlags::CLOEXEC;
    let (kernel, ours) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let mut kernel = UnixStream::from(kernel);
    kernel.write_all(&request)?;
    let acl = if settings.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(THREADS);
    // One open device for all daemons: the kernel ends what was read from another when that is closed, and
    // takes an answer only through the one that it was asked through (`ReadReply` has a duplicate).
    config.clone_fd = false;
    let session = Session::from_fd(adapter, ours, acl, config)?;
    let mut reply = vec![0; 4096];
    let len = kernel.read(&mut reply)?;
    reply.truncate(len);
    match agreed {
        None => {
            rustix::io::write(device, &reply)?;
            record.set_first_reply(&reply);
        }
        Some(agreed) if agreed != reply => {
            tracing::warn!("this release agrees on other things with the kernel than the last one");
        }
        Some(_) => {}
    }
    let place = session.as_fd().as_raw_fd();
    // SAFETY: both descriptors are open; the session, which owns the second, uses it only by number.
    if unsafe { libc::dup3(device.as_raw_fd(), place, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(session)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Leaves of the kernel's offer what was agreed to: the read-ahead and both words of flags. The places
/// are those of `fuse_init_in` after its header of 40 bytes and of `fuse_init_out` after 16.
fn narrow(request: &mut [u8], agreed: &[u8]) {
    let mut keep = |at: usize, from: usize, always: u32| {
        if let (Some(offered), Some(agreed)) = (word(request, at), word(agreed, from)) {
            let kept = if at == 48 { agreed } else { offered & (agreed | always) };
            request[at..at + 4].copy_from_slice(&kept.to_ne_bytes());
        }
    };
    keep(48, 24, 0);
    keep(52, 28, INIT_EXT);
    keep(56, 48, 0);
}

/// Has the kernel send again what an earlier daemon has read and not answered.
pub(super) fn send_again(device: &OwnedFd) -> io::Result<()> {
    let mut notice = [0; 16];
    notice[..4].copy_from_slice(&16u32.to_ne_bytes());
    notice[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    File::from(device.try_clone()?).write_all(&notice).map_err(|error| {
        tracing::warn!(%error, "the kernel does not send again what was under way");
        error
    })
}

/// Only root may; without it reads are in smaller pieces, which the daemon's own read-ahead softens.
fn raise_read_ahead(at: &Path) {
    let Some(mount) = mount_table::find(at) else { return };
    let path = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    if let Err(error) = fs::write(&path, READ_AHEAD_KB) {
        tracing::debug!(%error, path, "the mount keeps the kernel's read-ahead");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_daemon_is_offered_what_the_first_agreed_to() {
        let mut request = vec![0xff; 104];
        let mut agreed = vec![0; 80];
        agreed[24..28].copy_from_slice(&4096u32.to_ne_bytes());
        agreed[28..32].copy_from_slice(&0b101u32.to_ne_bytes());
        agreed[48..52].copy_from_slice(&0b10u32.to_ne_bytes());
        narrow(&mut request, &agreed);
        assert_eq!(word(&request, 48), Some(4096));
        assert_eq!(word(&request, 52), Some(0b101 | INIT_EXT));
        assert_eq!(word(&request, 56), Some(0b10));
        assert!(request[..48].iter().all(|b| *b == 0xff) && request[60] == 0xff);
    }
}
