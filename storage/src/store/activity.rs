//! [`Activity`]: what a store has done since it was opened. Status and metrics both show it.
//!
//! Counted where puts and gets end, whichever call they came by, chunk by chunk; times are those of
//! whole requests. Every number only grows.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use cairn_daemon::metrics::Latency;
use cairn_proto::{ChunkError, pb};

use super::{Put, compact::Reclaimed, writer::Outcome};

/// Chunks, and the bytes in them.
#[derive(Debug, Default)]
pub struct Tally {
    chunks: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// One more, of this length.
    pub fn add(&self, bytes: usize) {
        self.add_many(1, bytes as u64);
    }

    /// So many more.
    pub fn add_many(&self, chunks: u64, bytes: u64) {
        self.chunks.fetch_add(chunks, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// How many chunks.
    pub fn chunks(&self) -> u64 {
        self.chunks.load(Relaxed)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Activity {
    /// Received and stored.
    pub stored: Tally,
    /// Received although they were there.
    pub known: Tally,
    /// Read and handed out.
    pub sent: Tally,
    /// Chunks whose put was answered with an error.
    pub put_failures: AtomicU64,
    /// Chunks whose get was answered with an error.
    pub get_failures: AtomicU64,
    /// Collected: nothing referred to them.
    pub erased: Tally,
    /// Bytes that were given back to the file systems of the disks.
    pub returned: AtomicU64,
    /// Segments that were removed whole.
    pub segments_removed: AtomicU64,
    /// Segments that were rewritten.
    pub segments_rewritten: AtomicU64,
    /// Sweeps of garbage collection.
    pub sweeps: AtomicU64,
    /// Requests to put, and how long each took.
    pub puts: Latency,
    /// Requests to get, and how long each took.
    pub gets: Latency,
}

impl Activity {
    /// Room was given back.
    pub(super) fn reclaimed(&self, reclaimed: &Reclaimed) {
        self.returned.fetch_add(reclaimed.bytes, Relaxed);
        self.segments_removed.fetch_add(reclaimed.removed, Relaxed);
        self.segments_rewritten.fetch_add(reclaimed.rewritten, Relaxed);
    }

    /// What garbage collection has done.
    pub fn garbage(&self) -> pb::GarbageActivity {
        pb::GarbageActivity {
            sweeps: self.sweeps.load(Relaxed),
            chunks_erased: self.erased.chunks(),
            bytes_erased: self.erased.bytes(),
            bytes_returned: self.returned.load(Relaxed),
            segments_removed: self.segments_removed.load(Relaxed),
            segments_rewritten: self.segments_rewritten.load(Relaxed),
        }
    }

    /// A request to put chunks of these lengths has ended.
    pub(super) fn put(&self, lengths: &[usize], outcome: &Outcome, took: Duration) {
        for (len, result) in lengths.iter().zip(outcome) {
            match result {
                Ok(Put::Stored) => self.stored.add(*len),
                Ok(Put::Known) => self.known.add(*len),
                Err(_) => _ = self.put_failures.fetch_add(1, Relaxed),
            }
        }
        self.puts.record(took);
    }

    /// A request to get has ended.
    pub(super) fn got(
        &self,
        lengths: impl Iterator<Item = Result<usize, ChunkError>>,
        took: Duration,
    ) {
        for length in lengths {
            match length {
                Ok(bytes) => self.sent.add(bytes),
                // Not refused, only put off to the next request.
                Err(ChunkError::Overloaded) => {}
                Err(_) => _ = self.get_failures.fetch_add(1, Relaxed),
            }
        }
        self.gets.record(took);
    }
}

impl From<&Activity> for pb::NodeActivity {
    fn from(activity: &Activity) -> Self {
        Self {
            chunks_put: activity.stored.chunks(),
            bytes_put: activity.stored.bytes(),
            chunks_known: activity.known.chunks(),
            bytes_known: activity.known.bytes(),
            chunks_got: activity.sent.chunks(),
            bytes_got: activity.sent.bytes(),
            failures: activity.put_failures.load(Relaxed) + activity.get_failures.load(Relaxed),
        }
    }
}
