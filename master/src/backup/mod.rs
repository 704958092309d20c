//! The automatic backup of the metadata into the storage nodes.
//!
//! - [`cutter`]: the rows of a snapshot as chunks that are the same as last time where nothing changed.
//! - [`upload`]: chunks onto the nodes that the map names for them, asking before sending.
//! - [`root`]: the few hundred bytes from which everything else is found.
//! - [`schedule`]: when; the steps in their order.
//!
//! Order of the steps of one backup: chunks durable on their nodes, their ids in rows of the master (so that
//! they are no garbage), the last row, the root on every node that is up, then older ones are forgotten.
//! A crash between any two leaves the older backups whole. The op thread does nothing but take the
//! snapshot and write those rows; memory is bounded by some batches of chunks and 32 bytes for each chunk.

pub(crate) mod cutter;
pub(crate) mod root;
pub(crate) mod schedule;
mod upload;

use std::sync::{Mutex, PoisonError};

use cairn_proto::pb;

/// How backups fare, for status and metrics.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<pb::BackupStatus>);

impl Progress {
    /// The numbers of now.
    pub(crate) fn status(&self) -> pb::BackupStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut pb::BackupStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
