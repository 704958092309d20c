//! One operation from request to reply: who may send it, whether it was executed before, its undo.

use cairn_proto::{FsError, pb};
use pb::{op, reply};

use super::{Namespace, Origin, sessions::Known};
use crate::{engine::EngineError, failpoints};

/// Who an operation is executed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) session: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Sent before, to an earlier incarnation of the master.
    pub(super) replay: bool,
}

impl From<EngineError> for FsError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NoSpace => Self::NoSpace,
            EngineError::Io(_)
            | EngineError::Fenced { .. }
            | EngineError::Damaged(_)
            | EngineError::Locked => {
                tracing::error!(%error, "an operation failed in the metadata engine");
                Self::Io
            }
        }
    }
}

/// Whether an operation changes rows and so must not be executed twice.
const fn is_mutation(kind: &op::Kind) -> bool {
    match kind {
        op::Kind::SetAttr(_)
        | op::Kind::Create(_)
        | op::Kind::Link(_)
        | op::Kind::Unlink(_)
        | op::Kind::Rmdir(_)
        | op::Kind::Rename(_)
        | op::Kind::SetXattr(_)
        | op::Kind::RemoveXattr(_)
        | op::Kind::Commit(_)
        | op::Kind::CloneRange(_)
        | op::Kind::SetLock(_) => true,
        op::Kind::Open(open) => open.truncate,
        op::Kind::Lookup(_)
        | op::Kind::GetAttr(_)
        | op::Kind::ReadLink(_)
        | op::Kind::Release(_)
        | op::Kind::ReadDir(_)
        | op::Kind::StatFs(_)
        | op::Kind::GetXattr(_)
        | op::Kind::ListXattr(_)
        | op::Kind::GetFileManifest(_)
        | op::Kind::Sync(_)
        | op::Kind::ReportNode(_)
        | op::Kind::TestLock(_)
        // Twice is as good as once.
        | op::Kind::CancelLock(_)
        | op::Kind::Accessed(_) => false,
    }
}

/// Whether a nearly full metadata disk refuses it. What frees space or changes little goes on.
const fn needs_room(kind: &op::Kind) -> bool {
    matches!(
        kind,
        op::Kind::Create(_)
            | op::Kind::Link(_)
            | op::Kind::SetXattr(_)
            | op::Kind::Commit(_)
            | op::Kind::CloneRange(_)
    )
}

/// Whether the same operation would fail the same way again. The engine's troubles may pass.
const fn is_final(error: FsError) -> bool {
    !matches!(error, FsError::Io | FsError::NoSpace)
}

fn failure(error: FsError) -> pb::Reply {
    pb::Reply { lease: None, kind: Some(reply::Kind::Error(error.into())) }
}

fn success(kind: reply::Kind) -> pb::Reply {
    pb::Reply { lease: None, kind: Some(kind) }
}

impl Namespace {
    /// Executes one operation in the pending group. When it fails, what it wrote is rolled back and
    /// the rest of the group stays. `Sync` and `ReportNode` are answered `Done` and do nothing here.
    pub fn execute(&mut self, origin: Origin, op: &pb::Op) -> pb::Reply {
        let Some(kind) = &op.kind else { return failure(FsError::InvalidArgument) };
        if origin.session != 0 && !self.sessions.knows(origin.session) {
            return failure(FsError::Stale);
        }
        let caller = op.caller.unwrap_or_default();
        let call = Call {
            session: origin.session,
            uid: caller.uid,
            gid: caller.gid,
            replay: self.sessions.is_replay(origin.session, origin.seq),
        };
        if !is_mutation(kind) || origin.session == 0 || origin.seq == 0 {
            return self.attempt(call, kind).map_or_else(failure, success);
        }
        match self.recall(origin.session, origin.seq, origin.acked_below) {
            Err(error) => failure(error),
            Ok(Known::Reply(reply)) => {
                self.hold_again(call, kind, &reply);
                *reply
            }
            Ok(Known::New) => {
                let result = self.attempt(call, kind);
                let keep = result.as_ref().err().is_none_or(|error| is_final(*error));
                let reply = result.map_or_else(failure, success);
                if keep {
                    self.remember(origin.session, origin.seq, &reply);
                }
                failpoints::hit(failpoints::EXECUTED);
                reply
            }
        }
    }

    /// Executes, or undoes everything that the operation wrote.
    fn attempt(&mut self, call: Call, kind: &op::Kind) -> Result<reply::Kind, FsError> {
        if needs_room(kind) && !self.group.engine().has_room() {
            return Err(FsError::NoSpace);
        }
        self.undoable(|namespace| namespace.dispatch(call, kind))
    }

    /// Runs `work`; when it fails, nothing of what it wrote remains.
    pub(super) fn undoable<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let counters = self.counters;
        self.group.begin();
        let result = work(self);
        if result.is_err() {
            self.group.undo();
            self.counters = counters;
        }
        result
    }

    /// A repeated operation that opened an inode: the reply says which.
    fn hold_again(&mut self, call: Call, kind: &op::Kind, reply: &pb::Reply) {
        let ino = match (kind, &reply.kind) {
            (op::Kind::Create(create), Some(reply::Kind::Entry(entry))) if create.open => {
                entry.attr.map(|attr| attr.ino)
            }
            (op::Kind::Open(open), Some(reply::Kind::Opened(_))) => Some(open.ino),
            _ => None,
        };
        if let Some(ino) = ino {
            self.sessions.hold(call.session, ino);
        }
    }

    fn dispatch(&mut self, call: Call, kind: &op::Kind) -> Result<reply::Kind, FsError> {
        use reply::Kind as Reply;
        match kind {
            op::Kind::Lookup(request) => self.lookup(request).map(Reply::Entry),
            op::Kind::GetAttr(request) => self.get_attr(request).map(Reply::Attr),
            op::Kind::SetAttr(request) => self.set_attr(request).map(Reply::Attr),
            op::Kind::ReadLink(request) => self.read_link(request).map(Reply::LinkTarget),
            op::Kind::Create(request) => self.create(call, request).map(Reply::Entry),
            op::Kind::Link(request) => self.link(request).map(Reply::Entry),
            op::Kind::Unlink(request) => self.unlink(request).map(Reply::Done),
            op::Kind::Rmdir(request) => self.rmdir(request).map(Reply::Done),
            op::Kind::Rename(request) => self.rename(request).map(Reply::Done),
            op::Kind::Open(request) => self.open_inode(call, request).map(Reply::Opened),
            op::Kind::Release(request) => {
                self.release(call.session, &request.inodes)?;
                Ok(Reply::Done(pb::Done {}))
            }
            op::Kind::ReadDir(request) => self.read_dir(request).map(Reply::DirPage),
            op::Kind::StatFs(request) => self.stat_fs(request.ino).map(Reply::StatFs),
            op::Kind::GetXattr(request) => self.get_xattr(request).map(Reply::XattrValue),
            op::Kind::SetXattr(request) => self.set_xattr(request).map(Reply::Done),
            op::Kind::ListXattr(request) => self.list_xattr(request).map(Reply::XattrNames),
            op::Kind::RemoveXattr(request) => self.remove_xattr(request).map(Reply::Done),
            op::Kind::GetFileManifest(request) => {
                self.get_file_manifest(request).map(Reply::ManifestPage)
            }
            op::Kind::Commit(request) => self.commit_file(request).map(Reply::Committed),
            op::Kind::CloneRange(request) => self.clone_range(request).map(Reply::Committed),
            op::Kind::Accessed(request) => self.accessed(request).map(Reply::Done),
            op::Kind::SetLock(request) => self.set_lock(call, request).map(Reply::Lock),
            op::Kind::TestLock(request) => self.test_lock(call, request).map(Reply::Lock),
            op::Kind::CancelLock(request) => {
                self.locks.cancel(call.session, request.ino, request.wait_id);
                Ok(Reply::Done(pb::Done {}))
            }
            op::Kind::Sync(_) | op::Kind::ReportNode(_) => Ok(Reply::Done(pb::Done {})),
        }
    }
}
