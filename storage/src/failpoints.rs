//! Named places where a test can make the process die, to see what a crash there leaves behind.
//!
//! With the feature `failpoints`, `CAIRN_FAILPOINTS="NAME=exit"` or `"NAME=exit@N"` (several separated
//! by `;`) ends the process at the first or the Nth time the point is reached, as kill -9 would: no
//! destructors, no flushing. Without the feature [`hit`] is empty.

/// Data is verified, nothing is written.
pub const AFTER_HASH: &str = "storage.after-hash";
/// Records are written, not synced.
pub const AFTER_APPEND: &str = "storage.after-append";
/// Records are durable, the index does not know them.
pub const AFTER_SYNC: &str = "storage.after-sync";
/// The index knows the records, nobody has been answered.
pub const AFTER_INDEX: &str = "storage.after-index";
/// The full segment is sealed, the next does not exist.
pub const IN_ROLL_OVER: &str = "storage.in-roll-over";
/// A chunk is found to be damaged, nothing knows of it.
pub const DAMAGE_BEFORE_NOTE: &str = "storage.damage-before-note";
/// That a chunk is damaged is noted durably.
pub const DAMAGE_AFTER_NOTE: &str = "storage.damage-after-note";
/// A copy has arrived from another node, it is not stored.
pub const PULL_AFTER_FETCH: &str = "storage.pull-after-fetch";
/// Every home has confirmed, nothing is dropped.
pub const DROP_BEFORE_REMOVE: &str = "storage.drop-before-remove";
/// Chunks are dropped, nobody has been told.
pub const DROP_AFTER_REMOVE: &str = "storage.drop-after-remove";
/// Chunks are erased in the index, which is not synced.
pub const AFTER_ERASE: &str = "storage.after-erase";
/// The index is synced, the erased records are still whole.
pub const AFTER_ERASE_SYNC: &str = "storage.after-erase-sync";
/// The erased records have durable tombstones, their payloads are still there.
pub const AFTER_TOMBSTONE: &str = "storage.after-tombstone";
/// Their payloads are holes.
pub const AFTER_PUNCH: &str = "storage.after-punch";
/// Records of a segment that is being rewritten have durable copies, the index names the old ones.
pub const AFTER_COPY: &str = "storage.after-copy";
/// The index names the copies.
pub const AFTER_RELOCATE: &str = "storage.after-relocate";
/// The index knows nothing of a segment any more, its file is there.
pub const BEFORE_REMOVE: &str = "storage.before-remove";
/// The file of a segment is removed.
pub const AFTER_REMOVE: &str = "storage.after-remove";
/// Every point that garbage collection passes, in their order.
pub const OF_GARBAGE: &[&str] = &[
    AFTER_ERASE,
    AFTER_ERASE_SYNC,
    AFTER_TOMBSTONE,
    AFTER_PUNCH,
    AFTER_COPY,
    AFTER_RELOCATE,
    BEFORE_REMOVE,
    AFTER_REMOVE,
];
/// The directory has its skeleton, no FORMAT file.
pub const IN_FORMAT: &str = "storage.in-format";

/// The root of a backup is written, it does not have its name.
pub const IN_BACKUP: &str = "storage.in-backup";

/// Dies here if told to.
#[cfg(feature = "failpoints")]
pub fn hit(point: &'static str) {
    use std::{
        collections::HashMap,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };
    static ARMED: LazyLock<HashMap<String, AtomicU64>> = LazyLock::new(|| {
        let text = std::env::var("CAIRN_FAILPOINTS").unwrap_or_default();
        text.split(';')
            .filter_map(|rule| {
                let (name, action) = rule.trim().split_once('=')?;
                let nth = match action.split_once('@') {
                    Some(("exit", nth)) => nth.parse().ok()?,
                    None if action == "exit" => 1,
                    _ => return None,
                };
                Some((name.to_owned(), AtomicU64::new(nth)))
            })
            .collect()
    });
    if let Some(left) = ARMED.get(point)
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // SAFETY: _exit ends the process without running anything of it.
        unsafe { libc::_exit(86) }
    }
}

/// Dies here if told to; not in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn hit(_point: &'static str) {}
