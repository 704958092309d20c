//! How an operation is run: in a task that owns the reply, with a limit, and with an answer whatever
//! happens; and counted.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_proto::{Attr, FileName, FsError, Ino};
use fuser::{INodeNo, Request};
use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{
    answer::{Answer, send},
    notices::Notices,
    patience::{Interruptions, within},
    read_reply::Device,
    shown::Shown,
};
use crate::{
    activity::{Activity, Operation},
    vfs::{Caller, Vfs},
};

/// Waits inside an operation have the deadline; this much more is left for its own work.
const SLACK: Duration = Duration::from_secs(1);
/// Operations that take as long as they make progress are ended after this many deadlines.
const PROGRESS: u32 = 20;

/// Answers the kernel; see [`super::adapter`].
pub struct Adapter {
    pub(super) vfs: Arc<Vfs>,
    pub(super) runtime: Handle,
    pub(super) notices: Notices,
    interruptions: Arc<Interruptions>,
    draining: Arc<AtomicBool>,
    deadline: Duration,
    pub(super) activity: Arc<Activity>,
    pub(super) shown: Shown,
    pub(super) device: Device,
}

impl Adapter {
    /// Answers from `vfs` with tasks on `runtime`, with attributes as `shown` has them.
    pub fn new(vfs: Arc<Vfs>, runtime: Handle, deadline: Duration, shown: Shown) -> Self {
        Self {
            vfs,
            runtime,
            notices: Notices::default(),
            interruptions: Arc::default(),
            draining: Arc::default(),
            deadline,
            activity: Arc::default(),
            shown,
            device: Device::default(),
        }
    }

    /// What the kernel can be told.
    pub fn notices(&self) -> Notices {
        self.notices.clone()
    }

    /// What it has been asked to do.
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// When it is set, nothing is answered any more: what comes is left for the next daemon.
    pub fn draining(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.draining)
    }

    /// Whether the request behind `reply` is left for the next daemon.
    pub(super) fn leaves<A>(&self, reply: A) -> Option<A> {
        if !self.draining.load(Ordering::Acquire) {
            return Some(reply);
        }
        // Dropped, it would be an error for the caller.
        std::mem::forget(reply);
        None
    }

    /// Answers with the result of a task, within the limit of its kind.
    pub(super) fn task<A, F>(
        &self,
        operation: Operation,
        req: &Request,
        reply: A,
        work: impl FnOnce(Arc<Vfs>, Caller) -> F + Send + 'static,
    ) where
        A: Answer,
        F: Future<Output = Result<A::Value, FsError>> + Send + 'static,
    {
        let Some(reply) = self.leaves(reply) else { return };
        let limit = self.limit(operation);
        let closing = operation == Operation::Flush;
        let caller = Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() };
        let vfs = Arc::clone(&self.vfs);
        let interruptions = Arc::clone(&self.interruptions);
        let shown = self.shown;
        let underway = self.activity.begin(operation, caller.pid);
        self.runtime.spawn(async move {
            let work = AssertUnwindSafe(async { work(vfs, caller).await }).catch_unwind();
            let result = match within(&interruptions, caller.pid, closing, limit, work).await {
                Ok(Ok(result)) => result,
                Ok(Err(_panic)) => {
                    tracing::error!("an operation panicked; its caller got an I/O error");
                    Err(FsError::Io)
                }
                Err(error) => Err(error),
            };
            // Before the answer: whoever has it finds it counted.
            underway.end(result.as_ref().ok().map(A::bytes));
            send(reply, result.map(|value| A::show(value, shown)));
        });
    }

    /// Answers at once what began at `since`.
    pub(super) fn now<A: Answer>(
        &self,
        operation: Operation,
        req: &Request,
        since: Instant,
        reply: A,
        result: Result<A::Value, FsError>,
    ) {
        let Some(reply) = self.leaves(reply) else { return };
        let bytes = result.as_ref().ok().map(A::bytes);
        self.activity.done(operation, req.pid(), since, bytes);
        send(reply, result);
    }

    /// How long an operation may take: the deadline, or as long as it makes progress where it brings
    /// written bytes to the store or looks through a file.
    pub(super) fn limit(&self, operation: Operation) -> Duration {
        use Operation as Op;
        match operation {
            Op::Setattr
            | Op::Open
            | Op::Write
            | Op::Flush
            | Op::Release
            | Op::Fsync
            | Op::Fallocate
            | Op::Lseek
            | Op::CopyFileRange
            | Op::Setlk => self.deadline * PROGRESS,
            Op::Lookup
            | Op::Getattr
            | Op::Readlink
            | Op::Mknod
            | Op::Mkdir
            | Op::Unlink
            | Op::Rmdir
            | Op::Symlink
            | Op::Rename
            | Op::Link
            | Op::Create
            | Op::Read
            | Op::Opendir
            | Op::Readdir
            | Op::Releasedir
            | Op::Fsyncdir
            | Op::Statfs
            | Op::Setxattr
            | Op::Getxattr
            | Op::Listxattr
            | Op::Removexattr
            | Op::Getlk => self.deadline + SLACK,
        }
    }

    /// As [`Adapter::task`], for operations on a name.
    pub(super) fn named<A, F>(
        &self,
        operation: Operation,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        reply: A,
        work: impl FnOnce(Arc<Vfs>, Caller, Ino, FileName) -> F + Send + 'static,
    ) where
        A: Answer,
        F: Future<Output = Result<A::Value, FsError>> + Send + 'static,
    {
        match (ino(parent), FileName::try_from(name.as_bytes())) {
            (Ok(parent), Ok(name)) => {
                self.task(operation, req, reply, move |vfs, caller| {
                    work(vfs, caller, parent, name)
                });
            }
            (Err(error), _) | (_, Err(error)) => {
                self.now(operation, req, Instant::now(), reply, Err(error));
            }
        }
    }

    /// An entry that the kernel will remember; the master was asked for it at `asked`.
    pub(super) fn remember(vfs: &Vfs, attr: &Attr, asked: Instant) {
        vfs.inodes().looked_up(attr.ino);
        vfs.inodes().told(attr, asked);
    }
}

/// Inode 0 is no inode.
pub(super) fn ino(number: INodeNo) -> Result<Ino, FsError> {
    Ino::new(number.0).ok_or(FsError::InvalidArgument)
}
