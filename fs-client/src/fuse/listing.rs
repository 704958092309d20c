//! Directory entries as the kernel wants them.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::{Attr, FileKind, Timestamp};
use fuser::{Errno, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::{
    answer::{Answer, GENERATION},
    attr::{TTL, kind, to_fuse},
    shown::Shown,
};
use crate::vfs::{DirItem, DirSlice, Vfs};

impl Answer for ReplyDirectory {
    type Value = DirSlice;

    fn ok(mut self, slice: DirSlice) {
        for item in slice.items() {
            let name = OsStr::from_bytes(&item.name);
            if self.add(INodeNo(item.ino.get()), item.position, kind(item.kind), name) {
                break;
            }
        }
        Self::ok(self);
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

/// A listing with attributes. Every entry in it counts as a lookup.
pub struct PlusAnswer {
    /// The reply.
    pub reply: ReplyDirectoryPlus,
    /// Counts lookups, knows uncommitted lengths.
    pub vfs: Arc<Vfs>,
    /// What is shown instead of what is stored.
    pub shown: Shown,
}

impl Answer for PlusAnswer {
    type Value = DirSlice;

    fn ok(mut self, slice: DirSlice) {
        // What is left of the time for which the attributes may be believed.
        let ttl = TTL.saturating_sub(slice.asked_at().elapsed());
        for item in slice.items() {
            if !self.add(item, slice.asked_at(), ttl) {
                break;
            }
        }
        self.reply.ok();
    }

    fn fail(self, errno: Errno) {
        self.reply.error(errno);
    }
}

impl PlusAnswer {
    /// False when the entry did not fit.
    fn add(&mut self, item: &DirItem, asked: Instant, ttl: Duration) -> bool {
        let (attr, ttl) = match item.attr.map(|attr| self.vfs.merged(attr)) {
            // A page of the listing may be older than what the kernel knows: it may not keep that.
            Some(attr) if self.vfs.inodes().told_newer(&attr) => (attr, Duration::ZERO),
            Some(attr) => (attr, ttl),
            // `.` and `..`: the kernel reads nothing but type and number.
            None => (dot(item), Duration::ZERO),
        };
        let name = OsStr::from_bytes(&item.name);
        let ino = INodeNo(item.ino.get());
        if self.reply.add(
            ino,
            item.position,
            name,
            &ttl,
            &to_fuse(&self.shown.of(attr)),
            GENERATION,
        ) {
            return false;
        }
        if item.attr.is_some() {
            self.vfs.inodes().looked_up(item.ino);
            self.vfs.inodes().told(&attr, asked);
        }
        true
    }
}

fn dot(item: &DirItem) -> Attr {
    let never = Timestamp::default();
    Attr {
        ino: item.ino,
        mode: FileKind::Directory.mode_bits(),
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
        version: 0,
        data_version: 0,
        xattrs: None,
    }
}
