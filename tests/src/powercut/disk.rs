//! [`Disk`]: every operation of the fault disk on plain values; the FUSE adapter only converts.
//!
//! Errors are errno numbers. One lock around all of it, taken by the adapter.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    time::SystemTime,
};

use super::{
    content::Content,
    faults::{Faults, Step},
    names::{Names, SyncedBy},
};
use crate::rng::Rng;

/// Inode number of the root directory.
pub(crate) const ROOT: u64 = 1;

/// One file or directory, without its names.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) content: Content,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: SystemTime,
    opened: u64,
}

/// All of the disk.
#[derive(Debug)]
pub(crate) struct Disk {
    inodes: HashMap<u64, Inode>,
    pub(crate) names: Names,
    pub(crate) faults: Faults,
    next_ino: u64,
    used: u64,
}

type Answer<T> = Result<T, i32>;

impl Disk {
    pub(crate) fn new(synced_by: SyncedBy) -> Self {
        let mut disk = Self {
            inodes: HashMap::new(),
            names: Names::new(ROOT, synced_by),
            faults: Faults::none(),
            next_ino: ROOT,
            used: 0,
        };
        disk.add_inode(libc::S_IFDIR | 0o755, 0, 0);
        disk
    }

    fn add_inode(&mut self, mode: u32, uid: u32, gid: u32) -> u64 {
        let ino = self.next_ino;
        self.next_ino += 1;
        let mtime = SystemTime::now();
        let inode = Inode { content: Content::default(), mode, uid, gid, mtime, opened: 0 };
        self.inodes.insert(ino, inode);
        ino
    }

    pub(crate) fn inode(&self, ino: u64) -> Answer<&Inode> {
        self.inodes.get(&ino).ok_or(libc::ENOENT)
    }

    pub(crate) fn inode_mut(&mut self, ino: u64) -> Answer<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or(libc::ENOENT)
    }

    pub(crate) fn lookup(&self, dir: u64, name: &OsStr) -> Answer<u64> {
        self.names.get(dir, name).ok_or(libc::ENOENT)
    }

    pub(crate) fn create(
        &mut self,
        dir: u64,
        name: &OsStr,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> Answer<u64> {
        if self.names.get(dir, name).is_some() {
            return Err(libc::EEXIST);
        }
        if !self.names.is_directory(dir) {
            return Err(libc::ENOENT);
        }
        let ino = self.add_inode(mode, uid, gid);
        if mode & libc::S_IFMT == libc::S_IFDIR {
            self.names.add_directory(ino);
        }
        self.names.change(vec![(dir, name.to_owned(), Some(ino))]);
        Ok(ino)
    }

    pub(crate) fn remove(&mut self, dir: u64, name: &OsStr, directory: bool) -> Answer<()> {
        let ino = self.lookup(dir, name)?;
        match (self.names.list(ino), directory) {
            (Some(entries), true) if !entries.is_empty() => return Err(libc::ENOTEMPTY),
            (Some(_), false) => return Err(libc::EISDIR),
            (None, true) => return Err(libc::ENOTDIR),
            (Some(_), true) | (None, false) => {}
        }
        self.names.change(vec![(dir, name.to_owned(), None)]);
        Ok(())
    }

    pub(crate) fn rename(
        &mut self,
        (dir, name): (u64, &OsStr),
        (new_dir, new_name): (u64, &OsStr),
        no_replace: bool,
    ) -> Answer<()> {
        let ino = self.lookup(dir, name)?;
        if let Some(target) = self.names.get(new_dir, new_name) {
            if no_replace {
                return Err(libc::EEXIST);
            }
            if self.names.list(target).is_some_and(|entries| !entries.is_empty()) {
                return Err(libc::ENOTEMPTY);
            }
        }
        let (from, to): (OsString, OsString) = (name.to_owned(), new_name.to_owned());
        self.names.change(vec![(dir, from, None), (new_dir, to, Some(ino))]);
        Ok(())
    }

    pub(crate) fn open(&mut self, ino: u64, truncate: bool) -> Answer<()> {
        if truncate {
            self.truncate(ino, 0)?;
        }
        self.inode_mut(ino)?.opened += 1;
        Ok(())
    }

    pub(crate) fn release(&mut self, ino: u64) {
        if let Ok(inode) = self.inode_mut(ino) {
            inode.opened = inode.opened.saturating_sub(1);
        }
    }

    pub(crate) fn read(&mut self, ino: u64, offset: u64, len: usize) -> Answer<Vec<u8>> {
        self.faults.at(Step::Read)?;
        Ok(self.inode(ino)?.content.read(offset, len))
    }

    pub(crate) fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Answer<usize> {
        self.faults.at(Step::Write)?;
        let data = &data[..data.len().min(self.faults.longest_write)];
        let growth = self.inode(ino)?.content.growth(offset, data.len());
        self.take_space(growth)?;
        let inode = self.inode_mut(ino)?;
        inode.content.write(offset, data);
        inode.mtime = SystemTime::now();
        Ok(data.len())
    }

    pub(crate) fn truncate(&mut self, ino: u64, size: u64) -> Answer<()> {
        let inode = self.inode_mut(ino)?;
        let before = inode.content.allocated();
        inode.content.truncate(size);
        let after = inode.content.allocated();
        self.used = self.used - before + after;
        Ok(())
    }

    pub(crate) fn allocate(&mut self, ino: u64, offset: u64, len: u64, mode: i32) -> Answer<()> {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match mode {
            0 | libc::FALLOC_FL_KEEP_SIZE => {
                let before = self.inode(ino)?.content.allocated();
                self.take_space((offset + len).saturating_sub(before))?;
                self.inode_mut(ino)?.content.reserve(offset + len, mode != 0);
            }
            PUNCH => {
                let inode = self.inode_mut(ino)?;
                let before = inode.content.allocated();
                inode.content.zero(offset, len);
                let after = inode.content.allocated();
                self.used = self.used - before + after;
            }
            _ => return Err(libc::EOPNOTSUPP),
        }
        Ok(())
    }

    fn take_space(&mut self, growth: u64) -> Answer<()> {
        if growth > 0 && self.used + growth > self.faults.capacity {
            return Err(libc::ENOSPC);
        }
        self.used += growth;
        Ok(())
    }

    pub(crate) fn free(&self) -> u64 {
        self.faults.capacity.saturating_sub(self.used)
    }

    pub(crate) fn sync(&mut self, ino: u64) -> Answer<()> {
        self.faults.at(Step::Sync)?;
        self.inode_mut(ino)?.content.sync();
        self.names.sync(ino);
        self.collect(false);
        Ok(())
    }

    /// The power goes and comes back; nothing is open any more.
    pub(crate) fn cut(&mut self, rng: &mut Rng) {
        self.names.cut(rng);
        self.collect(true);
        let mut inodes: Vec<_> = self.inodes.iter_mut().collect();
        inodes.sort_by_key(|(ino, _)| **ino);
        for (_, inode) in inodes {
            inode.content.cut(rng);
        }
        self.used = self.inodes.values().map(|i| i.content.allocated()).sum();
    }

    /// Frees inodes that no image and no program can reach.
    fn collect(&mut self, nothing_open: bool) {
        let referenced = self.names.referenced();
        let (names, used) = (&mut self.names, &mut self.used);
        self.inodes.retain(|ino, inode| {
            let keep =
                *ino == ROOT || referenced.contains(ino) || (inode.opened > 0 && !nothing_open);
            if !keep {
                names.forget(*ino);
                *used = used.saturating_sub(inode.content.allocated());
            }
            if nothing_open {
                inode.opened = 0;
            }
            keep
        });
    }
}
