//! Committing: chunks that have landed become part of the file, in the order in which they took off.
//!
//! One commit of a file is under way at a time; uploads go on meanwhile. A commit names, for each
//! chunk, the reference that it replaces. If that is no longer there the master changes nothing and
//! says what is: those chunks are made anew over it, and everything is tried again until the deadline.
//!
//! A commit also names the least epoch of garbage collection that its chunks were stamped with. When
//! that is too old the master changes nothing either: the nodes are asked for those chunks again, which
//! stamps them, or given them again. Their bytes are kept until the commit is answered.

use std::{sync::Arc, time::Instant};

use cairn_proto::{
    Attr, ChunkRef, FsError, Ino, Timestamp, manifest, pb,
    pb::{commit::Size, op::Kind},
};

use super::{
    File,
    flight::{Flight, Landed},
    state::State,
};
use crate::{
    rpc::{Caller, Session},
    vfs::answers,
};

/// Chunks in one commit.
const BATCH: usize = 256;
/// A session that is lost under a commit this often in a row is no session.
const STALE_TRIES: u32 = 5;

/// A chunk's change, ready for the wire.
pub(super) struct Change {
    pub index: u64,
    pub landed: Landed,
}

impl Change {
    /// The reference that the file has afterwards.
    pub(super) fn chunk(&self) -> Option<ChunkRef> {
        self.landed.stored.map(|stored| stored.chunk)
    }
}

/// What the master made of a commit.
pub(super) struct Outcome {
    pub applied: bool,
    pub attr: Attr,
    pub conflicts: Vec<(u64, Option<ChunkRef>)>,
    /// Not 0: chunks with older stamps may have been collected.
    pub verify_again: u64,
}

impl File {
    /// Starts to commit when there is a full batch, or when somebody waits for what has landed.
    pub(super) fn commit_if_ready(self: &Arc<Self>, state: &mut State) {
        if state.committing || !self.is_ready(state) {
            return;
        }
        state.committing = true;
        let file = Arc::clone(self);
        self.context.runtime.spawn(async move { file.commit_all_ready().await });
    }

    fn is_ready(&self, state: &State) -> bool {
        let batch = BATCH.min(self.context.chunks_within_budget() / 4).max(1);
        let landed = state.flights.landed_prefix(batch);
        landed.len() == batch || landed.first().is_some_and(|first| *first < state.flush_below)
    }

    async fn commit_all_ready(self: Arc<Self>) {
        let mut stale = 0;
        loop {
            let (seqs, op, durable) = {
                let mut state = self.lock();
                if !self.is_ready(&state) {
                    state.committing = false;
                    return;
                }
                self.batch(&mut state)
            };
            let (origin, fence) = {
                let state = self.lock();
                (state.origin, state.fence)
            };
            let kill = op.kill_suid_sgid;
            let outcome = ask(self.context.session(), fence, origin.caller, op).await;
            let mut state = self.lock();
            let applied = outcome.as_ref().is_ok_and(|o| o.applied);
            state.killing = false;
            state.origin.kill_suid_sgid |= kill && !applied;
            match outcome {
                Err(FsError::Stale) if self.fenced_off(&state) => {
                    self.give_up(&mut state, FsError::Io);
                }
                // The session was lost and a new one made. The commit may have happened: then its
                // second try finds a conflict with itself, and merging changes nothing.
                Err(FsError::Stale) if stale < STALE_TRIES => stale += 1,
                // An upload has failed meanwhile and dropped what this was about.
                Err(_) if seqs.iter().all(|seq| state.flights.get_mut(*seq).is_none()) => {}
                Err(error) => self.give_up(&mut state, error),
                Ok(outcome) if outcome.verify_again != 0 => {
                    self.verify_again(&mut state, &seqs, outcome.verify_again);
                }
                Ok(outcome) if outcome.applied => {
                    stale = 0;
                    state.durable.applied(durable);
                    self.committed(&mut state, &seqs, &outcome.attr);
                }
                Ok(outcome) => self.conflicted(&mut state, &seqs, outcome),
            }
        }
    }

    /// What is uncommitted was written under a lock that is lost.
    pub(super) fn fenced_off(&self, state: &State) -> bool {
        state.fence.is_some_and(|fence| fence != self.context.session().session_generation())
    }

    /// What is committed next: the flights, the operation, and its number when it is to be power-safe,
    /// otherwise 0.
    fn batch(&self, state: &mut State) -> (Vec<u64>, pb::Commit, u64) {
        let seqs = state.flights.landed_prefix(BATCH);
        let mut changes = Vec::with_capacity(seqs.len());
        let mut end = 0;
        for &seq in &seqs {
            let Some(flight) = state.flights.get_mut(seq) else { continue };
            let Some(landed) = flight.landed else { continue };
            let (index, dirty_end) = (flight.index, flight.ours.end());
            changes.push(Change { index, landed });
            end = end.max(state.end_in_file(index, dirty_end));
        }
        let kill = std::mem::take(&mut state.origin.kill_suid_sgid);
        state.killing = kill;
        let mut op = commit(self.ino, &changes, Size::GrowTo(end), state.local_mtime, kill);
        // The last of those that somebody waits for, and no other.
        let below = state.durable_below;
        op.durable = seqs.first().is_some_and(|first| *first < below)
            && seqs.last().is_some_and(|last| last + 1 >= below);
        let durable = if op.durable { state.durable.send() } else { 0 };
        (seqs, op, durable)
    }

    fn committed(self: &Arc<Self>, state: &mut State, seqs: &[u64], attr: &Attr) {
        let manifests = &self.context.manifests;
        state.absorb_own(attr, manifests);
        state.verifying_since = None;
        state.conflicting_since = None;
        for &seq in seqs {
            let Some(Flight { index, landed, .. }) = state.flights.remove(seq) else { continue };
            if let Some(landed) = landed {
                let chunk = Change { index, landed }.chunk();
                manifests.set(self.ino, state.manifest_epoch, index, chunk);
            }
            // Written again from end to end while the older version was in flight.
            if state.dirty.is_full(index)
                && let Some(seq) = state.take_off(index)
            {
                self.spawn_upload(seq, index);
            }
        }
        if state.settle() {
            self.context.unregister_dirty(self.ino, state);
        }
        self.progress.notify_waiters();
    }

    /// The chunks that were stamped before `floor` are looked for again.
    fn verify_again(self: &Arc<Self>, state: &mut State, seqs: &[u64], floor: u64) {
        let since = *state.verifying_since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.context.deadline {
            self.give_up(state, FsError::TimedOut);
            return;
        }
        tracing::debug!(ino = %self.ino, floor, "chunks waited too long for their commit");
        let mut none = true;
        for &seq in seqs {
            let Some(flight) = state.flights.get_mut(seq) else { continue };
            let stored = flight.landed.and_then(|landed| landed.stored);
            if stored.is_some_and(|stored| stored.gc_epoch < floor) {
                flight.landed = None;
                flight.tries += 1;
                let index = flight.index;
                self.spawn_upload(seq, index);
                none = false;
            }
        }
        if none && seqs.iter().any(|seq| state.flights.get_mut(*seq).is_some()) {
            self.give_up(state, FsError::Protocol);
        }
    }

    fn conflicted(self: &Arc<Self>, state: &mut State, seqs: &[u64], outcome: Outcome) {
        let since = *state.conflicting_since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.context.deadline || outcome.conflicts.is_empty() {
            self.give_up(state, FsError::Io);
            return;
        }
        tracing::debug!(ino = %self.ino, chunks = outcome.conflicts.len(), "another client writes the same file");
        state.replaced(&outcome.attr, &self.context.manifests);
        // The kernel's pages lack what the other client wrote.
        state.pages_version = 0;
        for (index, _) in &outcome.conflicts {
            let Some(seq) = seqs
                .iter()
                .find(|seq| state.flights.get_mut(**seq).is_some_and(|f| f.index == *index))
            else {
                continue;
            };
            if let Some(flight) = state.flights.get_mut(*seq) {
                flight.landed = None;
                self.spawn_upload(*seq, *index);
            }
        }
    }
}

/// The operation that makes `changes`.
pub(super) fn commit(
    ino: Ino,
    changes: &[Change],
    size: Size,
    mtime: Timestamp,
    kill_suid_sgid: bool,
) -> pb::Commit {
    let stored = || changes.iter().filter_map(|change| change.landed.stored);
    let mut degraded: Vec<u32> = stored().filter_map(|s| s.degraded.map(|group| group.0)).collect();
    degraded.sort_unstable();
    degraded.dedup();
    pb::Commit {
        ino: ino.get(),
        map_epoch: stored().map(|stored| stored.map_epoch).min().unwrap_or(0),
        changes: changes
            .iter()
            .map(|c| pb::ChunkChange {
                index: c.index,
                expected: Some(manifest::to_wire(c.landed.expected)),
                new: Some(manifest::to_wire(c.chunk())),
            })
            .collect(),
        size: Some(size),
        mtime: Some(mtime.into()),
        durable: false,
        degraded_groups: degraded,
        kill_suid_sgid,
        gc_epoch: stored().map(|stored| stored.gc_epoch).min().unwrap_or(0),
    }
}

/// Sends a commit.
pub(super) async fn ask(
    session: &Session,
    fence: Option<u64>,
    caller: Caller,
    op: pb::Commit,
) -> Result<Outcome, FsError> {
    let answer = session.call_fenced(fence, caller, Kind::Commit(op)).await?;
    let committed = answers::committed(answer.kind)?;
    let conflicts = committed
        .conflicts
        .iter()
        .map(|c| {
            let current = c.current.as_ref().map(manifest::from_wire).transpose();
            Ok((c.index, current.map_err(answers::nonsense)?.flatten()))
        })
        .collect::<Result<_, FsError>>()?;
    Ok(Outcome {
        applied: committed.applied,
        attr: answers::attr(committed.attr)?,
        conflicts,
        verify_again: committed.verify_again,
    })
}
