//! How garbage collection fares.

use cairn_proto::pb;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::{
    output::{Mood, painted},
    units,
};

/// Garbage collection, since the master started.
#[derive(Serialize, JsonSchema)]
pub struct GarbageReport {
    /// Epoch that puts are stamped with.
    pub epoch: u64,
    /// A cycle runs at this moment.
    pub running: bool,
    /// Why no cycle starts; empty: nothing keeps it from starting.
    pub waiting_for: String,
    /// Cycles.
    pub cycles: u64,
    /// Copies of chunks that were erased.
    pub chunks_erased: u64,
    /// Their bytes.
    pub bytes_erased: u64,
    /// Bytes that were given back to the file systems of the disks.
    pub bytes_returned: u64,
    /// When the last cycle began, in seconds since 1970; 0: there was none.
    pub last_started_unix: u64,
    /// Bytes of copies that nothing refers to and that the next cycles erase, as the last one found them.
    pub condemned_bytes: u64,
    /// Why the last cycle did not do everything; empty: it did.
    pub failure: String,
}

impl From<pb::GcStatus> for GarbageReport {
    fn from(gc: pb::GcStatus) -> Self {
        let last = gc.last.unwrap_or_default();
        let bytes = |tally: Option<pb::ChunkTally>| tally.unwrap_or_default().bytes;
        Self {
            epoch: gc.epoch,
            running: gc.running,
            waiting_for: gc.waiting_for,
            cycles: gc.cycles,
            chunks_erased: gc.chunks_erased,
            bytes_erased: gc.bytes_erased,
            bytes_returned: gc.bytes_returned,
            last_started_unix: last.started_unix,
            condemned_bytes: bytes(last.quarantined) + bytes(last.waiting),
            failure: last.failure,
        }
    }
}

impl GarbageReport {
    /// For people.
    pub(super) fn line(&self) -> String {
        let erased = format!("{} erased since the master started", units::bytes(self.bytes_erased));
        if !self.failure.is_empty() {
            return painted(
                &format!("the last cycle stopped: {}; {erased}", self.failure),
                Mood::Bad,
            );
        }
        if self.running {
            return format!("collecting; {erased}");
        }
        if !self.waiting_for.is_empty() {
            return format!("waiting: {}", self.waiting_for);
        }
        format!("{} to go; {erased}", units::bytes(self.condemned_bytes))
    }
}
