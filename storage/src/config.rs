//! Settings of a serving node, with units and defaults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use cairn_daemon::{size::Size, span::Span};

use crate::scrub::ScrubSettings;

/// Everything is read again within this time.
pub const SCRUB_PERIOD: Span = Span::days(14);
/// Most bytes a second of each disk that are read again.
pub const SCRUB_BANDWIDTH: Size = Size::mib(100);
/// Length of a segment file in bytes.
pub const SEGMENT_BYTES: u64 = 256 * 1024 * 1024;

/// See the fields. [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Formatted data directories, one for each disk.
    pub data: Vec<PathBuf>,
    /// Address to serve on; port 0 picks one. Loopback unless told otherwise.
    pub listen: SocketAddr,
    /// `host:port` under which others reach the node; default: the address served on.
    pub advertise: Option<String>,
    /// `host:port` of the master.
    pub master: String,
    /// What people call the node; default: the name given to `format`.
    pub name: Option<String>,
    /// Failure domain; copies of a chunk go to distinct zones first.
    pub zone: String,
    /// Free bytes to keep on each disk; default: 1 GiB or 5 % of the disk, the smaller.
    pub reserve: Option<u64>,
    /// When and how fast everything is read again.
    pub scrub: ScrubSettings,
    /// Address on which metrics are served, if any; port 0 picks one.
    pub metrics_listen: Option<SocketAddr>,
    /// File with the shared secret that callers must know.
    pub token_file: Option<PathBuf>,
    /// Length at which a segment is full, in bytes.
    pub segment_bytes: u64,
    /// Bytes of puts that may be in memory at once.
    pub put_bytes: u64,
    /// Bytes of answers to gets that may be in memory at once.
    pub get_bytes: u64,
    /// Bytes of index blocks to keep in memory, all disks together.
    pub index_cache: u64,
}

impl Config {
    /// The defaults for these directories and this master.
    pub fn new(data: Vec<PathBuf>, master: impl Into<String>) -> Self {
        Self {
            data,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9001)),
            advertise: None,
            master: master.into(),
            name: None,
            zone: String::new(),
            reserve: None,
            scrub: ScrubSettings { period: SCRUB_PERIOD.0, bandwidth: SCRUB_BANDWIDTH.0 },
            metrics_listen: None,
            token_file: None,
            segment_bytes: SEGMENT_BYTES,
            put_bytes: 32 * 1024 * 1024,
            get_bytes: 32 * 1024 * 1024,
            index_cache: 32 * 1024 * 1024,
        }
    }
}
