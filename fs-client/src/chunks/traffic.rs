//! [`Traffic`]: what puts have brought to the nodes, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(super) struct Counters {
    sent: AtomicU64,
    present: AtomicU64,
    wire: AtomicU64,
}

/// Bytes of content of chunks that are durable by now, each chunk counted once whatever its number of copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Of chunks that at least one node lacked.
    pub sent: u64,
    /// Of chunks that every node had.
    pub present: u64,
    /// Bytes handed to the nodes, as stored: every copy counts.
    pub wire: u64,
}

impl Counters {
    /// A chunk of `len` bytes is durable; `sent` when some node had to be given it.
    pub(super) fn stored(&self, len: u32, sent: bool) {
        let counter = if sent { &self.sent } else { &self.present };
        counter.fetch_add(u64::from(len), Relaxed);
    }

    /// A copy of `len` bytes leaves for a node.
    pub(super) fn leaves(&self, len: u32) {
        self.wire.fetch_add(u64::from(len), Relaxed);
    }

    pub(super) fn read(&self) -> Traffic {
        Traffic {
            sent: self.sent.load(Relaxed),
            present: self.present.load(Relaxed),
            wire: self.wire.load(Relaxed),
        }
    }
}
