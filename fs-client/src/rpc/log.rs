//! [`OpLog`]: which operations wait, are under way, are answered, are durable. Pure: no clock, no task.
//!
//! An operation moves from `queue` (not sent; may still be dropped when its caller goes away) to `sent`,
//! where it gets its `seq`, and leaves when it can no longer be needed: a read when it is answered, a
//! mutation when it is answered *and* durable on the master (or failed, and so changed nothing).
//!
//! Invariants:
//! - `seq` grows by one in the order of sending; `sent[i]` has seq `base + i`.
//! - At most `window` frames of a connection are unanswered, and no new `seq` is `window` or more above
//!   the lowest unanswered mutation. Reads have no stored replies, so a slow one holds nothing up.
//! - After a lost connection what is unanswered is sent again, in order. A new incarnation of the master
//!   also gets what was answered but not known to be durable; `acked_below` steps back for those, so
//!   that the master executes what it lost instead of taking it for settled.
//! - `open` is the set of inodes that the client holds open, as the master must believe it.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
};

use cairn_proto::{
    FsError,
    pb::{self, op::Kind, reply},
    status,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{debug, warn};

use super::session::Answered;

/// Most entries behind a read that is never answered.
const SPAN: usize = 16_384;

/// What a caller gets.
pub(crate) type Outcome = Result<Answered, FsError>;

/// An operation on its way into the log.
pub(crate) struct Queued {
    /// What is to be done.
    pub(crate) op: pb::Op,
    /// Who waits; absent for what is only posted.
    pub(crate) reply: Option<oneshot::Sender<Outcome>>,
    /// Room in the log, given back when the operation leaves it.
    pub(crate) room: Option<OwnedSemaphorePermit>,
    /// Not to be sent in another session than the one that it was given for.
    pub(crate) fenced: bool,
}

enum Phase {
    /// Unanswered.
    Waiting(Option<oneshot::Sender<Outcome>>),
    /// Answered with success, not known to be durable. Mutations only.
    Answered,
    /// As `Answered`, but to be executed again by a new incarnation of the master.
    Replaying,
}

struct Sent {
    op: pb::Op,
    phase: Phase,
    room: Option<OwnedSemaphorePermit>,
}

impl Sent {
    fn waits(&self) -> bool {
        !matches!(self.phase, Phase::Answered)
    }
}

/// See the head of this file.
pub(crate) struct OpLog {
    queue: VecDeque<Queued>,
    sent: VecDeque<Option<Sent>>,
    base: u64,
    /// The next seq to be looked at for sending; behind `next_seq` only after a reconnection.
    cursor: u64,
    acked_below: u64,
    durable_below: u64,
    /// Frames of this connection without an answer.
    outstanding: u64,
    window: u64,
    open: HashSet<u64>,
}

/// What a lost session took with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Mutations that were under way: their callers got `Stale`.
    pub(crate) failed: usize,
    /// Mutations that had been answered and were not known to be durable.
    pub(crate) unconfirmed: usize,
}

impl OpLog {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            base: 1,
            cursor: 1,
            acked_below: 1,
            durable_below: 0,
            outstanding: 0,
            window: 1,
            open: HashSet::new(),
        }
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.base + self.sent.len() as u64
    }

    /// Every stored reply with a smaller seq has arrived (from this incarnation, if it executes anew).
    pub(crate) fn acked_below(&self) -> u64 {
        self.acked_below
    }

    pub(crate) fn open_inodes(&self) -> Vec<u64> {
        self.open.iter().copied().collect()
    }

    /// Whether something waits to be sent (the window may still forbid it).
    pub(crate) fn has_unsent(&self) -> bool {
        !self.queue.is_empty() || self.cursor < self.next_seq()
    }

    /// Nothing waits and nothing is unanswered.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.sent.iter().flatten().any(Sent::waits)
    }

    /// Nothing that was answered is unknown to be durable.
    pub(crate) fn is_durable(&self) -> bool {
        let unsure = |s: &Sent| matches!(s.phase, Phase::Answered | Phase::Replaying);
        !self.sent.iter().flatten().any(unsure)
    }

    /// How many operations wait or are unanswered.
    pub(crate) fn unanswered(&self) -> usize {
        self.queue.len() + self.sent.iter().flatten().filter(|sent| sent.waits()).count()
    }

    /// Appends an operation. Consecutive releases become one.
    pub(crate) fn push(&mut self, queued: Queued) {
        if let Some(Kind::Release(release)) = &queued.op.kind {
            for ino in &release.inodes {
                self.open.remove(ino);
            }
            if queued.reply.is_none()
                && let Some(Queued { op: last, reply: None, .. }) = self.queue.back_mut()
                && let Some(Kind::Release(last)) = &mut last.kind
            {
                last.inodes.extend_from_slice(&release.inodes);
                return;
            }
        }
        self.queue.push_back(queued);
    }

    /// The next operation to be sent, if there is one and the window has room.
    pub(crate) fn next(&mut self) -> Option<(u64, pb::Op)> {
        if self.outstanding >= self.window {
            return None;
        }
        while self.cursor < self.next_seq() {
            let seq = self.cursor.max(self.base);
            self.cursor = seq + 1;
            let Some(Some(sent)) = self.sent.get(self.index(seq)) else { continue };
            match sent.phase {
                Phase::Waiting(_) | Phase::Replaying => {
                    self.outstanding += 1;
                    return Some((seq, sent.op.clone()));
                }
                Phase::Answered => {}
            }
        }
        if self.next_seq() - self.acked_below >= self.window || self.sent.len() >= SPAN {
            return None;
        }
        let queued = loop {
            let queued = self.queue.pop_front()?;
            if !queued.reply.as_ref().is_some_and(oneshot::Sender::is_closed) {
                break queued;
            }
        };
        let seq = self.next_seq();
        let op = queued.op.clone();
        let phase = Phase::Waiting(queued.reply);
        self.sent.push_back(Some(Sent { op: queued.op, phase, room: queued.room }));
        self.cursor = seq + 1;
        self.outstanding += 1;
        Some((seq, op))
    }

    /// Takes the master's reply to `seq`. A reply that nobody waits for is ignored.
    pub(crate) fn answer(&mut self, seq: u64, reply: pb::Reply) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if seq < self.base || seq >= self.next_seq() {
            return;
        }
        let index = self.index(seq);
        let Some(mut sent) = self.sent[index].take() else { return };
        let outcome = outcome(reply);
        let changed = match std::mem::replace(&mut sent.phase, Phase::Answered) {
            Phase::Waiting(caller) => {
                let opened = opened_inode(&sent.op, &outcome);
                let changed = note_result(&mut sent.op, &outcome);
                if let Some(caller) = caller {
                    self.deliver(caller, opened, outcome);
                }
                changed
            }
            Phase::Replaying => {
                compare_replay(seq, &sent.op, &outcome);
                true
            }
            Phase::Answered => true,
        };
        if changed && seq >= self.durable_below {
            self.sent[index] = Some(sent);
        }
        self.settle();
    }

    /// The master would keep every operation with a smaller seq even if it lost power now.
    pub(crate) fn durable(&mut self, below: u64) {
        let below = below.min(self.next_seq());
        for seq in self.durable_below.max(self.base)..below {
            let index = self.index(seq);
            if matches!(
                self.sent[index],
                Some(Sent { phase: Phase::Answered | Phase::Replaying, .. })
            ) {
                self.sent[index] = None;
            }
        }
        self.durable_below = self.durable_below.max(below);
        self.settle();
    }

    /// A connection is there and the master knows the session. Decides what is sent again.
    pub(crate) fn resumed(&mut self, window: u32, new_incarnation: bool) {
        self.window = u64::from(window.max(1));
        self.outstanding = 0;
        let open = &self.open;
        for slot in &mut self.sent {
            let Some(sent) = slot else { continue };
            match &sent.phase {
                Phase::Answered if new_incarnation => sent.phase = Phase::Replaying,
                Phase::Answered | Phase::Replaying => {}
                Phase::Waiting(caller) => {
                    let gone = caller.as_ref().is_some_and(oneshot::Sender::is_closed);
                    if gone && !is_mutation(&sent.op) {
                        *slot = None;
                    } else {
                        keep_open(&mut sent.op, open);
                    }
                }
            }
        }
        self.cursor = self.base;
        self.acked_below = self.base;
        self.settle();
    }

    /// A connection is there, but the session is a new one: seqs begin anew, mutations that were
    /// under way, and what was meant for the old session only, have failed, everything else is sent, after the inodes held open were opened again.
    pub(crate) fn replaced(&mut self, window: u32) -> Lost {
        let mut lost = Lost::default();
        let mut queue: VecDeque<Queued> = self.open.iter().map(|ino| reopen(*ino)).collect();
        for mut sent in std::mem::take(&mut self.sent).into_iter().flatten() {
            match sent.phase {
                Phase::Answered | Phase::Replaying => lost.unconfirmed += 1,
                Phase::Waiting(caller) if is_mutation(&sent.op) => {
                    lost.failed += 1;
                    if let Some(caller) = caller {
                        let _ = caller.send(Err(FsError::Stale));
                    }
                }
                Phase::Waiting(reply) => {
                    keep_open(&mut sent.op, &self.open);
                    queue.push_back(Queued { op: sent.op, reply, room: sent.room, fenced: false });
                }
            }
        }
        for queued in self.queue.drain(..) {
            match queued {
                Queued { fenced: true, reply, .. } => {
                    lost.failed += 1;
                    if let Some(caller) = reply {
                        let _ = caller.send(Err(FsError::Stale));
                    }
                }
                other => queue.push_back(other),
            }
        }
        let open = std::mem::take(&mut self.open);
        *self = Self { queue, open, window: u64::from(window.max(1)), ..Self::new() };
        lost
    }

    /// Answers `Stale` to everybody who still waits.
    pub(crate) fn abandon(&mut self) {
        let queued = self.queue.drain(..).filter_map(|q| q.reply);
        let sent = self.sent.drain(..).flatten().filter_map(|s| match s.phase {
            Phase::Waiting(caller) => caller,
            Phase::Answered | Phase::Replaying => None,
        });
        for caller in queued.chain(sent) {
            let _ = caller.send(Err(FsError::Stale));
        }
    }

    fn index(&self, seq: u64) -> usize {
        usize::try_from(seq - self.base).expect("the log is bounded by its room")
    }

    /// Hands over an answer. An inode that nobody will close, because its caller has gone, is
    /// released, unless it is held for another reason.
    fn deliver(&mut self, caller: oneshot::Sender<Outcome>, opened: Option<u64>, outcome: Outcome) {
        let taken = caller.send(outcome).is_ok();
        let Some(ino) = opened else { return };
        if taken {
            self.open.insert(ino);
        } else if !self.open.contains(&ino) && !self.is_opening(ino) {
            let kind = Kind::Release(pb::Release { inodes: vec![ino] });
            self.push(Queued {
                op: pb::Op { caller: None, kind: Some(kind) },
                reply: None,
                room: None,
                fenced: false,
            });
        }
    }

    fn is_opening(&self, ino: u64) -> bool {
        let opens = |op: &pb::Op| matches!(&op.kind, Some(Kind::Open(o)) if o.ino == ino);
        self.queue.iter().any(|q| opens(&q.op)) || self.sent.iter().flatten().any(|s| opens(&s.op))
    }

    /// Moves `acked_below` over what is answered and forgets what is no longer needed.
    fn settle(&mut self) {
        while self.acked_below < self.next_seq() {
            match &self.sent[self.index(self.acked_below)] {
                None | Some(Sent { phase: Phase::Answered, .. }) => {}
                Some(sent) if !is_mutation(&sent.op) => {}
                Some(Sent { phase: Phase::Waiting(_) | Phase::Replaying, .. }) => break,
            }
            self.acked_below += 1;
        }
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.base += 1;
        }
        self.cursor = self.cursor.max(self.base);
    }
}

impl fmt::Debug for OpLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpLog")
            .field("queued", &self.queue.len())
            .field("base", &self.base)
            .field("next_seq", &self.next_seq())
            .field("acked_below", &self.acked_below)
            .field("durable_below", &self.durable_below)
            .finish_non_exhaustive()
    }
}

/// Whether `op` changes rows, so that its reply is stored and it has to survive the master.
pub(crate) fn is_mutation(op: &pb::Op) -> bool {
    match &op.kind {
        Some(
            Kind::SetAttr(_)
            | Kind::Create(_)
            | Kind::Link(_)
            | Kind::Unlink(_)
            | Kind::Rmdir(_)
            | Kind::Rename(_)
            | Kind::SetXattr(_)
            | Kind::RemoveXattr(_)
            | Kind::Commit(_)
            | Kind::CloneRange(_)
            | Kind::SetLock(_),
        ) => true,
        Some(Kind::Open(open)) => open.truncate,
        Some(
            Kind::Lookup(_)
            | Kind::GetAttr(_)
            | Kind::ReadLink(_)
            | Kind::Release(_)
            | Kind::ReadDir(_)
            | Kind::StatFs(_)
            | Kind::GetXattr(_)
            | Kind::ListXattr(_)
            | Kind::GetFileManifest(_)
            | Kind::Sync(_)
            | Kind::ReportNode(_)
            | Kind::TestLock(_)
            | Kind::CancelLock(_)
            | Kind::Accessed(_),
        )
        | None => false,
    }
}

fn outcome(reply: pb::Reply) -> Outcome {
    match reply.kind {
        Some(reply::Kind::Error(detail)) => Err(status::fs_error(&detail)),
        Some(kind) => Ok(Answered { kind, lease: reply.lease.unwrap_or_default() }),
        None => Err(FsError::Protocol),
    }
}

/// Whether the answered `op` changed anything; if so it is kept until it is durable, a creation with
/// the number that it was given.
fn note_result(op: &mut pb::Op, outcome: &Outcome) -> bool {
    let Ok(answered) = outcome else { return false };
    if !is_mutation(op) {
        return false;
    }
    match (&mut op.kind, &answered.kind) {
        (Some(Kind::Create(create)), reply::Kind::Entry(entry)) => {
            create.ino = entry.attr.as_ref().map_or(0, |attr| attr.ino);
            entry.created
        }
        (_, reply::Kind::Committed(committed)) => committed.applied,
        (_, reply::Kind::Lock(lock)) => lock.granted,
        _ => true,
    }
}

fn opened_inode(op: &pb::Op, outcome: &Outcome) -> Option<u64> {
    let answered = outcome.as_ref().ok()?;
    match (&op.kind, &answered.kind) {
        (Some(Kind::Open(open)), _) => Some(open.ino),
        (Some(Kind::Create(create)), reply::Kind::Entry(entry)) if create.open => {
            entry.attr.as_ref().map(|attr| attr.ino)
        }
        _ => None,
    }
}

/// A release that is sent again must not close what was opened since.
fn keep_open(op: &mut pb::Op, open: &HashSet<u64>) {
    if let Some(Kind::Release(release)) = &mut op.kind {
        release.inodes.retain(|ino| !open.contains(ino));
    }
}

fn reopen(ino: u64) -> Queued {
    let kind = Kind::Open(pb::Open { ino, truncate: false });
    Queued { op: pb::Op { caller: None, kind: Some(kind) }, reply: None, room: None, fenced: false }
}

/// The second answer to an operation is for nobody, but it should not contradict the first. `Stale`
/// is how the master says that it had not lost the operation after all.
fn compare_replay(seq: u64, op: &pb::Op, outcome: &Outcome) {
    match outcome {
        Ok(_) => debug!(seq, "replayed"),
        Err(FsError::Stale) => debug!(seq, "the master had kept it"),
        Err(error) => warn!(
            seq,
            %error,
            ?op,
            "an operation that had succeeded failed when it was repeated to the restarted master"
        ),
    }
}
