//! Epoch and floor of garbage collection: what storage nodes stamp chunks with, and the oldest stamp
//! that a commit may rely on.
//!
//! A sweep takes only what was stamped before the floor and what no reference of a snapshot names. The
//! snapshot is taken after the commits of everything that was accepted under the older floor. So each
//! commit is in the snapshot, or its chunks carry stamps that the sweep passes over, or it is refused.

use bytes::Bytes;
use cairn_proto::pb;

use super::{Namespace, inodes::Inode};
use crate::{
    engine::EngineError,
    tables::{
        group::Group,
        keys::{self, Mark},
        source::Source,
    },
};

/// The epoch before any cycle.
const FIRST_EPOCH: u64 = 1;

/// Both numbers. They only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// What nodes stamp with, once they have heard of it.
    pub epoch: u64,
    /// Chunks that were stamped before may be gone.
    pub floor: u64,
}

impl Default for Stamps {
    fn default() -> Self {
        Self { epoch: FIRST_EPOCH, floor: 0 }
    }
}

impl Stamps {
    pub(super) fn load(group: &mut Group) -> Result<Self, EngineError> {
        let Self { epoch, floor } = Self::default();
        Ok(Self {
            epoch: read(group, Mark::GcEpoch, epoch)?,
            floor: read(group, Mark::GcFloor, floor)?,
        })
    }
}

/// The number at a mark.
fn read(group: &mut Group, mark: Mark, first: u64) -> Result<u64, EngineError> {
    match group.get(&keys::mark(mark))? {
        None => Ok(first),
        Some(value) => value.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| {
            EngineError::Damaged(format!("the mark {mark:?} has {} bytes", value.len()))
        }),
    }
}

fn write(group: &mut Group, mark: Mark, value: u64) {
    group.put(keys::mark(mark), Bytes::copy_from_slice(&value.to_be_bytes()));
}

impl Namespace {
    /// Bytes that files referred to when a cycle was last complete; 0: not known.
    pub fn collected(&mut self) -> u64 {
        read(&mut self.group, Mark::GcReferenced, 0).unwrap_or(0)
    }

    /// A cycle was complete: files referred to this many bytes, in the pending group.
    pub fn note_collected(&mut self, referenced: u64) {
        write(&mut self.group, Mark::GcReferenced, referenced);
    }

    /// Epoch and floor now.
    pub fn stamps(&self) -> Stamps {
        self.stamps
    }

    /// Raises epoch and floor to these, where they are lower, in the pending group. Nothing may be told
    /// of the epoch, or swept by the floor, before that is durable.
    pub fn raise_stamps(&mut self, to: Stamps) {
        if to.epoch > self.stamps.epoch {
            self.stamps.epoch = to.epoch;
            write(&mut self.group, Mark::GcEpoch, to.epoch);
        }
        if to.floor > self.stamps.floor {
            self.stamps.floor = to.floor;
            write(&mut self.group, Mark::GcFloor, to.floor);
        }
    }

    /// Whether chunks of which the oldest has this stamp may be referred to. Otherwise they have to be
    /// verified first.
    pub fn accepts_stamp(&self, gc_epoch: u64) -> bool {
        gc_epoch >= self.stamps.floor
    }

    /// The answer to a commit whose chunks may be gone.
    pub(super) fn verify_again(&self, inode: &Inode) -> pb::Committed {
        pb::Committed {
            attr: Some(inode.attr()),
            verify_again: self.stamps.floor,
            ..pb::Committed::default()
        }
    }
}
