//! The one implementation of `fuser::Filesystem`. Every method decodes its arguments into owned
//! values and hands them on; none waits.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::{BufMut, Bytes, BytesMut};
use cairn_proto::{FileName, FsError};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::{
    answer::XattrAnswer,
    attr::time_change,
    flags::{open_flags, space_change},
    init,
    listing::PlusAnswer,
    tasks::{Adapter, ino},
};
use crate::{
    activity::Operation as Op,
    vfs::{AttrChange, Fh, OpenMode, SeekTo},
};

#[expect(unused_variables, reason = "the trait's arguments keep their names")]
impl Filesystem for Adapter {
    fn init(&mut self, req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        init::negotiate(config);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.named(Op::Lookup, req, parent, name, reply, async |vfs, caller, parent, name| {
            let attr = vfs.lookup(caller, parent, &name).await?;
            Self::remember(&vfs, &attr, false);
            Ok(attr)
        });
    }

    fn forget(&self, req: &Request, number: INodeNo, count: u64) {
        if let Ok(ino) = ino(number) {
            self.vfs.inodes().forget(ino, count);
        }
    }

    fn getattr(&self, req: &Request, number: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.task(Op::Getattr, req, reply, async move |vfs, caller| {
            let attr = vfs.getattr(caller, ino(number)?).await?;
            vfs.inodes().told(attr.ino, attr.data_version);
            Ok(attr)
        });
    }

    fn setattr(
        &self,
        req: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        crtime: Option<SystemTime>,
        chgtime: Option<SystemTime>,
        bkuptime: Option<SystemTime>,
        flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(time_change), mtime.map(time_change));
        let change = AttrChange { mode, uid, gid, size, atime, mtime, kill_suid_sgid: false };
        self.task(Op::Setattr, req, reply, async move |vfs, caller| {
            let attr = vfs.setattr(caller, ino(number)?, change).await?;
            vfs.inodes().told(attr.ino, attr.data_version);
            Ok(attr)
        });
    }

    fn readlink(&self, req: &Request, number: INodeNo, reply: ReplyData) {
        self.task(Op::Readlink, req, reply, async move |vfs, caller| {
            vfs.readlink(caller, ino(number)?).await
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.named(Op::Mknod, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let attr = vfs.mknod(caller, parent, &name, mode, rdev).await?;
            Self::remember(&vfs, &attr, true);
            Ok(attr)
        });
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
        self.named(Op::Mkdir, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let attr = vfs.mkdir(caller, parent, &name, mode).await?;
            Self::remember(&vfs, &attr, true);
            Ok(attr)
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.named(Op::Unlink, req, parent, name, reply, async |vfs, caller, parent, name| {
            vfs.unlink(caller, parent, &name).await
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.named(Op::Rmdir, req, parent, name, reply, async |vfs, caller, parent, name| {
            vfs.rmdir(caller, parent, &name).await
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = Bytes::copy_from_slice(target.as_os_str().as_bytes());
        self.named(
            Op::Symlink,
            req,
            parent,
            link_name,
            reply,
            async move |vfs, caller, parent, name| {
                let attr = vfs.symlink(caller, parent, &name, target).await?;
                Self::remember(&vfs, &attr, true);
                Ok(attr)
            },
        );
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let new_name = FileName::try_from(newname.as_bytes());
        self.named(Op::Rename, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let (new_parent, new_name) = (ino(newparent)?, new_name?);
            vfs.rename(caller, parent, &name, new_parent, &new_name, flags.bits()).await
        });
    }

    fn link(
        &self,
        req: &Request,
        number: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.named(
            Op::Link,
            req,
            newparent,
            newname,
            reply,
            async move |vfs, caller, parent, name| {
                let attr = vfs.link(caller, ino(number)?, parent, &name).await?;
                Self::remember(&vfs, &attr, false);
                Ok(attr)
            },
        );
    }

    fn open(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (mode, notices) = (OpenMode::from_flags(flags.0), self.notices.clone());
        self.task(Op::Open, req, reply, async move |vfs, caller| {
            let opened = vfs.open(caller, ino(number)?, mode).await?;
            notices.opened(&vfs, &opened).await;
            Ok((opened.fh, open_flags(mode, &opened)))
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (how, exclusive) = (OpenMode::from_flags(flags), flags & libc::O_EXCL != 0);
        self.named(Op::Create, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let made = vfs.create(caller, parent, &name, mode, how, exclusive).await?;
            Self::remember(&vfs, &made.opened.attr, made.created);
            Ok((made, open_flags(how, &made.opened)))
        });
    }

    fn read(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (fh, len) = (Fh(fh.0), size as usize);
        let since = Instant::now();
        let _runtime = self.runtime.enter();
        match self.vfs.read_now(fh, offset, len) {
            Some(result) => self.now(Op::Read, req, since, reply, result),
            None => {
                self.task(Op::Read, req, reply, async move |vfs, _| vfs.read(fh, offset, len).await)
            }
        }
    }

    fn write(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (fh, kill) = (Fh(fh.0), write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID));
        let since = Instant::now();
        let _runtime = self.runtime.enter();
        if let Some(result) = self.vfs.write_now(fh, offset, data, kill) {
            return self.now(Op::Write, req, since, reply, result);
        }
        let data = Bytes::copy_from_slice(data);
        self.task(Op::Write, req, reply, async move |vfs, _| {
            vfs.write_as(fh, offset, &data, kill).await
        });
    }

    fn flush(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.task(Op::Flush, req, reply, async move |vfs, _| vfs.flush(Fh(fh.0)).await);
    }

    fn release(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        flush: bool,
        reply: ReplyEmpty,
    ) {
        self.task(Op::Release, req, reply, async move |vfs, _| vfs.release(Fh(fh.0)).await);
    }

    fn fsync(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.task(Op::Fsync, req, reply, async move |vfs, _| vfs.fsync(Fh(fh.0)).await);
    }

    fn opendir(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.task(Op::Opendir, req, reply, async move |vfs, _| {
            Ok((vfs.opendir(ino(number)?).await?, FopenFlags::empty()))
        });
    }

    fn readdir(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.task(Op::Readdir, req, reply, async move |vfs, caller| {
            vfs.readdir(caller, Fh(fh.0), offset, false).await
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let reply = PlusAnswer { reply, vfs: Arc::clone(&self.vfs), shown: self.shown };
        self.task(Op::Readdir, req, reply, async move |vfs, caller| {
            vfs.readdir(caller, Fh(fh.0), offset, true).await
        });
    }

    fn releasedir(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let result = self.vfs.releasedir(Fh(fh.0));
        self.now(Op::Releasedir, req, Instant::now(), reply, result);
    }

    fn fsyncdir(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.task(Op::Fsyncdir, req, reply, async move |vfs, _| vfs.fsyncdir().await);
    }

    fn statfs(&self, req: &Request, number: INodeNo, reply: ReplyStatfs) {
        self.task(Op::Statfs, req, reply, async move |vfs, caller| vfs.statfs(caller).await);
    }

    fn setxattr(
        &self,
        req: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        position: u32,
        reply: ReplyEmpty,
    ) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let (value, flags) = (Bytes::copy_from_slice(value), flags.cast_unsigned());
        self.task(Op::Setxattr, req, reply, async move |vfs, caller| {
            vfs.setxattr(caller, ino(number)?, &name, value, flags).await
        });
    }

    fn getxattr(&self, req: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let reply = XattrAnswer { reply, size };
        if ino(number).is_ok_and(|ino| self.vfs.xattr_absent(ino, name.as_bytes())) {
            let none = Err(FsError::NoAttribute);
            return self.now(Op::Getxattr, req, Instant::now(), reply, none);
        }
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.task(Op::Getxattr, req, reply, async move |vfs, caller| {
            vfs.getxattr(caller, ino(number)?, &name).await
        });
    }

    fn listxattr(&self, req: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        self.task(Op::Listxattr, req, XattrAnswer { reply, size }, async move |vfs, caller| {
            let mut list = BytesMut::new();
            for name in vfs.listxattr(caller, ino(number)?).await? {
                list.put(name);
                list.put_u8(0);
            }
            Ok(list.freeze())
        });
    }

    fn removexattr(&self, req: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.task(Op::Removexattr, req, reply, async move |vfs, caller| {
            vfs.removexattr(caller, ino(number)?, &name).await
        });
    }

    /// Not asked while the kernel checks permissions itself, as it does.
    fn access(&self, req: &Request, number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn ioctl(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.task(Op::Fallocate, req, reply, async move |vfs, _| {
            vfs.fallocate(Fh(fh.0), offset, length, space_change(mode)?).await
        });
    }

    fn lseek(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let to = match whence {
            libc::SEEK_DATA => SeekTo::Data,
            libc::SEEK_HOLE => SeekTo::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        self.task(Op::Lseek, req, reply, async move |vfs, _| {
            let offset = u64::try_from(offset).map_err(|_| FsError::NoSuchDevice)?;
            vfs.lseek(Fh(fh.0), offset, to).await
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The answer has 32 bits; the caller comes back for the rest.
        let len = len.min(1 << 31);
        let (from, to) = (Fh(fh_in.0), Fh(fh_out.0));
        self.task(Op::CopyFileRange, req, reply, async move |vfs, _| {
            let copied = vfs.copy_file_range(from, offset_in, to, offset_out, len).await?;
            usize::try_from(copied).map_err(|_| FsError::Overflow)
        });
    }
}
