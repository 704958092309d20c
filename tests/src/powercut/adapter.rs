//! FUSE requests to [`Disk`] operations and back. Decides nothing, except that a frozen disk answers
//! nobody until its power is gone, and everybody with EIO from then on.

use std::{
    ffi::OsStr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::disk::{Disk, ROOT};

const TTL: Duration = Duration::from_secs(1);
const GENERATION: Generation = Generation(0);

/// Whether the disk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    /// Requests wait: their programs are being killed.
    Frozen,
    Off,
}

/// The disk and its power switch, shared between the FUSE thread and the test.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<(Power, Disk)>,
    switched: Condvar,
}

impl Shared {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { state: Mutex::new((Power::On, disk)), switched: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, (Power, Disk)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn switch(&self, power: Power) {
        self.lock().0 = power;
        self.switched.notify_all();
    }

    fn serve<T>(&self, operation: impl FnOnce(&mut Disk) -> Result<T, i32>) -> Result<T, Errno> {
        let state = self.lock();
        let mut state = self
            .switched
            .wait_while(state, |(power, _)| *power == Power::Frozen)
            .unwrap_or_else(PoisonError::into_inner);
        if state.0 == Power::Off {
            return Err(Errno::EIO);
        }
        operation(&mut state.1).map_err(Errno::from_i32)
    }
}

fn attr(disk: &Disk, ino: u64) -> Result<FileAttr, i32> {
    let inode = disk.inode(ino)?;
    let directory = inode.mode & libc::S_IFMT == libc::S_IFDIR;
    Ok(FileAttr {
        ino: INodeNo(ino),
        size: inode.content.size(),
        blocks: inode.content.allocated() / 512,
        atime: inode.mtime,
        mtime: inode.mtime,
        ctime: inode.mtime,
        crtime: inode.mtime,
        kind: if directory { FileType::Directory } else { FileType::RegularFile },
        perm: (inode.mode & 0o7777) as u16,
        nlink: if directory { 2 } else { 1 },
        uid: inode.uid,
        gid: inode.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

/// The file system of one mount of the disk.
#[derive(Debug)]
pub(crate) struct Adapter(pub(crate) Arc<Shared>);

fn empty(reply: ReplyEmpty, answer: Result<(), Errno>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn entry(reply: ReplyEntry, answer: Result<FileAttr, Errno>) {
    match answer {
        Ok(attr) => reply.entry(&TTL, &attr, GENERATION),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.0.serve(|disk| attr(disk, disk.lookup(parent.0, name)?)));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.serve(|disk| attr(disk, ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let answer = self.0.serve(|disk| {
            if let Some(size) = size {
                disk.truncate(ino.0, size)?;
            }
            let inode = disk.inode_mut(ino.0)?;
            if let Some(mode) = mode {
                inode.mode = inode.mode & libc::S_IFMT | mode & 0o7777;
            }
            inode.uid = uid.unwrap_or(inode.uid);
            inode.gid = gid.unwrap_or(inode.gid);
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => inode.mtime = time,
                Some(TimeOrNow::Now) => inode.mtime = SystemTime::now(),
                None => {}
            }
            attr(disk, ino.0)
        });
        match answer {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let owner = (req.uid(), req.gid());
        let answer = self.0.serve(|disk| {
            let ino = disk.create(parent.0, name, mode & !umask, owner)?;
            attr(disk, ino)
        });
        entry(reply, answer);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let owner = (req.uid(), req.gid());
        let mode = libc::S_IFDIR | mode & !umask & 0o7777;
        let answer = self.0.serve(|disk| {
            let ino = disk.create(parent.0, name, mode, owner)?;
            attr(disk, ino)
        });
        entry(reply, answer);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.serve(|disk| disk.remove(parent.0, name, false)));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.serve(|disk| disk.remove(parent.0, name, true)));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let answer = self.0.serve(|disk| {
            if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
                return Err(libc::EINVAL);
            }
            let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
            disk.rename((parent.0, name), (newparent.0, newname), no_replace)
        });
        empty(reply, answer);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mode = libc::S_IFREG | mode & !umask & 0o7777;
        let answer = self.0.serve(|disk| {
            let ino = disk.create(parent.0, name, mode, (req.uid(), req.gid()))?;
            disk.open(ino, false)?;
            attr(disk, ino)
        });
        match answer {
            Ok(attr) => {
                reply.created(&TTL, &attr, GENERATION, FileHandle(0), FopenFlags::empty());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let truncate = flags.0 & libc::O_TRUNC != 0;
        match self.0.serve(|disk| disk.open(ino.0, truncate)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.serve(|disk| disk.read(ino.0, offset, size as usize)) {
            Ok(data) => reply.data(&data),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.serve(|disk| disk.write(ino.0, offset, data)) {
            #[expect(clippy::cast_possible_truncation, reason = "at most the request's length")]
            Ok(written) => reply.written(written as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.0.serve(|_| Ok(())));
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let answer = self.0.serve(|disk| {
            disk.release(ino.0);
            Ok(())
        });
        empty(reply, answer);
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.0.serve(|disk| disk.sync(ino.0)));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.0.serve(|disk| disk.sync(ino.0)));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = self.0.serve(|disk| {
            let entries = disk.names.list(ino.0).ok_or(libc::ENOTDIR)?;
            let kind = |child| {
                if disk.names.is_directory(child) {
                    FileType::Directory
                } else {
                    FileType::RegularFile
                }
            };
            let dots = [
                (ino.0, FileType::Directory, ".".into()),
                (ROOT, FileType::Directory, "..".into()),
            ];
            let named = entries.iter().map(|(name, &child)| (child, kind(child), name.clone()));
            Ok(dots.into_iter().chain(named).collect::<Vec<_>>())
        });
        match entries {
            Ok(entries) => {
                for (at, (child, kind, name)) in (1..).zip(entries) {
                    if at > offset && reply.add(INodeNo(child), at, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.0.serve(|disk| Ok((disk.faults.capacity / 4096, disk.free() / 4096))) {
            Ok((all, free)) => reply.statfs(all, free, free, 1 << 20, 1 << 19, 4096, 255, 4096),
            Err(errno) => reply.error(errno),
        }
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.0.serve(|disk| disk.allocate(ino.0, offset, length, mode)));
    }
}
