//! What a service manager is told (`sd_notify`): ready, stopping, and a line about what is going on.
//! Without `NOTIFY_SOCKET` nothing happens.

use sd_notify::NotifyState;

/// The variable that names the manager's socket; it is not for the children of a daemon.
pub const SOCKET: &str = "NOTIFY_SOCKET";

/// The daemon serves; `status` says where.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon has begun to stop.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager's socket ({SOCKET}) takes no message");
    }
}
