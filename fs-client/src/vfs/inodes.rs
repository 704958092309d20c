//! [`InodeTable`]: what is remembered about inodes between two operations.
//!
//! An entry exists while the kernel remembers the inode (it counts lookups and tells with `forget`
//! when it no longer does), so the table is bounded by the kernel's own inode cache. Without a
//! kernel, nothing is entered. What is not known costs a question, never correctness.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cairn_proto::Ino;

/// How long "has no extended attributes" may be believed without asking again.
const XATTR_TRUST: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Entry {
    lookups: u64,
    /// Version of the data that the kernel's page cache shows; 0: unknown.
    pages_version: u64,
    /// Version of the data that the attributes which the kernel was told last belong to.
    told_version: Option<u64>,
    /// When the inode was last known to have no extended attributes.
    no_xattrs: Option<Instant>,
    /// The inode had no file capabilities when the kernel asked first.
    no_capabilities: bool,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct InodeTable(Mutex<HashMap<Ino, Entry>>);

impl InodeTable {
    /// The kernel was told about `ino` once more.
    pub fn looked_up(&self, ino: Ino) {
        self.lock().entry(ino).or_default().lookups += 1;
    }

    /// The kernel has forgotten `count` of those.
    pub fn forget(&self, ino: Ino, count: u64) {
        let mut table = self.lock();
        if let Some(entry) = table.get_mut(&ino) {
            entry.lookups = entry.lookups.saturating_sub(count);
            if entry.lookups == 0 {
                table.remove(&ino);
            }
        }
    }

    /// Which version of the data the kernel's pages of `ino` show; 0 when that is not known.
    pub fn pages_version(&self, ino: Ino) -> u64 {
        self.lock().get(&ino).map_or(0, |entry| entry.pages_version)
    }

    /// The last handle of `ino` is gone, and the kernel's pages show `version`.
    pub fn set_pages_version(&self, ino: Ino, version: u64) {
        if let Some(entry) = self.lock().get_mut(&ino) {
            entry.pages_version = version;
        }
    }

    /// The kernel was told attributes that belong to `version` of the data. Of two answers it keeps
    /// the one to the later question, so what was told last is what it knows, or it knows nothing.
    pub fn told(&self, ino: Ino, version: u64) {
        if let Some(entry) = self.lock().get_mut(&ino) {
            let older = entry.told_version.is_some_and(|told| told > version);
            entry.told_version = if older { None } else { Some(version) };
        }
    }

    /// The version of the data that the kernel's attributes of `ino` belong to.
    pub fn told_version(&self, ino: Ino) -> Option<u64> {
        self.lock().get(&ino).and_then(|entry| entry.told_version)
    }

    /// Whether the kernel was told of a newer version than `version`.
    pub fn told_newer(&self, ino: Ino, version: u64) -> bool {
        self.told_version(ino).is_some_and(|told| told > version)
    }

    /// The kernel has dropped the attributes of `ino`.
    pub fn forget_told(&self, ino: Ino) {
        if let Some(entry) = self.lock().get_mut(&ino) {
            entry.told_version = None;
        }
    }

    /// The master says that `ino` has no extended attributes, or it was made here a moment ago.
    pub fn has_no_xattrs(&self, ino: Ino) {
        if let Some(entry) = self.lock().get_mut(&ino) {
            entry.no_xattrs = Some(Instant::now());
            entry.no_capabilities = true;
        }
    }

    /// The master says that `ino` has no file capabilities.
    pub fn has_no_capabilities(&self, ino: Ino) {
        if let Some(entry) = self.lock().get_mut(&ino) {
            entry.no_capabilities = true;
        }
    }

    /// An extended attribute of `ino` is set here.
    pub fn has_xattrs(&self, ino: Ino) {
        if let Some(entry) = self.lock().get_mut(&ino) {
            entry.no_xattrs = None;
            entry.no_capabilities = false;
        }
    }

    /// Whether `ino` was known to have no extended attributes a moment ago.
    pub fn knows_no_xattrs(&self, ino: Ino) -> bool {
        let since = self.lock().get(&ino).and_then(|entry| entry.no_xattrs);
        since.is_some_and(|since| since.elapsed() < XATTR_TRUST)
    }

    /// Whether `ino` is known to have no file capabilities. The kernel asks before every write.
    pub fn knows_no_capabilities(&self, ino: Ino) -> bool {
        self.lock().get(&ino).is_some_and(|entry| entry.no_capabilities)
    }

    /// Number of inodes remembered.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_live_as_long_as_the_kernel_counts_them() {
        let table = InodeTable::default();
        let ino = Ino::ROOT;
        table.looked_up(ino);
        table.looked_up(ino);
        table.forget(ino, 1);
        assert_eq!(table.len(), 1);
        table.forget(ino, 7);
        assert!(table.is_empty());
        table.forget(ino, 1);
    }

    #[test]
    fn nothing_is_kept_about_inodes_that_the_kernel_does_not_know() {
        let table = InodeTable::default();
        table.set_pages_version(Ino::ROOT, 5);
        table.has_no_xattrs(Ino::ROOT);
        assert!(table.is_empty());
        assert_eq!(table.pages_version(Ino::ROOT), 0);
        assert!(!table.knows_no_xattrs(Ino::ROOT));
        table.looked_up(Ino::ROOT);
        table.set_pages_version(Ino::ROOT, 5);
        table.has_no_xattrs(Ino::ROOT);
        assert_eq!(table.pages_version(Ino::ROOT), 5);
        assert!(table.knows_no_xattrs(Ino::ROOT) && table.knows_no_capabilities(Ino::ROOT));
        table.told(Ino::ROOT, 4);
        table.told(Ino::ROOT, 5);
        assert_eq!(table.told_version(Ino::ROOT), Some(5));
        assert!(table.told_newer(Ino::ROOT, 4) && !table.told_newer(Ino::ROOT, 5));
        table.told(Ino::ROOT, 4);
        assert_eq!(table.told_version(Ino::ROOT), None, "which of them the kernel keeps is open");
        table.has_xattrs(Ino::ROOT);
        assert!(!table.knows_no_xattrs(Ino::ROOT) && !table.knows_no_capabilities(Ino::ROOT));
    }
}
