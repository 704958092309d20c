//! Taking bytes in. One copy, from the caller's buffer into the chunk's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::FsError;

use super::{File, Origin, dirty::Permit, state::State};
use crate::clock;

/// Bytes taken in at once; longer writes are taken in piece by piece.
const PIECE: usize = 1 << 20;
/// A file whose chunks that are dirty in parts take three quarters of the budget is flushed, and
/// one that has so many of them, in bytes: each has to be read, and written from end to end.
const PARTIAL_BYTES: usize = 512 << 20;

impl File {
    /// Takes `data` in if nothing has to be waited for; false: nothing was done.
    pub fn write_now(self: &Arc<Self>, origin: Origin, offset: u64, data: &[u8]) -> bool {
        if data.len() > PIECE {
            return false;
        }
        let mut state = self.lock();
        if state.append_from.is_some() {
            return false;
        }
        let lacks = state.dirty.lacks(offset, data.len() as u64);
        let Some(permit) = self.context.try_take(lacks) else { return false };
        self.take_in(&mut state, origin, offset, data, permit);
        true
    }

    /// Takes all of `data` in; waits while the byte budget is used up.
    ///
    /// # Errors
    /// `TimedOut` when it stays used up; a write-back error of what had to be written back before.
    pub async fn write(
        self: &Arc<Self>,
        origin: Origin,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        let mut at = offset;
        for piece in data.chunks(PIECE) {
            self.write_piece(origin, at, piece).await?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    async fn write_piece(
        self: &Arc<Self>,
        origin: Origin,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        let mut permit = self.context.try_take(0).ok_or(FsError::Io)?;
        loop {
            let lacking = {
                let mut state = self.lock();
                if state.append_from.is_some() {
                    None
                } else {
                    let lacks = state.dirty.lacks(offset, data.len() as u64);
                    match lacks.saturating_sub(permit.num_permits()) {
                        0 => {
                            self.take_in(&mut state, origin, offset, data, permit);
                            return Ok(());
                        }
                        lacking => Some(lacking),
                    }
                }
            };
            match lacking {
                // Appended bytes have no fixed place yet: they go first.
                None => self.flush().await?,
                Some(lacking) => {
                    // Holding a part of the budget while waiting for more of it could deadlock.
                    let all = permit.num_permits() + lacking;
                    drop(permit);
                    permit = self.context.take(all).await?;
                }
            }
        }
    }

    /// Enters `data`; chunks that are full take off.
    fn take_in(
        self: &Arc<Self>,
        state: &mut State,
        origin: Origin,
        offset: u64,
        data: &[u8],
        permit: Permit,
    ) {
        if data.is_empty() {
            return;
        }
        let full = self.enter(state, origin, offset, data, permit);
        let take_off = |index| Some((state.take_off(index)?, index));
        let gone: Vec<_> = full.into_iter().filter_map(take_off).collect();
        self.spawn_uploads(&gone);
        if state.dirty.cost() > self.context.budget_total() / 4 * 3
            || state.dirty.len() > PARTIAL_BYTES / (self.context.chunk_size as usize).max(1)
        {
            self.spawn_flush(state);
        }
    }

    /// Enters `data` into the dirty map; answers which chunks are full now.
    pub(super) fn enter(
        self: &Arc<Self>,
        state: &mut State,
        origin: Origin,
        offset: u64,
        data: &[u8],
        mut permit: Permit,
    ) -> Vec<u64> {
        if !state.has_uncommitted() {
            if self.fenced_off(state) {
                // Nothing is left of what was written under the lock that is lost.
                state.fence = None;
            }
            state.dirty_since = Some(Instant::now());
            self.context.register_dirty(self);
        }
        let kill = state.origin.kill_suid_sgid || origin.kill_suid_sgid;
        state.origin = Origin { kill_suid_sgid: kill, ..origin };
        state.local_end = state.local_end.max(offset + data.len() as u64);
        state.local_mtime = clock::now();
        state.dirty.write(offset, data, |cost| permit.split(cost))
    }

    /// How long the oldest uncommitted bytes have waited.
    pub fn dirty_for(&self) -> Option<Duration> {
        self.lock().dirty_since.map(|since| since.elapsed())
    }
}
