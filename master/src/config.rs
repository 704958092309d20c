//! What a serving master can be told, with units, defaults and ranges. No other file has a default.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cairn_proto::handshake::Token;

/// Where a master listens unless told otherwise: this machine only.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:9000";
/// Seconds of silence that end a session.
pub const SESSION_EXPIRY_DEFAULT: u64 = 60;
/// Milliseconds of silence that make a storage node suspect.
pub const SUSPECT_AFTER_DEFAULT: u64 = 1500;
/// Seconds of silence that make a storage node down.
pub const DOWN_AFTER_DEFAULT: u64 = 30;
/// Seconds that a storage node is down before its copies are made elsewhere.
pub const OUT_AFTER_DEFAULT: u64 = 60;
/// Seconds after a start in which repair waits for all storage nodes.
pub const SAFE_MODE_GRACE_DEFAULT: u64 = 30;
/// Bytes a second that repair writes to each storage node.
pub const REPAIR_BANDWIDTH_DEFAULT: u64 = 256 << 20;
/// Pulls of repair that run at once.
pub const REPAIR_CONCURRENCY_DEFAULT: usize = 4;
/// Milliseconds that an acknowledged operation may stay short of power-safe.
pub const SYNC_INTERVAL_DEFAULT: u64 = 100;

/// Seconds between two backups of the metadata into the storage nodes.
pub const BACKUP_INTERVAL_DEFAULT: u64 = 60;
/// How many of them are kept.
pub const BACKUP_GENERATIONS_DEFAULT: usize = 3;
/// Seconds between two cycles of garbage collection.
pub const GC_INTERVAL_DEFAULT: f64 = 60.0;

/// Which engine keeps the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineKind {
    /// The embedded log-structured engine, in `meta/`.
    #[default]
    Fjall,
    /// Nothing is kept when the master stops. For tests.
    Memory,
}

/// Settings of one serving master.
#[derive(Clone, Debug)]
pub struct Config {
    /// A directory that `format` made.
    pub data: PathBuf,
    /// Address and port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Address on which metrics are served, if any; port 0 picks one.
    pub metrics_listen: Option<SocketAddr>,
    /// The shared secret that every caller must know, if any.
    pub token: Option<Token>,
    /// Engine.
    pub engine: EngineKind,
    /// Silence that ends a session.
    pub session_expiry: Duration,
    /// Silence that makes a node suspect; a broken stream does so at once.
    pub suspect_after: Duration,
    /// Silence that makes a node down.
    pub down_after: Duration,
    /// How long a node is down before its copies are made elsewhere.
    pub out_after: Duration,
    /// How long after a start repair waits for all nodes, if at least one copy of everything is there.
    pub safe_mode_grace: Duration,
    /// Bytes a second that repair writes to each node; 0: as fast as it goes.
    pub repair_bandwidth: u64,
    /// Pulls of repair that run at once, over all nodes; 0: nothing is repaired.
    pub repair_concurrency: usize,
    /// Longest time between an acknowledged operation and its being safe against power loss.
    pub sync_interval: Duration,
    /// Time between two backups of the metadata into the storage nodes; zero: none.
    pub backup_interval: Duration,
    /// How many of them are kept; at least one.
    pub backup_generations: usize,
    /// Time between two cycles of garbage collection; zero: none by themselves.
    pub gc_interval: Duration,
}

impl Config {
    /// The defaults for the data directory `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: LISTEN_DEFAULT.parse().expect("the default is an address and a port"),
            metrics_listen: None,
            token: None,
            engine: EngineKind::default(),
            session_expiry: Duration::from_secs(SESSION_EXPIRY_DEFAULT),
            suspect_after: Duration::from_millis(SUSPECT_AFTER_DEFAULT),
            down_after: Duration::from_secs(DOWN_AFTER_DEFAULT),
            out_after: Duration::from_secs(OUT_AFTER_DEFAULT),
            safe_mode_grace: Duration::from_secs(SAFE_MODE_GRACE_DEFAULT),
            repair_bandwidth: REPAIR_BANDWIDTH_DEFAULT,
            repair_concurrency: REPAIR_CONCURRENCY_DEFAULT,
            sync_interval: Duration::from_millis(SYNC_INTERVAL_DEFAULT),
            backup_interval: Duration::from_secs(BACKUP_INTERVAL_DEFAULT),
            backup_generations: BACKUP_GENERATIONS_DEFAULT,
            gc_interval: Duration::from_secs_f64(GC_INTERVAL_DEFAULT),
        }
    }
}
