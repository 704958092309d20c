//! [`Budget`]: a bound in bytes, handed out in KiB.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT: usize = 1024;

/// See the head of this file.
pub(super) struct Budget {
    left: Arc<Semaphore>,
    units: usize,
}

impl Budget {
    /// Of `bytes` bytes, at least one unit.
    pub(super) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { left: Arc::new(Semaphore::new(units)), units }
    }

    /// Waits for room for `bytes`, first come, first served. What is larger than the whole budget gets
    /// all of it.
    pub(super) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let taken = self.left.clone().acquire_many_owned(self.share(bytes)).await;
        taken.expect("the semaphore is never closed")
    }

    /// Room for `bytes` if it is there.
    pub(super) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.left.clone().try_acquire_many_owned(self.share(bytes)).ok()
    }

    /// Bytes of it that are taken now.
    pub(super) fn taken(&self) -> usize {
        self.units.saturating_sub(self.left.available_permits()) * UNIT
    }

    /// All of it in bytes.
    pub(super) fn total(&self) -> usize {
        self.units * UNIT
    }

    fn share(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).clamp(1, self.units);
        u32::try_from(units).expect("bounded at construction")
    }
}
