//! Talking to the master: the session with its operation log, and the plain calls of the command line.
//!
//! - [`session`]: the API; `log`: the pure state machine behind it (what was sent, what is answered,
//!   what is durable, what is sent again); `outgoing`: the request stream; `driver`: the one task that
//!   owns the connection.
//! - [`connect`]: channels, the greeting, and sentences for what goes wrong with it; `dial`: the way to a node.
//! - [`lock_waits`]: who waits for the news that a lock is free.
//! - [`admin`]: status, walk, fsck, verify and the like.
//!
//! Nothing in here knows about FUSE or about files.

pub mod admin;
pub mod connect;
mod dial;
mod driver;
mod farewell;
pub mod lock_waits;
mod log;
mod outgoing;
#[cfg(test)]
pub(crate) mod scripted;
pub mod session;
#[cfg(test)]
mod tests;

pub use admin::{Admin, CallError, NodeAdmin};
pub use connect::ConnectError;
pub(crate) use farewell::end_session;
pub use lock_waits::LockWait;
pub use session::{Answered, Caller, Session};
