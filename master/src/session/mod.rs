//! Sessions of clients: one stream each, operations in, replies and pushes out.
//!
//! - [`outbox`]: the bounded queue of frames to one client; never blocks who puts something in.
//! - [`registry`]: the sessions and which stream each of them has now.
//! - [`stream`]: reads the frames of one stream and hands the operations to the op thread.
//! - [`push`]: new cluster maps to everybody. [`expiry`]: the end of sessions.
//!
//! Lock order: registry, then session, then outbox. None is held across an await.

pub(crate) mod expiry;
pub(crate) mod outbox;
pub(crate) mod push;
pub(crate) mod registry;
pub(crate) mod stream;

#[cfg(test)]
mod tests;

/// Operations that a client may have unanswered at once, as `Welcome` says.
pub(crate) const WINDOW: u32 = 1024;
/// Operations unanswered at which a stream is ended: room for a client that sends its log again.
pub(crate) const WINDOW_HARD: u32 = 8 * WINDOW;
/// Sessions that may exist at once.
pub(crate) const SESSIONS_MAX: usize = 65_536;
/// How often a client sends something.
pub(crate) const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(2);
