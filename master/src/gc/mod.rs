//! Garbage collection: chunks that nothing refers to are found by marking what is referred to, and go in
//! two steps, a quarantine and an erasure one cycle later.
//!
//! - [`cycle`]: one cycle, in the order that makes it safe: epoch, floor, snapshot, mark, sweep.
//! - [`mark`]: filters of everything that a snapshot refers to, kept backups of the metadata included.
//! - [`nodes`]: telling the nodes. [`limit`]: how much may go before a person has to agree.
//! - [`readiness`]: when no cycle may begin. [`automatic`]: cycles by themselves.
//!
//! Why no session holds a lease on what it uploads: nodes stamp each put and each touch with the newest
//! epoch they know; a commit names the least stamp of its chunks; one below the floor is refused, and the
//! client verifies its chunks again. The snapshot is taken after every commit that was accepted under the
//! older floor. So what a sweep takes (not in the snapshot, stamped before the floor) nobody can commit.
//!
//! One cycle at a time: `running` is held over it. `state` is a short lock, never across an await.

mod automatic;
mod cycle;
mod limit;
mod mark;
mod nodes;
mod readiness;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_proto::{handshake::Greeting, pb};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

pub(crate) use self::automatic::run;
use self::{limit::Expectations, readiness::Readiness};
use crate::{cluster::Cluster, namespace::Stamps, op_thread::OpQueue};

/// Most cycles of one request: what is stamped with the present epoch is quarantined by the second from
/// now and erased by the third; one more takes what the filters have missed.
const CYCLES: u32 = 4;

/// What people and metrics see.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// A cycle is under way.
    pub(crate) running: bool,
    /// The last cycle that has ended, dry runs included.
    pub(crate) last: Option<pb::CycleReport>,
    /// Since the start.
    pub(crate) cycles: u64,
    /// Cycles that failed, or did not sweep everything.
    pub(crate) failures: u64,
    /// Over all nodes.
    pub(crate) erased: pb::ChunkTally,
    /// Over all nodes.
    pub(crate) returned_bytes: u64,
    /// Epoch and floor as far as cycles know.
    pub(crate) stamps: Stamps,
}

/// The collector.
pub(crate) struct Collector {
    ops: OpQueue,
    cluster: Arc<Cluster>,
    greeting: Greeting,
    readiness: Readiness,
    running: AsyncMutex<Expectations>,
    state: Mutex<State>,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// Change nothing but epochs.
    pub(crate) dry_run: bool,
    /// Also when far more would go than is expected.
    pub(crate) force: bool,
}

/// Told each step; nobody may be listening any more.
pub(crate) type Listener = mpsc::Sender<pb::CollectProgress>;

impl Collector {
    /// Collects what the namespace behind `ops` does not refer to; greets the nodes with `greeting`.
    pub(crate) fn new(
        ops: OpQueue,
        cluster: Arc<Cluster>,
        greeting: Greeting,
        stamps: Stamps,
    ) -> Arc<Self> {
        Arc::new(Self {
            ops,
            cluster,
            greeting,
            readiness: Readiness::default(),
            running: AsyncMutex::new(Expectations::since(stamps.epoch + 1)),
            state: Mutex::new(State { stamps, ..State::default() }),
        })
    }

    /// What people and metrics see.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the status.
    pub(crate) fn status(&self) -> pb::GcStatus {
        let state = self.state().clone();
        pb::GcStatus {
            epoch: state.stamps.epoch,
            floor: state.stamps.floor,
            running: state.running,
            waiting_for: self.readiness.waiting_for(),
            last: state.last,
            cycles: state.cycles,
            chunks_erased: state.erased.chunks,
            bytes_erased: state.erased.bytes,
            bytes_returned: state.returned_bytes,
        }
    }

    /// Runs cycles until what is garbage now is erased, at most [`CYCLES`]; one in a dry run. Ends after
    /// a cycle that failed.
    pub(crate) async fn collect(&self, wish: Wish, listener: Option<&Listener>) {
        let mut expectations = self.running.lock().await;
        let most = if wish.dry_run { 1 } else { CYCLES };
        for cycle in 1..=most {
            self.state().running = true;
            let report = self.cycle(wish, &mut expectations, cycle, listener).await;
            let last =
                wish.dry_run || cycle == most || !report.failure.is_empty() || is_idle(&report);
            self.note(&report);
            let finished = Some(report);
            let step = String::new();
            tell(listener, pb::CollectProgress { cycle, step, finished, done: last }).await;
            if last {
                return;
            }
        }
    }

    fn note(&self, report: &pb::CycleReport) {
        let mut state = self.state();
        let erased = report.erased.unwrap_or_default();
        state.running = false;
        state.cycles += 1;
        state.failures += u64::from(!report.failure.is_empty());
        if !report.dry_run {
            state.erased.chunks += erased.chunks;
            state.erased.bytes += erased.bytes;
            state.returned_bytes += report.returned_bytes;
        }
        state.last = Some(report.clone());
    }
}

/// Whether nothing is left for another cycle.
fn is_idle(report: &pb::CycleReport) -> bool {
    let none = |tally: &Option<pb::ChunkTally>| tally.is_none_or(|tally| tally.chunks == 0);
    report.failure.is_empty()
        && report.nodes_left_out.is_empty()
        && none(&report.young)
        && none(&report.quarantined)
        && none(&report.waiting)
}

async fn tell(listener: Option<&Listener>, progress: pb::CollectProgress) {
    if let Some(listener) = listener {
        // A caller that has gone away does not want to know.
        let _ = listener.send(progress).await;
    }
}
