//! [`InodeTable`]: what is remembered about inodes between two operations.
//!
//! An entry exists while the kernel remembers the inode (it counts lookups and tells with `forget`
//! when it no longer does), so the table is bounded by the kernel's own inode cache. Without a
//! kernel, nothing is entered. What is not known costs a question, never correctness.
//!
//! Which extended attributes an inode does not have comes with its attributes. File capabilities are
//! asked for before every write, long after that: their absence is believed as long as the inode is
//! remembered.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cairn_proto::{
    Attr, FileKind, Ino,
    xattr::{ALL, HAS_ANY, HAS_CAPABILITY, bit},
};

use crate::clock;

/// How long the absence of extended attributes may be believed without asking again. The kernel asks for
/// access lists when it has had the attributes for up to a second.
const XATTR_TRUST: Duration = Duration::from_secs(2);

/// Extended attributes that are known to be absent, as the bits of [`cairn_proto::xattr`].
#[derive(Debug, Default)]
struct Absent {
    bits: u32,
    /// When the master was asked.
    asked: Option<Instant>,
    /// When an attribute was last set or removed here: answers to earlier questions say nothing.
    changed: Option<Instant>,
}

#[derive(Debug, Default)]
struct Entry {
    lookups: u64,
    /// Version of the data that the kernel's page cache shows; 0: unknown.
    pages_version: u64,
    /// Version of the data that the attributes which the kernel was told last belong to.
    told_version: Option<u64>,
    /// The newest version of the inode that the kernel was told of.
    newest_told: u64,
    /// The attributes that the kernel was told last, of what is no regular file: of those, the file's
    /// state knows more.
    told: Option<Box<Attr>>,
    absent: Absent,
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

    /// The kernel was told `attr`, for which the master was asked at `asked`. Of two answers it keeps
    /// the one to the later question, so what was told last is what it knows, or it knows nothing.
    pub fn told(&self, attr: &Attr, asked: Instant) {
        if let Some(entry) = self.lock().get_mut(&attr.ino) {
            let older = entry.told_version.is_some_and(|told| told > attr.data_version);
            entry.told_version = if older { None } else { Some(attr.data_version) };
            if attr.kind() != FileKind::Regular && attr.version >= entry.newest_told {
                match &mut entry.told {
                    Some(told) => **told = *attr,
                    None => entry.told = Some(Box::new(*attr)),
                }
            }
            entry.newest_told = entry.newest_told.max(attr.version);
            if let Some(bits) = attr.xattrs
                && entry.absent.changed.is_none_or(|changed| changed < asked)
            {
                entry.absent.bits = ALL & !bits;
                entry.absent.asked = Some(asked);
            }
        }
    }

    /// The attributes of `ino`, which is no regular file, that the kernel was told last.
    pub fn last_told(&self, ino: Ino) -> Option<Attr> {
        self.lock().get(&ino).and_then(|entry| entry.told.as_deref().copied())
    }

    /// Names in directory `ino` have been changed here, which changes its times.
    pub fn directory_changed(&self, ino: Ino) {
        if let Some(told) = self.lock().get_mut(&ino).and_then(|entry| entry.told.as_mut()) {
            let now = clock::now();
            (told.mtime, told.ctime) = (now, now);
        }
    }

    /// The version of the data that the kernel's attributes of `ino` belong to.
    pub fn told_version(&self, ino: Ino) -> Option<u64> {
        self.lock().get(&ino).and_then(|entry| entry.told_version)
    }

    /// Whether the kernel was told newer attributes of the inode than `attr`.
    pub fn told_newer(&self, attr: &Attr) -> bool {
        self.lock().get(&attr.ino).is_some_and(|entry| {
            entry.newest_told > attr.version
                || entry.told_version.is_some_and(|told| told > attr.data_version)
        })
    }

    /// The kernel has dropped the attributes of `ino`.
    pub fn forget_told(&self, ino: Ino) {
        if let Some(entry) = self.lock().get_mut(&ino) {
            entry.told_version = None;
        }
    }

    /// The master says that `ino` has no attribute `name`.
    pub fn lacks_xattr(&self, ino: Ino, name: &[u8]) {
        // That one name of many is absent says nothing of the others.
        let bit = bit(name) & !HAS_ANY;
        if let Some(entry) = self.lock().get_mut(&ino)
            && bit == HAS_CAPABILITY
        {
            entry.absent.bits |= bit;
        }
    }

    /// Attribute `name` of `ino` is being set or removed, or has been, here.
    pub fn xattr_changed(&self, ino: Ino, name: &[u8]) {
        if let Some(entry) = self.lock().get_mut(&ino) {
            entry.absent.bits &= !(HAS_ANY | bit(name));
            entry.absent.changed = Some(Instant::now());
        }
    }

    /// Whether it is known without asking that `ino` has no attribute `name`.
    pub fn knows_absent(&self, ino: Ino, name: &[u8]) -> bool {
        self.is_absent(ino, bit(name))
    }

    /// Whether it is known without asking that `ino` has no attributes.
    pub fn knows_no_xattrs(&self, ino: Ino) -> bool {
        self.is_absent(ino, HAS_ANY)
    }

    fn is_absent(&self, ino: Ino, bit: u32) -> bool {
        self.lock().get(&ino).is_some_and(|entry| {
            let absent = &entry.absent;
            let fresh = absent.asked.is_some_and(|asked| asked.elapsed() < XATTR_TRUST);
            absent.bits & bit != 0 && (fresh || bit == HAS_CAPABILITY)
        })
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
pub(super) mod tests {
    use cairn_proto::{
        Timestamp,
        xattr::{ACCESS_ACL, CAPABILITY},
    };

    use super::*;

    pub(in crate::vfs) fn attr(version: u64, data_version: u64, xattrs: Option<u32>) -> Attr {
        let never = Timestamp::default();
        Attr {
            ino: Ino::ROOT,
            mode: libc::S_IFREG,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            allocated: 0,
            atime: never,
            mtime: never,
            ctime: never,
            btime: never,
            version,
            data_version,
            xattrs,
        }
    }

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
        table.told(&attr(1, 1, Some(0)), Instant::now());
        table.xattr_changed(Ino::ROOT, b"user.x");
        assert!(table.is_empty());
        assert_eq!(table.pages_version(Ino::ROOT), 0);
        assert!(!table.knows_no_xattrs(Ino::ROOT));
        table.looked_up(Ino::ROOT);
        table.set_pages_version(Ino::ROOT, 5);
        assert_eq!(table.pages_version(Ino::ROOT), 5);
    }

    #[test]
    fn of_two_answers_the_kernel_knows_the_later_or_none() {
        let table = InodeTable::default();
        table.looked_up(Ino::ROOT);
        let tell = |version| table.told(&attr(version, version, None), Instant::now());
        tell(4);
        tell(5);
        assert_eq!(table.told_version(Ino::ROOT), Some(5));
        assert!(table.told_newer(&attr(4, 4, None)) && !table.told_newer(&attr(5, 5, None)));
        assert!(table.told_newer(&attr(4, 5, None)), "an older mode of the same data");
        tell(4);
        assert_eq!(table.told_version(Ino::ROOT), None, "which of them the kernel keeps is open");
    }

    #[test]
    fn what_an_inode_lacks_is_known_without_asking() {
        let table = InodeTable::default();
        table.looked_up(Ino::ROOT);
        let knows = |name: &[u8]| table.knows_absent(Ino::ROOT, name);
        assert!(!knows(b"user.x") && !knows(CAPABILITY));
        let before = Instant::now();
        table.told(&attr(1, 1, Some(0)), Instant::now());
        assert!(knows(b"user.x") && knows(CAPABILITY) && knows(ACCESS_ACL));
        assert!(table.knows_no_xattrs(Ino::ROOT));
        table.xattr_changed(Ino::ROOT, b"user.x");
        assert!(!knows(b"user.x") && !table.knows_no_xattrs(Ino::ROOT));
        assert!(knows(CAPABILITY) && knows(ACCESS_ACL), "other kinds than the one that was set");
        table.told(&attr(1, 1, Some(0)), before);
        assert!(!knows(b"user.x"), "the question was asked before the change");
        table.told(&attr(2, 1, Some(HAS_ANY | HAS_CAPABILITY)), Instant::now());
        assert!(!knows(CAPABILITY) && knows(ACCESS_ACL));
        table.lacks_xattr(Ino::ROOT, CAPABILITY);
        assert!(knows(CAPABILITY));
    }
}
