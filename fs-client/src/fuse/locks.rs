//! fcntl(2) and flock(2) locks: getlk, setlk, and what a close ends.
//!
//! A program may wait for a lock as long as it likes, so there is no limit but its own: any signal that
//! it would act on ends the wait, as the kernel then expects (it starts the call again where the
//! program wants that). When the lock was granted at the same moment, it is granted.

use std::{sync::Arc, time::Duration};

use cairn_proto::{FsError, lock_ranges::Mode};
use fuser::{Errno, FileHandle, LockOwner as Owner, ReplyEmpty, ReplyLock, Request};
use tokio::{select, time::sleep};

use super::{answer::send, lock_kind, patience::Signals, tasks::Adapter};
use crate::{
    activity::Operation as Op,
    vfs::{Caller, Fh, LockOwner, LockRequest, LockSpace, Vfs},
};

/// What the kernel asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) fh: FileHandle,
    pub(super) owner: Owner,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) typ: i32,
    pub(super) pid: u32,
    pub(super) wait: bool,
}

impl Wish {
    fn request(self, space: LockSpace) -> Result<LockRequest, FsError> {
        let mode = match self.typ {
            libc::F_RDLCK => Some(Mode::Read),
            libc::F_WRLCK => Some(Mode::Write),
            libc::F_UNLCK => None,
            _ => return Err(FsError::InvalidArgument),
        };
        Ok(LockRequest {
            owner: LockOwner { space, id: self.owner.0 },
            start: self.start,
            end: self.end,
            mode,
            pid: self.pid,
            wait: self.wait,
        })
    }
}

impl Adapter {
    /// F_GETLK: flock(2) has no such question.
    pub(super) fn test_lock(&self, req: &Request, wish: Wish, reply: ReplyLock) {
        let Wish { start, end, .. } = wish;
        let reply = LockAnswer { reply, start, end };
        self.task(Op::Getlk, req, reply, async move |vfs, caller| {
            vfs.test_lock(caller, Fh(wish.fh.0), wish.request(LockSpace::Posix)?).await
        });
    }

    /// F_SETLK, F_SETLKW, flock(2).
    pub(super) fn set_lock(&self, req: &Request, wish: Wish, reply: ReplyEmpty) {
        let Some(reply) = self.leaves(reply) else { return };
        let caller = Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() };
        let (vfs, notices) = (Arc::clone(&self.vfs), self.notices.clone());
        let limit = self.limit(Op::Setlk);
        let underway = self.activity.begin(Op::Setlk, caller.pid);
        self.runtime.spawn(async move {
            let outcome = set(&vfs, caller, wish, limit).await;
            let result = match outcome {
                Ok(Some(locked)) => {
                    notices.locked(&vfs, &locked).await;
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            underway.end(result.as_ref().ok().map(|()| 0));
            send(reply, result);
        });
    }

    /// close(2), which ends the locks of the process that closes.
    pub(super) fn close_file(
        &self,
        req: &Request,
        fh: FileHandle,
        process: Owner,
        reply: ReplyEmpty,
    ) {
        let fh = Fh(fh.0);
        match self.vfs.closes_at_once(fh, process.0) {
            Ok(true) => self.now(Op::Flush, req, std::time::Instant::now(), reply, Ok(())),
            Ok(false) | Err(_) => self.task(Op::Flush, req, reply, async move |vfs, caller| {
                vfs.close(caller, fh, process.0).await
            }),
        }
    }

    pub(super) fn release_file(&self, req: &Request, fh: FileHandle, reply: ReplyEmpty) {
        let releasing = self.vfs.begin_release(Fh(fh.0));
        self.task(Op::Release, req, reply, async move |vfs, _| {
            let released = vfs.release(Fh(fh.0)).await;
            drop(releasing);
            released
        });
    }
}

async fn set(
    vfs: &Arc<Vfs>,
    caller: Caller,
    wish: Wish,
    limit: Duration,
) -> Result<Option<crate::vfs::Locked>, FsError> {
    let space = lock_kind::space_of(caller.pid, wish.start, wish.end).await;
    let request = wish.request(space)?;
    let mut attempt = vfs.set_lock(caller, Fh(wish.fh.0), request)?;
    let mut signals = Signals::of(caller.pid);
    let ended = select! {
        biased;
        outcome = attempt.outcome() => return outcome,
        () = signals.next() => FsError::Interrupted,
        () = sleep(limit), if !request.wait || request.mode.is_none() => FsError::TimedOut,
    };
    attempt.give_up().unwrap_or(Err(ended))
}

/// The answer to F_GETLK: the lock that is in the way, or that there is none.
pub(super) struct LockAnswer {
    reply: ReplyLock,
    start: u64,
    end: u64,
}

impl super::answer::Answer for LockAnswer {
    type Value = Option<cairn_proto::lock_ranges::Span>;

    fn ok(self, value: Self::Value) {
        match value {
            None => self.reply.locked(self.start, self.end, libc::F_UNLCK, 0),
            Some(span) => {
                let typ = if span.mode == Mode::Write { libc::F_WRLCK } else { libc::F_RDLCK };
                self.reply.locked(span.start, span.end, typ, span.pid);
            }
        }
    }

    fn fail(self, errno: Errno) {
        self.reply.error(errno);
    }
}
