//! Asking a mount's daemon over its socket. Every wait has an end.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::geteuid;

use super::{Failure, Report, shown};
use crate::{fuse::mount_table::Mount, metrics::socket};

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A longer answer is none of ours.
const LONGEST: u64 = 16 << 20;

/// A mount that can be asked.
pub(super) struct Target {
    at: PathBuf,
    socket: PathBuf,
}

impl Target {
    /// The daemon of `mount`.
    ///
    /// # Errors
    /// When it belongs to somebody else.
    pub(super) fn new(mount: &Mount) -> Result<Self, Failure> {
        let me = geteuid().as_raw();
        let owner = mount.owner.unwrap_or(me);
        if me != 0 && owner != me {
            return Err(Failure::new(format!(
                "the mount at {} belongs to user {owner}: only that user and root can profile it",
                shown(&mount.at)
            )));
        }
        let socket = socket::path(&mount.device, owner).map_err(Failure::new)?;
        Ok(Self { at: mount.at.clone(), socket })
    }

    /// What it has done; the slowest of the last `seconds`.
    ///
    /// # Errors
    /// A sentence that says why it cannot be learned.
    pub(super) fn ask(&self, seconds: u64) -> Result<Report, Failure> {
        let answer = get(&self.socket, &format!("/profile?seconds={seconds}"));
        let answer = answer.map_err(|error| self.failure(&error))?;
        serde_json::from_str(&answer).map_err(|error| {
            Failure::new(format!(
                "the daemon of {} answers what this program does not understand ({error}): use the \
                 same release for both",
                shown(&self.at)
            ))
        })
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let (at, socket) = (shown(&self.at), self.socket.display());
        Failure::new(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
                "nobody answers for the mount at {at}: its daemon is gone (end the mount with: cairn \
                 umount {at}), or it could not make its socket {socket}, and then its log says why"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "no permission to open {socket}: run this as the user who mounted {at}, or as root"
            ),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!(
                "the daemon of the mount at {at} does not answer within {} s: it is stopped, or the \
                 machine is overloaded; try again",
                PATIENCE.as_secs()
            ),
            _ => format!("cannot ask the daemon of the mount at {at} over {socket}: {error}"),
        })
    }
}

/// The body that `path` has on the server behind `socket`.
fn get(socket: &Path, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(body.to_owned());
    }
    Err(io::Error::other(format!("{status} {}", body.trim())))
}
