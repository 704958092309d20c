//! Cairn's storage node: keeps chunks, knows nothing of files.
//!
//! Layers, each using only those below it:
//!
//! - [`server`]: the only wiring. Opens the store, binds, serves, beats ([`heartbeat`]), stops in order.
//! - [`service`]: gRPC in, gRPC out; checks what it receives and delegates.
//! - [`repair`]: fetches what is missing here from other nodes ([`peer`]), drops what belongs elsewhere.
//! - [`scrub`]: reads everything again from time to time.
//! - [`store`]: put, get, have, list, verify over one or several data directories; the index.
//! - [`segment`]: append-only files of framed records.
//! - [`backups`]: roots of backups of the master's metadata.
//! - [`disk`]: the seam to the file system, real or faulty.
//!
//! What holds: a put that was answered is durable, whatever is killed or loses power; a chunk is stored
//! under the SHA-256 of its bytes or not at all; nothing that comes from the wire or the disk makes the
//! process panic; memory is bounded by configuration.

pub mod backups;
pub mod capacity;
pub mod cli;
pub mod config;
pub mod disk;
pub mod failpoints;
pub mod format;
pub mod heartbeat;
pub mod io_pool;
pub mod metrics;
pub mod peer;
pub mod repair;
pub mod scrub;
pub mod segment;
pub mod server;
pub mod service;
pub mod status;
pub mod store;
