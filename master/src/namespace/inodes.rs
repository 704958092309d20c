//! Steps that operations share: reading and writing inodes, versions and times, directory entries,
//! the end of an inode.

use bytes::Bytes;
use cairn_proto::{FileKind, FileName, FsError, pb};

use super::Namespace;
use crate::{
    engine::EngineError,
    tables::{
        keys,
        rows::{CookieRow, DentryRow, INLINE_REFS, InodeRow},
        source,
    },
};

/// Cookies 0, 1 and 2 are left for the start, `.` and `..`.
pub(super) const FIRST_COOKIE: u64 = 3;

/// An inode that an operation works on.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) ino: u64,
    pub(super) row: InodeRow,
}

impl Inode {
    pub(super) const fn attr(&self) -> pb::Attr {
        self.row.attr(self.ino)
    }
}

pub(super) fn check_name(name: &Bytes) -> Result<Bytes, FsError> {
    FileName::try_from(name.clone()).map(|name| name.to_wire())
}

impl Namespace {
    pub(super) fn now(&self) -> pb::Timestamp {
        self.clock.now().into()
    }

    /// The inode with this number; ESTALE when it is gone.
    pub(super) fn inode(&mut self, ino: u64) -> Result<Inode, FsError> {
        if ino == 0 {
            return Err(FsError::InvalidArgument);
        }
        let row = source::row(&mut self.group, &keys::inode(ino))?.ok_or(FsError::Stale)?;
        Ok(Inode { ino, row })
    }

    pub(super) fn directory(&mut self, ino: u64) -> Result<Inode, FsError> {
        let directory = self.inode(ino)?;
        if directory.row.is_directory() { Ok(directory) } else { Err(FsError::NotDirectory) }
    }

    /// A directory that can take new names: a removed one cannot.
    pub(super) fn live_directory(&mut self, ino: u64) -> Result<Inode, FsError> {
        let directory = self.directory(ino)?;
        if directory.row.nlink == 0 { Err(FsError::NotFound) } else { Ok(directory) }
    }

    pub(super) fn put_inode(&mut self, inode: &Inode) {
        self.group.put_row(keys::inode(inode.ino), &inode.row);
    }

    /// Versions of a new incarnation are greater than all of the earlier ones, also than those that a
    /// power loss took back: no version ever names two states.
    fn next_version(&self, version: u64) -> u64 {
        (version + 1).max(self.ids.incarnation() << 32)
    }

    /// Something about the inode changed.
    pub(super) fn touch(&self, inode: &mut Inode, now: pb::Timestamp) {
        inode.row.ctime = Some(now);
        inode.row.version = self.next_version(inode.row.version);
    }

    /// The content of the inode changed.
    pub(super) fn touch_data(&self, inode: &mut Inode, now: pb::Timestamp) {
        self.touch(inode, now);
        inode.row.mtime = Some(now);
        inode.row.data_version = self.next_version(inode.row.data_version);
    }

    pub(super) fn dentry(
        &mut self,
        directory: u64,
        name: &[u8],
    ) -> Result<Option<DentryRow>, EngineError> {
        source::row(&mut self.group, &keys::dentry(directory, name))
    }

    fn put_entry(&mut self, directory: u64, name: &Bytes, entry: &DentryRow) {
        self.group.put_row(keys::dentry(directory, name), entry);
        let row = CookieRow { name: name.clone(), ino: entry.ino, kind: entry.kind };
        self.group.put_row(keys::cookie(directory, entry.cookie), &row);
    }

    /// Adds a name at the end of the directory. The caller touches and stores the directory.
    pub(super) fn add_entry(&mut self, directory: &mut Inode, name: &Bytes, ino: u64, mode: u32) {
        let cookie = directory.row.next_cookie.max(FIRST_COOKIE);
        directory.row.next_cookie = cookie + 1;
        directory.row.entries += 1;
        let entry = DentryRow { ino, kind: mode & libc::S_IFMT, cookie };
        self.put_entry(directory.ino, name, &entry);
    }

    /// Lets a name lead elsewhere; it keeps its place in listings.
    pub(super) fn redirect_entry(
        &mut self,
        directory: u64,
        name: &Bytes,
        entry: &DentryRow,
        ino: u64,
        mode: u32,
    ) {
        let entry = DentryRow { ino, kind: mode & libc::S_IFMT, cookie: entry.cookie };
        self.put_entry(directory, name, &entry);
    }

    /// Takes a name away. The caller touches and stores the directory.
    pub(super) fn remove_entry(&mut self, directory: &mut Inode, name: &Bytes, entry: &DentryRow) {
        self.group.delete(keys::dentry(directory.ino, name));
        self.group.delete(keys::cookie(directory.ino, entry.cookie));
        directory.row.entries = directory.row.entries.saturating_sub(1);
    }

    /// Counts a new inode.
    pub(super) fn count_new(&mut self, inode: &Inode) {
        *self.counter_of(&inode.row) += 1;
    }

    fn counter_of(&mut self, row: &InodeRow) -> &mut u64 {
        match row.kind() {
            Some(FileKind::Regular) => &mut self.counters.files,
            Some(FileKind::Directory) => &mut self.counters.directories,
            Some(
                FileKind::Symlink
                | FileKind::Fifo
                | FileKind::Socket
                | FileKind::CharDevice
                | FileKind::BlockDevice,
            )
            | None => &mut self.counters.other,
        }
    }

    /// Takes the new length and the new sum of stored bytes of a regular file into the counters.
    pub(super) fn count_change(&mut self, before: (u64, u64), row: &InodeRow) {
        let shift = |total: &mut u64, old: u64, new: u64| {
            *total = total.saturating_sub(old).saturating_add(new);
        };
        shift(&mut self.counters.logical_bytes, before.0, row.size);
        shift(&mut self.counters.referenced_bytes, before.1, row.allocated);
    }

    /// One name of the inode is gone: stores it, or ends it when that was the last.
    pub(super) fn drop_name(
        &mut self,
        mut inode: Inode,
        now: pb::Timestamp,
    ) -> Result<(), EngineError> {
        let gone = inode.row.is_directory() || inode.row.nlink <= 1;
        inode.row.nlink = if gone { 0 } else { inode.row.nlink - 1 };
        if gone && !self.is_open(inode.ino) {
            return self.free_inode(&inode);
        }
        self.touch(&mut inode, now);
        if gone {
            self.group.put(keys::orphan(inode.ino), Bytes::new());
            self.counters.orphans += 1;
        }
        self.put_inode(&inode);
        Ok(())
    }

    /// After a start everything counts as open until all known sessions have spoken.
    pub(super) fn is_open(&self, ino: u64) -> bool {
        !self.settled || self.sessions.is_held(ino)
    }

    /// Frees `ino` if it has no name and nobody holds it open.
    pub(super) fn free_if_orphan(&mut self, ino: u64) -> Result<(), EngineError> {
        if self.counters.orphans == 0 || self.is_open(ino) {
            return Ok(());
        }
        let row: Option<InodeRow> = source::row(&mut self.group, &keys::inode(ino))?;
        if let Some(row) = row.filter(|row| row.nlink == 0) {
            self.group.delete(keys::orphan(ino));
            self.counters.orphans = self.counters.orphans.saturating_sub(1);
            self.free_inode(&Inode { ino, row })?;
        }
        Ok(())
    }

    /// The end of an inode. Its segments and attributes are freed later, in steps.
    fn free_inode(&mut self, inode: &Inode) -> Result<(), EngineError> {
        let Inode { ino, row } = inode;
        self.group.delete(keys::inode(*ino));
        let inline_bytes = INLINE_REFS * u64::from(self.chunk_size);
        if (row.is_regular() && row.size > inline_bytes) || row.xattr_list > 0 {
            self.group.put(keys::dead(*ino), Bytes::new());
            self.reclaim.wake_dead(*ino);
        }
        let counter = self.counter_of(row);
        *counter = counter.saturating_sub(1);
        if row.is_regular() {
            let nothing = InodeRow::default();
            self.count_change((row.size, row.allocated), &nothing);
        }
        self.release_usage(inode)
    }
}
