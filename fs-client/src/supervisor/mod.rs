//! The supervisor: a small process that holds a mount while the daemon that serves it comes and goes.
//!
//! It mounts ([`mounting`]), keeps the kernel's first request and a [`record`] of open files in memory
//! that outlives the daemon, and starts the daemon with both ([`watch`]). When the daemon dies, the
//! next one attaches itself to the same connection ([`crate::fuse::session`]), opens what was open
//! ([`crate::vfs`]) and has the kernel send again what was not answered. No tokio in here, and nothing
//! that could fail for reasons of the network.
//!
//! The daemon is a child process of the same program, with the same arguments and `--serving`. The two
//! descriptors that it inherits are named there.

pub mod mounting;
pub mod record;
pub mod watch;

pub use record::{OpenHandle, Record};
