//! [`ClientConfig`]: what the transport needs to know, each field with its unit and default.

use std::{path::PathBuf, sync::Arc, time::Duration};

use cairn_proto::handshake::Token;

use crate::supervisor::Record;

/// How a client reaches its file system and how much it may keep in memory.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `HOST:PORT` of the master.
    pub master: String,
    /// The shared secret, when the file system has one.
    pub token: Option<Token>,
    /// Who this client is, for people: host and mount point or verb.
    pub name: String,
    /// How long an operation may wait for an answer before it fails. Default 30 s.
    pub deadline: Duration,
    /// Bound of the cache of verified chunks, in bytes; 0 keeps nothing. Default 128 MiB.
    pub cache_bytes: usize,
    /// Where chunks are kept beyond the life of the client. Default none.
    pub disk_cache: Option<DiskCacheConfig>,
    /// Bound of the bytes that are on their way to the nodes. Default 64 MiB.
    pub upload_bytes: usize,
    /// Bound of the bytes that are on their way from the nodes. Default 64 MiB.
    pub download_bytes: usize,
    /// Ask the nodes for each chunk whether they have it, and send it only where it is not: saves bytes
    /// when much is there already, costs a round trip when nothing is. Default false.
    pub ask_before_put: bool,
    /// How long setting up a connection may take. Default 5 s.
    pub connect_timeout: Duration,
    /// What outlives the process, where there is a supervisor that keeps it. Default none.
    pub record: Option<Arc<Record>>,
}

/// A cache of chunks on a local disk.
#[derive(Clone, Debug)]
pub struct DiskCacheConfig {
    /// A directory of its own.
    pub dir: PathBuf,
    /// Bound of what it takes there, in bytes.
    pub bytes: u64,
}

impl ClientConfig {
    /// The defaults, for the file system whose master listens on `master` (`HOST:PORT`).
    pub fn new(master: impl Into<String>) -> Self {
        Self {
            master: master.into(),
            token: None,
            name: "cairn".to_owned(),
            deadline: Duration::from_secs(30),
            cache_bytes: 128 << 20,
            disk_cache: None,
            upload_bytes: 64 << 20,
            download_bytes: 64 << 20,
            ask_before_put: false,
            connect_timeout: Duration::from_secs(5),
            record: None,
        }
    }
}
