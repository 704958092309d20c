//! How backups of the master's metadata into the storage nodes fare.

use std::time::{SystemTime, UNIX_EPOCH};

use cairn_proto::pb;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::{
    output::{Mood, painted},
    units,
};

/// Backups of the master's metadata into the nodes.
#[derive(Serialize, JsonSchema)]
pub struct BackupReport {
    /// Seconds between two backups; 0: they are turned off.
    pub interval_seconds: u32,
    /// Number of the newest that is whole; 0: none since the master started.
    pub generation: u64,
    /// When it was taken, in milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// Until when nothing had changed since, in milliseconds since 1970.
    pub current_unix_ms: u64,
    /// Its length, one copy.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u64,
    /// Its rows.
    pub rows: u64,
    /// Nodes that have its root.
    pub roots: u32,
    /// How long it took.
    pub duration_ms: u64,
    /// Backups since the master started.
    pub done: u64,
    /// Attempts that failed since then.
    pub failed: u64,
    /// Chunks that were sent for them; the others were there.
    pub chunks_sent: u64,
    /// The same in bytes.
    pub bytes_sent: u64,
    /// Why the last attempt failed; absent when it did not.
    pub failure: Option<String>,
}

impl From<pb::BackupStatus> for BackupReport {
    fn from(b: pb::BackupStatus) -> Self {
        Self {
            interval_seconds: b.interval_seconds,
            generation: b.generation,
            taken_unix_ms: b.taken_unix_ms,
            current_unix_ms: b.current_unix_ms,
            bytes: b.bytes,
            chunks: b.chunks,
            rows: b.rows,
            roots: b.roots,
            duration_ms: b.duration_ms,
            done: b.done,
            failed: b.failed,
            chunks_sent: b.chunks_sent,
            bytes_sent: b.bytes_sent,
            failure: (!b.failure.is_empty()).then_some(b.failure),
        }
    }
}

impl BackupReport {
    /// For people.
    pub(super) fn line(&self) -> String {
        if self.interval_seconds == 0 {
            return "of the metadata is turned off (--backup-interval)".to_owned();
        }
        let state = if self.generation == 0 {
            format!("none yet; one every {} s", self.interval_seconds)
        } else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let age = now.as_secs().saturating_sub(self.current_unix_ms / 1000);
            format!(
                "the metadata of {} ago, {} on {}",
                units::seconds(age),
                units::bytes(self.bytes),
                units::plural(self.roots.into(), "node")
            )
        };
        match &self.failure {
            Some(why) => {
                format!("{state}; {}", painted(&format!("the last failed: {why}"), Mood::Bad))
            }
            None => state,
        }
    }
}
