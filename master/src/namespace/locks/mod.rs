//! Locks of files: fcntl(2)'s and flock(2)'s, over all mounts.
//!
//! - [`table`]: who holds what, and who waits.
//! - Here: the operations. A lock that is held is a row, so it survives the master; it ends with its
//!   session. Whoever waits is only remembered: it asks again after a restart, and in any case from
//!   time to time.

mod table;

use cairn_proto::{
    FsError,
    lock_ranges::{LAST_BYTE, Mode, Ranges, Span},
    pb,
};

use self::table::{Conflict, Party, Space};
use super::{Namespace, execute::Call};
use crate::tables::{keys, rows::LocksRow};

pub(super) use table::Locks;

/// A lock was kept for a session that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockFreed {
    /// Who waits.
    pub session: u64,
    /// For a lock on which file.
    pub ino: u64,
    /// Its name for the wait.
    pub wait_id: u64,
}

/// A request, checked. `mode` `None`: unlock.
struct Request {
    party: Party,
    start: u64,
    end: u64,
    mode: Option<Mode>,
    pid: u32,
}

impl Request {
    fn new(call: Call, lock: Option<pb::FileLock>) -> Result<Self, FsError> {
        let lock = lock.ok_or(FsError::InvalidArgument)?;
        let space = Space::from_number(lock.space).ok_or(FsError::InvalidArgument)?;
        let mode = match lock.kind {
            0 => None,
            1 => Some(Mode::Read),
            2 => Some(Mode::Write),
            _ => return Err(FsError::InvalidArgument),
        };
        let whole = lock.start == 0 && lock.end == LAST_BYTE;
        let sound = lock.start <= lock.end && lock.end <= LAST_BYTE;
        if call.session == 0 || !sound || (space == Space::Flock && !whole) {
            return Err(FsError::InvalidArgument);
        }
        let party = Party { session: call.session, owner: lock.owner, space };
        Ok(Self { party, start: lock.start, end: lock.end, mode, pid: lock.pid })
    }

    fn span(&self, mode: Mode) -> Span {
        Span { start: self.start, end: self.end, mode, pid: self.pid }
    }
}

/// The answer that names what is in the way. Process numbers mean something within a session only.
fn denied(asker: Party, conflict: Conflict) -> pb::LockReply {
    let Conflict { party, span } = conflict;
    let conflict = pb::FileLock {
        kind: if span.mode == Mode::Write { 2 } else { 1 },
        space: party.space as u32,
        start: span.start,
        end: span.end,
        owner: party.owner,
        pid: if party.session == asker.session { span.pid } else { 0 },
    };
    pb::LockReply { granted: false, conflict: Some(conflict), attr: None }
}

fn granted(attr: Option<pb::Attr>) -> pb::LockReply {
    pb::LockReply { granted: true, conflict: None, attr }
}

impl Namespace {
    /// Changes memory only after everything that can fail: the undo of an operation knows rows only.
    pub(super) fn set_lock(
        &mut self,
        call: Call,
        request: &pb::SetLock,
    ) -> Result<pb::LockReply, FsError> {
        let pb::SetLock { ino, lock, wait_id } = *request;
        let wish = Request::new(call, lock)?;
        let party = wish.party;
        let before = self.locks.held(ino, party);
        let mut ranges = before.clone();
        let Some(mode) = wish.mode else {
            ranges.remove(wish.start, wish.end);
            if ranges != before {
                self.locks.check(ino, party, &ranges)?;
                self.put_locks(ino, party, ranges);
            }
            return Ok(granted(None));
        };
        let attr = self.inode(ino)?.attr();
        let wanted = wish.span(mode);
        if let Some(conflict) = self.locks.conflict(ino, party, wanted, wait_id) {
            if wait_id != 0 {
                self.wait_for_lock(ino, party, wanted, wait_id)?;
            }
            if party.space == Space::Flock && !before.is_empty() {
                // A conversion is no single step: flock(2) gives the old lock up first.
                self.put_locks(ino, party, Ranges::default());
            }
            return Ok(denied(party, conflict));
        }
        ranges.set(wanted);
        self.locks.check(ino, party, &ranges)?;
        self.put_locks(ino, party, ranges);
        self.locks.cancel(party.session, ino, wait_id);
        Ok(granted(Some(attr)))
    }

    fn wait_for_lock(
        &mut self,
        ino: u64,
        party: Party,
        wanted: Span,
        wait_id: u64,
    ) -> Result<(), FsError> {
        if party.space == Space::Posix && self.locks.would_deadlock(ino, party, wanted) {
            self.locks.cancel(party.session, ino, wait_id);
            return Err(FsError::Deadlock);
        }
        self.locks.wait(ino, party, wanted, wait_id)
    }

    pub(super) fn test_lock(
        &mut self,
        call: Call,
        request: &pb::TestLock,
    ) -> Result<pb::LockReply, FsError> {
        let wish = Request::new(call, request.lock)?;
        let mode = wish.mode.ok_or(FsError::InvalidArgument)?;
        let conflict = self.locks.conflict(request.ino, wish.party, wish.span(mode), 0);
        Ok(conflict.map_or_else(|| granted(None), |conflict| denied(wish.party, conflict)))
    }

    fn put_locks(&mut self, ino: u64, party: Party, ranges: Ranges) {
        let key = keys::locks(ino, party.session, party.owner, party.space as u8);
        if ranges.is_empty() {
            self.group.delete(key);
        } else {
            self.group.put_row(key, &LocksRow::from(&ranges));
        }
        self.locks.put(ino, party, ranges);
    }

    /// The session has ended. Whether it had locked anything.
    pub(super) fn drop_session_locks(&mut self, session: u64) -> bool {
        let held = self.locks.drop_session(session, None);
        let any = !held.is_empty();
        self.delete_lock_rows(held);
        any
    }

    /// The session no longer has `ino` open.
    pub(super) fn drop_locks_on(&mut self, session: u64, ino: u64) {
        let held = self.locks.drop_session(session, Some(ino));
        self.delete_lock_rows(held);
    }

    fn delete_lock_rows(&mut self, held: Vec<(u64, Party)>) {
        for (ino, party) in held {
            self.group.delete(keys::locks(ino, party.session, party.owner, party.space as u8));
        }
    }
}
