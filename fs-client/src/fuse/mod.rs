//! FUSE: the kernel's requests become calls of [`crate::vfs::Vfs`], their results become replies.
//!
//! This layer decodes and answers; it decides nothing about files. [`adapter`] has the kernel's list of
//! operations, `names`, `attributes`, `files` and `directories` what is done with them. What can be answered from memory is
//! answered on the session's thread, everything else by a task that owns the reply ([`tasks`]); no
//! session thread ever waits. A task that panics answers EIO ([`answer`]), one that takes too long answers EIO
//! or, when its caller was told to stop, EINTR ([`patience`]).
//!
//! fuser 0.18 passes no FUSE_INTERRUPT on, and the kernel waits for the reply even of a process that
//! was killed; so [`patience`] looks for signals itself.

pub mod adapter;
mod again;
pub mod answer;
pub mod attr;
mod attributes;
mod directories;
mod files;
mod flags;
mod init;
pub mod listing;
pub mod liveness;
mod lock_kind;
mod locks;
pub mod mount_table;
mod names;
pub mod notices;
pub mod patience;
mod privileges;
mod read_reply;
pub mod refusal;
pub mod session;
pub mod shown;
pub mod tasks;

pub use session::{MountSettings, Mounted};
pub use shown::Shown;
pub use tasks::Adapter;
