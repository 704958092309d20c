//! Locks of files, fcntl(2)'s and flock(2)'s, as the master grants them.
//!
//! - [`held`]: which locks this mount holds, and through which handles.
//! - [`acquire`]: setting a lock, waiting for one, giving it back when nobody wants it any more.
//! - [`close`]: what close(2) and the end of a handle take with them.
//!
//! What is written under a lock is committed before the lock is given up or made weaker, and a granted
//! lock comes with the file's attributes of that moment: so who takes turns sees what the other wrote.
//!
//! Locks end with the session. A handle through which one was held then fails to write, what it wrote
//! and had not committed is dropped, and it takes no further locks; it has to be closed.

pub mod acquire;
pub mod close;
pub mod held;

use cairn_proto::{
    Attr, FsError,
    lock_ranges::{Mode, Span},
    pb,
    pb::op::Kind,
};

pub use self::{acquire::Attempt, held::LockTable};
use super::{Caller, Fh, Vfs, answers};

/// Locks of different spaces never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockSpace {
    /// fcntl(2): locks of processes and of open file descriptions.
    Posix,
    /// flock(2)
    Flock,
}

impl LockSpace {
    const fn number(self) -> u32 {
        match self {
            Self::Posix => 1,
            Self::Flock => 2,
        }
    }
}

/// Who holds a lock: a process, or an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockOwner {
    /// Where.
    pub space: LockSpace,
    /// The kernel's number for it.
    pub id: u64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest {
    /// Who shall hold it.
    pub owner: LockOwner,
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
    /// `None`: unlock.
    pub mode: Option<Mode>,
    /// The process, for people.
    pub pid: u32,
    /// Wait until it can be had.
    pub wait: bool,
}

impl LockRequest {
    /// For fewer bytes, or weaker.
    const fn part(self, start: u64, end: u64, mode: Option<Mode>) -> Self {
        Self { start, end, mode, wait: false, ..self }
    }

    fn wire(&self) -> pb::FileLock {
        pb::FileLock {
            kind: match self.mode {
                None => 0,
                Some(Mode::Read) => 1,
                Some(Mode::Write) => 2,
            },
            space: self.owner.space.number(),
            start: self.start,
            end: self.end,
            owner: self.owner.id,
            pid: self.pid,
        }
    }
}

/// A lock was granted: the file as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Locked {
    /// Its attributes.
    pub attr: Attr,
    /// Whether pages that the kernel has cached still show what it holds.
    pub pages_current: bool,
}

impl Vfs {
    /// The lock that is in the way of `request`, if there is one. Its process is 0 when it is one of
    /// another mount.
    ///
    /// # Errors
    /// `BadHandle`; what the master says.
    pub async fn test_lock(
        &self,
        caller: Caller,
        fh: Fh,
        request: LockRequest,
    ) -> Result<Option<Span>, FsError> {
        let ino = self.handles.file(fh)?.file().ino();
        let op = pb::TestLock { ino: ino.get(), lock: Some(request.wire()) };
        match self.ask(caller, Kind::TestLock(op)).await? {
            pb::reply::Kind::Lock(pb::LockReply { granted: true, .. }) => Ok(None),
            pb::reply::Kind::Lock(pb::LockReply { conflict: Some(found), .. }) => {
                let mode = if found.kind == 2 { Mode::Write } else { Mode::Read };
                Ok(Some(Span { start: found.start, end: found.end, mode, pid: found.pid }))
            }
            other => Err(answers::unexpected(&other)),
        }
    }
}
