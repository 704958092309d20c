//! What two Cairn processes must agree on, and nothing else.
//!
//! - [`pb`]: the generated messages and services, the protocol in its loose form.
//! - domain types ([`ChunkId`], [`Ino`], [`ChunkRef`], [`Attr`], [`ClusterMap`], [`FsError`], ...):
//!   the protocol in its strict form. Whoever receives a message converts with `TryFrom` and so
//!   checks it; sending is an infallible `From`.
//! - pure functions that both sides must compute alike: [`placement`], [`range`].
//! - [`bulk`]: streams of chunks, without a copy of the payload.
//! - [`transport`], [`local_socket`] and [`handshake`]: how connections are set up and greeted.
//!
//! Rules: depends on nothing of ours; no files, no clock, no tasks, no retries; a thing belongs here
//! only if two processes need it.

pub mod attr;
pub mod bulk;
pub mod chunk_id;
pub mod cluster_map;
pub mod compression;
pub mod error;
pub mod file_name;
pub mod garbage_filter;
pub mod handshake;
pub mod ids;
pub mod limits;
pub mod local_socket;
pub mod lock_ranges;
pub mod manifest;
pub mod pb;
pub mod placement;
pub mod range;
mod sha256;
pub mod status;
pub mod transport;
pub mod xattr;

pub use attr::{Attr, FileKind, Timestamp};
pub use chunk_id::ChunkId;
pub use cluster_map::{ClusterMap, Node, NodeState};
pub use compression::{Codec, Compression};
pub use error::{ChunkError, FsError, Malformed};
pub use file_name::FileName;
pub use ids::{Ino, NodeId, SessionId};
pub use manifest::{ChunkRef, ManifestRun};
pub use placement::Group;
