//! Freeing, in bounded steps, what deletions and truncations left behind: orphans that nobody held
//! after a start or whose release could not be stored, the lists and attributes of inodes that are gone, segments cut off files.

use super::Namespace;
use crate::{
    engine::EngineError,
    tables::{
        keys::{self, Table},
        rows::{ListRow, ReclaimRow},
        source::{self, Source},
    },
};

/// Rows looked at in one step.
const STEP: usize = 128;
/// List rows freed in one step, 64 segments each.
const LISTS: usize = 4;

/// Where each kind of work goes on; `None`: there is none. Positions save passing over the many rows
/// that are already deleted.
pub(super) struct Progress {
    /// The next orphan to be looked at, after a start or after a group was undone.
    orphans: Option<u64>,
    /// The smallest inode that may have a `dead` row.
    dead: Option<u64>,
    /// The smallest number that a `reclaim` row may have.
    cut: Option<u64>,
}

impl Progress {
    /// At a start anything may be left.
    pub(super) const fn at_start() -> Self {
        Self { orphans: None, dead: Some(0), cut: Some(0) }
    }

    /// A group was undone: everything may be left, also orphans whose last holder is gone.
    pub(super) fn look_again(&mut self, settled: bool) {
        *self = Self { orphans: settled.then_some(0), ..Self::at_start() };
    }

    pub(super) fn wake_dead(&mut self, ino: u64) {
        self.dead = Some(self.dead.map_or(ino, |from| from.min(ino)));
    }

    pub(super) fn wake_cut(&mut self, number: u64) {
        self.cut = Some(self.cut.map_or(number, |from| from.min(number)));
    }

    pub(super) const fn is_pending(&self) -> bool {
        self.orphans.is_some() || self.dead.is_some() || self.cut.is_some()
    }
}

impl Namespace {
    /// To be called when every session known at the start has resumed or expired (at once when there
    /// was none): from now on an inode that no session holds open is not open. Orphans are freed by
    /// [`Self::reclaim_step`].
    pub fn settle(&mut self) {
        if !self.settled {
            self.settled = true;
            self.reclaim.orphans = Some(0);
        }
    }

    /// Whether every session known at the start has resumed or expired.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Frees a bounded amount of what deletions and truncations left behind, in the pending group.
    /// True when there is more to do: commit and call again when idle.
    pub fn reclaim_step(&mut self) -> Result<bool, EngineError> {
        let counters = self.counters;
        self.group.begin();
        let result = match self.reclaim {
            Progress { orphans: Some(from), .. } => self.step_orphans(from),
            Progress { dead: Some(from), .. } => self.step_dead(from),
            Progress { cut: Some(from), .. } => self.step_cut(from),
            Progress { orphans: None, dead: None, cut: None } => Ok(()),
        };
        if result.is_err() {
            self.group.undo();
            self.counters = counters;
        }
        result.map(|()| self.reclaim.is_pending())
    }

    fn step_orphans(&mut self, from: u64) -> Result<(), EngineError> {
        let rows = self.group.page(&Table::Orphans.starting(from), STEP)?;
        for (key, _) in &rows {
            self.free_if_orphan(source::owner(key)?)?;
        }
        self.reclaim.orphans = match rows.last() {
            Some((last, _)) => source::owner(last)?.checked_add(1),
            None => None,
        };
        Ok(())
    }

    fn step_dead(&mut self, from: u64) -> Result<(), EngineError> {
        let first = self.group.page(&Table::Dead.starting(from), 1)?.pop();
        let Some((dead, _)) = first else {
            self.reclaim.dead = None;
            return Ok(());
        };
        let ino = source::owner(&dead)?;
        self.reclaim.dead = Some(ino);
        if self.group.get(&keys::inode(ino))?.is_some() {
            // Damage: what exists is not freed, whatever a row says.
            self.group.delete(dead);
            return Ok(());
        }
        let lists = self.group.page(&Table::Lists.of(ino), LISTS)?;
        for (key, value) in &lists {
            let row: ListRow = source::decode(key, value.clone())?;
            for entry in row.entries {
                self.release_segment(entry.segment)?;
            }
            self.group.delete(key.clone());
        }
        if lists.len() == LISTS {
            return Ok(());
        }
        let xattrs = self.group.page(&Table::Xattrs.of(ino), STEP)?;
        for (key, _) in &xattrs {
            self.group.delete(key.clone());
        }
        if xattrs.len() < STEP {
            self.group.delete(dead);
        }
        Ok(())
    }

    fn step_cut(&mut self, from: u64) -> Result<(), EngineError> {
        let rows = self.group.page(&Table::Reclaims.starting(from), LISTS)?;
        for (key, value) in &rows {
            let row: ReclaimRow = source::decode(key, value.clone())?;
            for segment in row.segments {
                self.release_segment(segment)?;
            }
            self.group.delete(key.clone());
        }
        self.reclaim.cut = match rows.last() {
            Some((last, _)) => source::owner(last)?.checked_add(1),
            None => None,
        };
        Ok(())
    }
}
