//! Places where a test may end the process, to prove that what was promised before is there after.
//!
//! `CAIRN_FAILPOINTS="engine-commit-before=exit@3;sync-after=exit"` ends the process (code 86) at the
//! third pass of the first and the first pass of the second, as kill -9 would: no destructors, no
//! flushing. Without the feature `failpoints` nothing of it is compiled.

/// An operation was executed, its group is not yet committed.
pub const EXECUTED: &str = "op-executed";
/// The engine is about to commit a group.
pub const COMMIT_BEFORE: &str = "engine-commit-before";
/// The engine has committed a group, no reply has gone out.
pub const COMMIT_AFTER: &str = "engine-commit-after";
/// The engine is about to make commits power-safe.
pub const SYNC_BEFORE: &str = "sync-before";
/// Commits are power-safe, nobody was told.
pub const SYNC_AFTER: &str = "sync-after";

/// A part of a dump or backup was loaded, others are still to come.
pub const LOAD_BATCH: &str = "load-batch";

/// All chunks of a backup are durable and noted, it is not finished.
pub const BACKUP_CHUNKS: &str = "backup-chunks";
/// A backup is finished here, no node has its root.
pub const BACKUP_FINISHED: &str = "backup-finished";
/// Nodes have the root of a backup, older ones are not forgotten.
pub const BACKUP_ROOTS: &str = "backup-roots";
/// Garbage collection: the new epoch is durable, no node has heard of it.
pub const GC_AFTER_EPOCH: &str = "gc-after-epoch";
/// The new floor is durable, nothing is marked.
pub const GC_AFTER_FLOOR: &str = "gc-after-floor";
/// Filters are made, no node has any.
pub const GC_AFTER_MARK: &str = "gc-after-mark";
/// The nodes have swept, the master has noted nothing.
pub const GC_AFTER_SWEEP: &str = "gc-after-sweep";
/// Every point that garbage collection passes, in their order.
pub const OF_GARBAGE: &[&str] = &[GC_AFTER_EPOCH, GC_AFTER_FLOOR, GC_AFTER_MARK, GC_AFTER_SWEEP];

/// A part of what a new or ending quota counts was moved, not yet committed.
pub const QUOTA_STEP: &str = "quota-step";

/// Every name that a serving master passes under any load, for tests that go through all of them.
pub const ALL: &[&str] = &[EXECUTED, COMMIT_BEFORE, COMMIT_AFTER, SYNC_BEFORE, SYNC_AFTER];

/// Ends the process when `CAIRN_FAILPOINTS` says so.
#[cfg(feature = "failpoints")]
pub fn hit(name: &str) {
    use std::{
        collections::HashMap,
        sync::{LazyLock, Mutex},
    };

    static LEFT: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(|| {
        let spec = std::env::var("CAIRN_FAILPOINTS").unwrap_or_default();
        let parse = |item: &str| {
            let (name, action) = item.trim().split_once('=')?;
            let hits = match action.split_once('@') {
                Some(("exit", count)) => count.parse().ok()?,
                Some(_) => return None,
                None => (action == "exit").then_some(1)?,
            };
            Some((name.to_owned(), hits))
        };
        Mutex::new(spec.split([';', ',']).filter_map(parse).collect())
    });

    let mut left = LEFT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(hits) = left.get_mut(name) {
        *hits = hits.saturating_sub(1);
        if *hits == 0 {
            // SAFETY: _exit ends the process without running anything of it.
            unsafe { libc::_exit(86) }
        }
    }
}

/// Nothing.
#[cfg(not(feature = "failpoints"))]
pub const fn hit(_name: &str) {}
