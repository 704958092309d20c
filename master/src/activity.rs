//! [`Activity`]: what this master has done since it started. Status and metrics both show it.
//!
//! An operation counts from the moment in which its frame was read to the one in which its reply goes
//! out; an [`Underway`] travels with it. Every number but those of the present only grows.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use cairn_daemon::metrics::Latency;
use cairn_proto::pb::{self, op, reply};

use crate::namespace::{Counters, Namespace};

/// Names of the kinds of operations, as status and metrics show them; [`kind`] is the index.
const KINDS: [&str; 26] = [
    "lookup",
    "getattr",
    "setattr",
    "readlink",
    "create",
    "link",
    "unlink",
    "rmdir",
    "rename",
    "open",
    "release",
    "readdir",
    "statfs",
    "getxattr",
    "setxattr",
    "listxattr",
    "removexattr",
    "manifest",
    "commit",
    "clone_range",
    "sync",
    "report_node",
    "accessed",
    "set_lock",
    "test_lock",
    "cancel_lock",
];

const fn kind(op: &op::Kind) -> usize {
    match op {
        op::Kind::Lookup(_) => 0,
        op::Kind::GetAttr(_) => 1,
        op::Kind::SetAttr(_) => 2,
        op::Kind::ReadLink(_) => 3,
        op::Kind::Create(_) => 4,
        op::Kind::Link(_) => 5,
        op::Kind::Unlink(_) => 6,
        op::Kind::Rmdir(_) => 7,
        op::Kind::Rename(_) => 8,
        op::Kind::Open(_) => 9,
        op::Kind::Release(_) => 10,
        op::Kind::ReadDir(_) => 11,
        op::Kind::StatFs(_) => 12,
        op::Kind::GetXattr(_) => 13,
        op::Kind::SetXattr(_) => 14,
        op::Kind::ListXattr(_) => 15,
        op::Kind::RemoveXattr(_) => 16,
        op::Kind::GetFileManifest(_) => 17,
        op::Kind::Commit(_) => 18,
        op::Kind::CloneRange(_) => 19,
        op::Kind::Sync(_) => 20,
        op::Kind::ReportNode(_) => 21,
        op::Kind::Accessed(_) => 22,
        op::Kind::SetLock(_) => 23,
        op::Kind::TestLock(_) => 24,
        op::Kind::CancelLock(_) => 25,
    }
}

/// Operations of one kind.
#[derive(Debug, Default)]
pub(crate) struct Kind {
    /// How many, and how long each took; those that failed included.
    pub(crate) done: Latency,
    /// How many were answered with an error.
    pub(crate) failed: AtomicU64,
}

/// What the file system holds, as of the last commit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stored {
    /// Inodes and bytes.
    pub(crate) counters: Counters,
    /// Placement groups that were written to fewer nodes than wanted.
    pub(crate) degraded_groups: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    kinds: [Kind; KINDS.len()],
    underway: AtomicU64,
    stored: Mutex<Stored>,
    /// Groups of operations that were committed, and how long each took.
    pub(crate) commits: Latency,
    /// Syncs of the metadata to disk, and how long each took.
    pub(crate) syncs: Latency,
}

impl Activity {
    /// An operation has arrived.
    pub(crate) fn begin(self: &Arc<Self>, op: &op::Kind) -> Underway {
        self.underway.fetch_add(1, Relaxed);
        Underway { activity: Arc::clone(self), kind: kind(op), since: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespace has been opened or was committed.
    pub(crate) fn committed(&self, namespace: &Namespace) {
        let degraded_groups = namespace.degraded_count() as u64;
        *self.lock() = Stored { counters: namespace.counters(), degraded_groups };
    }

    /// What the file system holds.
    pub(crate) fn stored(&self) -> Stored {
        *self.lock()
    }

    /// Every kind by name.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&'static str, &Kind)> {
        KINDS.into_iter().zip(&self.kinds)
    }

    /// Operations that have not been answered.
    pub(crate) fn underway(&self) -> u64 {
        self.underway.load(Relaxed)
    }

    /// The kinds that occurred, for status.
    pub(crate) fn operations(&self) -> Vec<pb::OperationCount> {
        let count = |(name, kind): (&str, &Kind)| {
            let done = kind.done.count();
            let failed = kind.failed.load(Relaxed);
            (done > 0).then(|| pb::OperationCount { kind: name.to_owned(), done, failed })
        };
        self.kinds().filter_map(count).collect()
    }
}

/// One operation on its way. Dropping it without [`Underway::end`] (its client is gone, the master
/// stops) counts nothing.
#[derive(Debug)]
pub(crate) struct Underway {
    activity: Arc<Activity>,
    kind: usize,
    since: Instant,
}

impl Underway {
    /// Its reply goes out.
    pub(crate) fn end(self, reply: &pb::Reply) {
        let kind = &self.activity.kinds[self.kind];
        if matches!(reply.kind, Some(reply::Kind::Error(_))) {
            kind.failed.fetch_add(1, Relaxed);
        }
        kind.done.record(self.since.elapsed());
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.activity.underway.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::FsError;

    use super::*;
    use crate::op_thread::error_reply;

    #[test]
    fn operations_are_counted_by_kind_and_result() {
        let activity = Arc::new(Activity::default());
        assert!(activity.operations().is_empty());
        let sync = op::Kind::Sync(pb::Sync {});
        let unlink = op::Kind::Unlink(pb::Unlink::default());
        let done = pb::Reply { lease: None, kind: Some(reply::Kind::Done(pb::Done {})) };
        activity.begin(&sync).end(&done);
        activity.begin(&unlink).end(&done);
        activity.begin(&unlink).end(&error_reply(FsError::NotFound));
        let lost = activity.begin(&unlink);
        assert_eq!(activity.underway(), 1);
        drop(lost);
        assert_eq!(activity.underway(), 0);
        let count =
            |kind: &str, done, failed| pb::OperationCount { kind: kind.into(), done, failed };
        assert_eq!(activity.operations(), [count("unlink", 2, 1), count("sync", 1, 0)]);
    }
}
