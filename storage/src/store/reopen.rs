//! Brings a disk back that was full: its index is closed and recovered again, as at a start, on the writer
//! thread, while the node goes on.
//!
//! 1. There is room again: nobody gets the core any more ([`VolumeState::close`]).
//! 2. Whoever held it is gone: it is dropped, and with it the engine and its threads.
//! 3. The engine's journal is closed: what its last owner had left to write has been written.
//! 4. [`recover`]: every chunk that was acknowledged lies in the segments, durable, and is found again.
//!
//! The rule of a restarted node holds: touches and quarantines may have been lost, so everything counts
//! as touched in the newest epoch that stamps were given for here.

use std::{fs, io, mem, path::Path, sync::Arc, time::Duration};

use cairn_proto::ChunkId;

use super::{
    index::IndexError,
    recovery::{Recovered, RecoveryError, recover},
    volume_state::{Core, VolumeState},
};
use crate::segment::{
    Location,
    set::SegmentError,
    writer::{SegmentWriter, is_full},
};

/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(250);
/// After one that did not go well.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks whether others are done with the index.
const LEAVING: Duration = Duration::from_millis(10);

/// How far it is.
#[derive(Default)]
enum Step {
    /// The index is open.
    #[default]
    Open,
    /// It is open still: the others who use it finish what they do.
    Leaving(Arc<Core>),
    /// It is closed, or will be at once.
    Closed,
}

/// See the module. Owned by the writer thread.
pub(super) struct Reopening {
    state: Arc<VolumeState>,
    step: Step,
    /// Of the core that was closed last.
    number: u64,
    /// What it knew to be damaged.
    damaged: Vec<(ChunkId, Location)>,
    /// Time until the next look.
    pub(super) patience: Duration,
}

impl Reopening {
    pub(super) fn new(state: Arc<VolumeState>) -> Self {
        let (step, number, damaged) = (Step::Open, 0, Vec::new());
        Self { state, step, number, damaged, patience: LOOK }
    }

    /// Looks after the disk; true when it works again, with another `writer`.
    pub(super) fn look(&mut self, writer: &mut SegmentWriter) -> bool {
        self.patience = LOOK;
        if self.state.has_failed() {
            // Read as far as it goes.
            if let Step::Leaving(core) = mem::take(&mut self.step) {
                self.state.open(core);
            }
            return false;
        }
        if !self.state.is_full() {
            self.check();
            return false;
        }
        if !self.state.has_room_again() {
            return false;
        }
        self.step = match mem::take(&mut self.step) {
            Step::Open => self.close(),
            step => step,
        };
        if let Step::Leaving(core) = mem::take(&mut self.step) {
            match Arc::try_unwrap(core) {
                Ok(core) => drop(core),
                Err(core) => {
                    self.step = Step::Leaving(core);
                    self.patience = LEAVING;
                    return false;
                }
            }
        }
        self.step = Step::Closed;
        if journal_is_open(&self.state.index_dir) {
            self.patience = LEAVING;
            return false;
        }
        match self.open(writer) {
            Ok(()) => {
                self.step = Step::Open;
                true
            }
            Err(e) if passes(&e) => {
                self.patience = RETRY;
                tracing::warn!(disk = %self.state.name, "cannot use the index of this disk again yet: {e}");
                false
            }
            Err(e) => {
                self.state.fail("bring back", &e);
                false
            }
        }
    }

    /// The engine's background work may have met a full disk while nobody wrote.
    fn check(&self) {
        // How much room there is now is what explains a failure.
        let space = self.state.space();
        let Ok(core) = self.state.core() else { return };
        if let (Ok(_), Err(e)) = (space, core.index.check()) {
            self.state.index_failed("use the index of", &e);
        }
    }

    fn close(&mut self) -> Step {
        let Ok(core) = self.state.core() else { return Step::Closed };
        self.number = core.number;
        let place = |id: ChunkId| Some((id, core.index.get(&id).ok().flatten()?.at));
        self.damaged = core.index.damaged().ids().into_iter().filter_map(place).collect();
        self.state.close();
        Step::Leaving(core)
    }

    fn open(&self, writer: &mut SegmentWriter) -> Result<(), RecoveryError> {
        let state = &self.state;
        // What could not be synced may look right still.
        if writer.has_given_up() {
            writer.seal()?;
        }
        let Recovered { index, writer: fresh } =
            recover(&state.set, &state.index_dir, state.index_cache, state.shape, &state.counting)?;
        for (id, at) in &self.damaged {
            index.note_damaged(id, *at)?;
        }
        let floor = state.learned();
        if index.epoch()? < floor {
            index.store_epoch(floor)?;
        }
        *writer = fresh;
        state.tell(writer);
        state.open(Arc::new(Core { index, floor, number: self.number + 1 }));
        state.works_again();
        Ok(())
    }
}

/// Whether it may go well the next time.
fn passes(error: &RecoveryError) -> bool {
    match error {
        RecoveryError::Index(IndexError::Full(_) | IndexError::Poisoned | IndexError::Locked) => {
            true
        }
        RecoveryError::Index(IndexError::Io(_) | IndexError::Damaged(_)) => false,
        RecoveryError::Io(e) | RecoveryError::Segment(_, SegmentError::Io(e)) => is_full(e),
        RecoveryError::Segment(..) => false,
    }
}

/// Whether a journal in `dir` is open in this process. The engine's last thread may close it, and write
/// what is left, a moment after the engine is gone and its lock is free.
fn journal_is_open(dir: &Path) -> bool {
    let open = || -> io::Result<bool> {
        let dir = fs::canonicalize(dir)?;
        for descriptor in fs::read_dir("/proc/self/fd")? {
            // One that was closed meanwhile leads nowhere.
            let Ok(path) = fs::read_link(descriptor?.path()) else { continue };
            if path.starts_with(&dir) && path.extension().is_some_and(|e| e == "jnl") {
                return Ok(true);
            }
        }
        Ok(false)
    };
    // Where that cannot be asked a race of microseconds remains.
    open().unwrap_or(false)
}
