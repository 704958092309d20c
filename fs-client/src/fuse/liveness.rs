//! Whether somebody serves a mount. Nothing that the kernel has cached says so, and neither does a
//! process number: only a request that it must pass on does.

use std::{path::Path, sync::mpsc, thread, time::Duration};

use rustix::io::Errno;

/// A mount without a daemon fails at once; one that has not answered by then has a daemon.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the mount at `at` has lost its daemon. A daemon that is merely slow is not lost.
pub fn is_dead(at: &Path) -> bool {
    let (tell, told) = mpsc::channel();
    let path = at.to_owned();
    // Of its own, because the answer may have to wait for the master. It ends with the process.
    thread::spawn(move || {
        let _ = tell.send(rustix::fs::statfs(&path).map(|_| ()));
    });
    // ECONNABORTED: the daemon went while it was being asked.
    matches!(told.recv_timeout(PATIENCE), Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_mount_has_lost_no_daemon() {
        assert!(!is_dead(Path::new("/")));
        assert!(!is_dead(Path::new("/nonexistent")));
    }
}
