//! Setting a lock. It is done by a task that runs to its end whether or not the caller waits for it: a
//! lock that is granted to nobody is given back, and a wait that nobody is interested in is cancelled.

use std::{sync::Arc, time::Duration};

use cairn_proto::{
    FsError,
    lock_ranges::{Mode, Ranges, Span},
    pb,
    pb::op::Kind,
};
use tokio::{
    select,
    sync::{OwnedMutexGuard, oneshot},
    time::{sleep, timeout},
};

use super::{
    LockRequest, LockSpace, Locked,
    held::{Entry, LockTable},
};
use crate::{
    rpc::LockWait,
    vfs::{Caller, Fh, Vfs, answers, open::OpenFile},
};

/// Who waits asks again after this long even without news: the push may have been lost with a
/// connection, and a restarted master does not know who waits.
const ASK_AGAIN: Duration = Duration::from_secs(2);

type Answer = Result<Option<Locked>, FsError>;

/// A lock that is being set; when this is dropped, nobody wants it any more.
#[derive(Debug)]
pub struct Attempt(oneshot::Receiver<Answer>);

impl Attempt {
    /// The outcome; `Some` for a new lock, `None` for an unlock.
    ///
    /// # Errors
    /// `TryAgain` when another holds it and there is no waiting; `Deadlock`; `NoLocks`; `Io` when locks
    /// were lost with the session, or the master does not answer.
    pub async fn outcome(&mut self) -> Answer {
        (&mut self.0).await.unwrap_or(Err(FsError::Io))
    }

    /// Ends it. `Some`: it had come to an end before.
    pub fn give_up(mut self) -> Option<Answer> {
        self.0.close();
        self.0.try_recv().ok()
    }
}

/// One attempt, in its task.
struct Acquisition {
    vfs: Arc<Vfs>,
    caller: Caller,
    fh: Fh,
    open: Arc<OpenFile>,
    request: LockRequest,
}

/// What an exchange with the master came to.
enum Exchanged {
    Unlocked,
    Granted(Locked, Undo),
    Denied,
    /// Nothing was held, and the session is another one by now.
    Lost,
}

/// What was held before, for the case that nobody wants what is held now.
struct Undo {
    generation: u64,
    before: Ranges,
    entry: Arc<Entry>,
    turn: OwnedMutexGuard<()>,
}

impl Vfs {
    /// Sets, changes or removes a lock.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn set_lock(
        self: &Arc<Self>,
        caller: Caller,
        fh: Fh,
        request: LockRequest,
    ) -> Result<Attempt, FsError> {
        let open = self.handles.file(fh)?;
        if request.mode.is_some() && open.has_lost_lock() {
            return Err(FsError::Io);
        }
        Ok(self.set_lock_through(caller, fh, open, request))
    }

    pub(super) fn set_lock_through(
        self: &Arc<Self>,
        caller: Caller,
        fh: Fh,
        open: Arc<OpenFile>,
        request: LockRequest,
    ) -> Attempt {
        let (tell, told) = oneshot::channel();
        let acquisition = Acquisition { vfs: Arc::clone(self), caller, fh, open, request };
        tokio::spawn(acquisition.run(tell));
        Attempt(told)
    }
}

impl Acquisition {
    async fn run(self, mut tell: oneshot::Sender<Answer>) {
        let waits = self.request.wait && self.request.mode.is_some();
        let wait = waits.then(|| self.vfs.session.wait_for_lock());
        let mut patience = true;
        loop {
            let outcome = match self.exchange(wait.as_ref().map_or(0, LockWait::id)).await {
                Ok(Exchanged::Granted(locked, undo)) => {
                    if tell.send(Ok(Some(locked))).is_err() {
                        self.give_back(undo).await;
                    }
                    return;
                }
                Ok(Exchanged::Unlocked) => Ok(None),
                Ok(Exchanged::Denied) => {
                    if std::mem::take(&mut patience) && self.own_release().await {
                        continue;
                    }
                    match &wait {
                        None => Err(FsError::TryAgain),
                        Some(wait) => select! {
                            () = wait.news() => continue,
                            () = sleep(ASK_AGAIN) => continue,
                            () = tell.closed() => Err(FsError::Interrupted),
                        },
                    }
                }
                Ok(Exchanged::Lost) if tell.is_closed() => Err(FsError::Interrupted),
                Ok(Exchanged::Lost) => continue,
                Err(error) => Err(error),
            };
            let cancel = wait.filter(|_| !matches!(outcome, Err(FsError::Deadlock)));
            // Nobody may be left to hear it.
            let _ = tell.send(outcome);
            if let Some(wait) = cancel {
                self.cancel(&wait).await;
            }
            return;
        }
    }

    fn ino(&self) -> cairn_proto::Ino {
        self.open.file().ino()
    }

    fn table(&self) -> &Arc<LockTable> {
        &self.vfs.locks
    }

    /// Whether a handle of this mount that may be in the way was just being given back, and is gone.
    async fn own_release(&self) -> bool {
        let limit = self.vfs.files.context().deadline();
        timeout(limit, self.table().until_released(self.ino())).await.unwrap_or(false)
    }

    /// Asks the master once, in the turn of this owner.
    async fn exchange(&self, wait_id: u64) -> Result<Exchanged, FsError> {
        let entry = self.table().entry(self.ino(), self.request.owner);
        let turn = Arc::clone(&entry.turn).lock_owned();
        let exchanged = match timeout(self.vfs.files.context().deadline(), turn).await {
            Ok(turn) => self.exchange_with(&entry, turn, wait_id).await,
            Err(_) => {
                if self.request.mode.is_none() {
                    let generation = self.vfs.session.session_generation();
                    self.unlock_later(&entry, generation, None);
                }
                Err(FsError::TimedOut)
            }
        };
        self.table().prune(self.ino(), self.request.owner, entry);
        exchanged
    }

    /// Unlocks when the master answers again; `turn`: this owner's, if it is had already.
    fn unlock_later(&self, entry: &Arc<Entry>, generation: u64, turn: Option<OwnedMutexGuard<()>>) {
        let (again, entry) = (self.copy(), Arc::clone(entry));
        tokio::spawn(async move {
            let _turn = match turn {
                Some(turn) => turn,
                None => Arc::clone(&entry.turn).lock_owned().await,
            };
            again.insist(&entry, generation, &again.request).await;
            again.table().prune(again.ino(), again.request.owner, entry);
        });
    }

    async fn exchange_with(
        &self,
        entry: &Arc<Entry>,
        turn: OwnedMutexGuard<()>,
        wait_id: u64,
    ) -> Result<Exchanged, FsError> {
        let (ino, request) = (self.ino(), &self.request);
        let generation = self.vfs.session.session_generation();
        let (before, lost) = {
            let held = entry.held();
            let lost = !held.ranges.is_empty() && held.generation != generation;
            (held.ranges.clone(), lost)
        };
        if lost || self.open.file().is_fenced_off() {
            // What was written under the lost lock is dropped, and the handles hear of it.
            self.commit_written().await;
        }
        if request.mode.is_none() {
            if lost || before.within(request.start, request.end).is_empty() {
                return Ok(Exchanged::Unlocked);
            }
            self.commit_written().await;
            return self.unlock(entry, turn, generation).await;
        }
        if lost || self.table().lost(ino, self.fh, generation) {
            return Err(FsError::Io);
        }
        if weakens(&before, request) {
            self.commit_written().await;
        }
        let op = pb::SetLock { ino: ino.get(), lock: Some(request.wire()), wait_id };
        let answer = self.vfs.session.call_fenced(Some(generation), self.caller, Kind::SetLock(op));
        let another = || self.vfs.session.session_generation() != generation;
        match answer.await.map(|answered| answered.kind) {
            Ok(pb::reply::Kind::Lock(pb::LockReply { granted: true, attr, .. })) => {
                let attr = answers::attr(attr)?;
                self.note(entry, generation, request);
                let locked = self.look_anew(attr).await;
                let entry = Arc::clone(entry);
                Ok(Exchanged::Granted(locked, Undo { generation, before, entry, turn }))
            }
            Ok(pb::reply::Kind::Lock(_)) => {
                if request.owner.space == LockSpace::Flock {
                    // It was given up for the new one.
                    self.note(entry, generation, &request.part(0, u64::MAX, None));
                }
                Ok(Exchanged::Denied)
            }
            Ok(other) => Err(answers::unexpected(&other)),
            Err(FsError::TimedOut) => {
                // It may be granted yet.
                let (again, entry) = (self.copy(), Arc::clone(entry));
                let undo = Undo { generation, before, entry, turn };
                tokio::spawn(async move { again.give_back(undo).await });
                Err(FsError::TimedOut)
            }
            Err(FsError::Stale) if another() && before.is_empty() => Ok(Exchanged::Lost),
            Err(FsError::Stale) if another() => Err(FsError::Io),
            Err(error) => Err(error),
        }
    }

    fn copy(&self) -> Self {
        let (vfs, open) = (Arc::clone(&self.vfs), Arc::clone(&self.open));
        Self { vfs, caller: self.caller, fh: self.fh, open, request: self.request }
    }

    /// The caller hears of a master that does not answer; the lock is given back all the same.
    async fn unlock(
        &self,
        entry: &Arc<Entry>,
        turn: OwnedMutexGuard<()>,
        generation: u64,
    ) -> Result<Exchanged, FsError> {
        match self.ask_for(generation, &self.request).await {
            Err(FsError::TimedOut) => {
                self.unlock_later(entry, generation, Some(turn));
                Err(FsError::TimedOut)
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.note(entry, generation, &self.request);
                Ok(Exchanged::Unlocked)
            }
        }
    }

    /// What was written is committed, for others to see. An error is reported to the handles.
    async fn commit_written(&self) {
        let _outcome = self.open.file().flush().await;
    }

    /// Asks for what cannot be refused. When the session is gone, so is the lock.
    async fn ask_for(&self, generation: u64, request: &LockRequest) -> Result<(), FsError> {
        let lock = Some(request.wire());
        let op = Kind::SetLock(pb::SetLock { ino: self.ino().get(), lock, wait_id: 0 });
        match self.vfs.session.call_fenced(Some(generation), self.caller, op).await {
            Ok(_) | Err(FsError::Stale) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks until the master has answered, and enters it.
    async fn insist(&self, entry: &Entry, generation: u64, request: &LockRequest) {
        loop {
            match self.ask_for(generation, request).await {
                Err(FsError::TimedOut) => {}
                Err(error) => {
                    tracing::warn!(ino = %self.ino(), %error, "a lock that nobody wants is not given back");
                    return;
                }
                Ok(()) => return self.note(entry, generation, request),
            }
        }
    }

    /// Enters what the master has done.
    fn note(&self, entry: &Entry, generation: u64, request: &LockRequest) {
        let ino = self.ino();
        {
            let mut held = entry.held();
            if !held.ranges.is_empty() && held.generation != generation {
                // What was lost stays lost until its handles are closed.
                return;
            }
            held.generation = generation;
            match request.mode {
                Some(mode) => {
                    let LockRequest { start, end, pid, .. } = *request;
                    held.ranges.set(Span { start, end, mode, pid });
                    held.handles.insert(self.fh);
                    self.open.took_lock();
                    self.vfs.handles.took_lock(self.fh);
                }
                None => held.ranges.remove(request.start, request.end),
            }
            if held.ranges.is_empty() {
                held.handles.clear();
            }
        }
        let fence = self.table().is_locked(ino, generation).then_some(generation);
        self.open.file().set_fence(fence);
    }

    /// The file as the master has it. With bytes of our own under way that is what comes after them.
    async fn look_anew(&self, attr: cairn_proto::Attr) -> Locked {
        let file = self.open.file();
        if file.has_uncommitted() {
            self.commit_written().await;
        }
        let pages_current = file.relocked(attr);
        Locked { attr: file.merged(attr), pages_current }
    }

    /// Nobody wants what was asked for: back to what was held before, or less.
    async fn give_back(&self, undo: Undo) {
        let Undo { generation, before, entry, turn } = undo;
        self.commit_written().await;
        for part in parts_before(&before, &self.request) {
            self.insist(&entry, generation, &part).await;
        }
        drop(turn);
        self.table().prune(self.ino(), self.request.owner, entry);
    }

    /// The master must not keep a lock for a wait that has ended.
    async fn cancel(&self, wait: &LockWait) {
        let op = pb::CancelLock { ino: self.ino().get(), wait_id: wait.id() };
        loop {
            match self.vfs.session.call(self.caller, Kind::CancelLock(op)).await {
                Err(FsError::TimedOut) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// Whether something that was written under `before` may be seen by others once `request` is granted.
fn weakens(before: &Ranges, request: &LockRequest) -> bool {
    let part = before.within(request.start, request.end);
    let written = part.iter().any(|span| span.mode == Mode::Write);
    written && (request.mode != Some(Mode::Write) || request.owner.space == LockSpace::Flock)
}

/// The requests that lead from `before` with `request` granted, or not, to `before` or something
/// weaker: they cannot be refused in either case.
fn parts_before(before: &Ranges, request: &LockRequest) -> Vec<LockRequest> {
    let mut parts = Vec::new();
    let mut next = Some(request.start);
    let kept = match request.owner.space {
        LockSpace::Posix => before.within(request.start, request.end),
        // It may have been given up for the new one.
        LockSpace::Flock => Ranges::default(),
    };
    for span in kept.iter() {
        if let Some(from) = next.filter(|from| *from < span.start) {
            parts.push(request.part(from, span.start - 1, None));
        }
        let weaker = if request.mode == Some(Mode::Read) { Mode::Read } else { span.mode };
        if weaker == Mode::Read {
            parts.push(request.part(span.start, span.end, Some(Mode::Read)));
        }
        next = span.end.checked_add(1);
    }
    if let Some(from) = next.filter(|from| *from <= request.end) {
        parts.push(request.part(from, request.end, None));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::{super::LockOwner, *};

    fn request(space: LockSpace, mode: Mode) -> LockRequest {
        let owner = LockOwner { space, id: 1 };
        LockRequest { owner, start: 10, end: 29, mode: Some(mode), pid: 1, wait: true }
    }

    fn held(spans: &[(u64, u64, Mode)]) -> Ranges {
        let mut ranges = Ranges::default();
        for &(start, end, mode) in spans {
            ranges.set(Span { start, end, mode, pid: 1 });
        }
        ranges
    }

    fn parts(before: &Ranges, request: &LockRequest) -> Vec<(u64, u64, Option<Mode>)> {
        parts_before(before, request).iter().map(|p| (p.start, p.end, p.mode)).collect()
    }

    #[test]
    fn what_nobody_wants_goes_back_to_what_was_or_less() {
        let (read, write) = (Mode::Read, Mode::Write);
        let nothing = held(&[]);
        let wanted = request(LockSpace::Posix, write);
        assert_eq!(parts(&nothing, &wanted), [(10, 29, None)]);
        let before = held(&[(0, 14, read), (20, 24, write), (40, 50, read)]);
        let expected = [(10, 14, Some(read)), (15, 19, None), (25, 29, None)];
        assert_eq!(parts(&before, &wanted), expected);
        let wanted = request(LockSpace::Posix, read);
        let expected = [(10, 14, Some(read)), (15, 19, None), (20, 24, Some(read)), (25, 29, None)];
        assert_eq!(parts(&before, &wanted), expected);
        let wanted = request(LockSpace::Flock, read);
        assert_eq!(parts(&held(&[(0, u64::MAX, write)]), &wanted), [(10, 29, None)]);
    }

    #[test]
    fn bytes_written_under_a_lock_come_before_a_weaker_one() {
        let before = held(&[(0, 14, Mode::Write)]);
        let unlock = LockRequest { mode: None, ..request(LockSpace::Posix, Mode::Read) };
        assert!(weakens(&before, &unlock));
        assert!(weakens(&before, &request(LockSpace::Posix, Mode::Read)));
        assert!(!weakens(&before, &request(LockSpace::Posix, Mode::Write)));
        assert!(!weakens(&held(&[(0, 9, Mode::Write)]), &unlock));
        assert!(weakens(&before, &request(LockSpace::Flock, Mode::Write)));
    }
}
