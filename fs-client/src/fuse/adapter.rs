//! The one implementation of `fuser::Filesystem`. Every method hands what it is asked on to a method of
//! its theme's file, which decodes it into owned values; none waits.

use std::{ffi::OsStr, path::Path, time::SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::{
    attr::time_change,
    init,
    locks::Wish,
    tasks::{Adapter, ino},
};
use crate::vfs::{AttrChange, NewMode};

#[expect(unused_variables, reason = "the trait's arguments keep their names")]
impl Filesystem for Adapter {
    fn init(&mut self, req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        init::negotiate(config);
        // The kernel knows the root without having looked it up, and never forgets it.
        self.vfs.inodes().looked_up(self.vfs.session().root());
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.look_up(req, parent, name, reply);
    }

    fn forget(&self, req: &Request, number: INodeNo, count: u64) {
        if let Ok(ino) = ino(number) {
            self.vfs.inodes().forget(ino, count);
        }
    }

    fn getattr(&self, req: &Request, number: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.attributes(req, number, reply);
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
        self.change_attributes(req, number, change, reply);
    }

    fn readlink(&self, req: &Request, number: INodeNo, reply: ReplyData) {
        self.link_target(req, number, reply);
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
        self.make_node(req, parent, name, NewMode { bits: mode, umask }, rdev, reply);
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
        self.make_directory(req, parent, name, NewMode { bits: mode, umask }, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove_file(req, parent, name, reply);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove_directory(req, parent, name, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.make_symlink(req, parent, link_name, target, reply);
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
        self.move_name(req, (parent, name), (newparent, newname), flags, reply);
    }

    fn link(
        &self,
        req: &Request,
        number: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.make_link(req, number, newparent, newname, reply);
    }

    fn open(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.open_file(req, number, flags, reply);
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
        self.make_file(req, parent, name, NewMode { bits: mode, umask }, flags, reply);
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
        self.read_file(req, fh, offset, size, reply);
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
        self.write_file(req, fh, offset, data, (flags, write_flags), reply);
    }

    fn flush(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.close_file(req, fh, lock_owner, reply);
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
        self.release_file(req, fh, reply);
    }

    fn fsync(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.sync_file(req, fh, reply);
    }

    fn opendir(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.open_directory(req, number, reply);
    }

    fn readdir(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list(req, fh, offset, reply);
    }

    fn readdirplus(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list_plus(req, fh, offset, reply);
    }

    fn releasedir(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.release_directory(req, fh, reply);
    }

    fn fsyncdir(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.sync_directory(req, reply);
    }

    fn statfs(&self, req: &Request, number: INodeNo, reply: ReplyStatfs) {
        self.usage(req, number, reply);
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
        self.set_xattr(req, number, name, value, flags, reply);
    }

    fn getxattr(&self, req: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.xattr(req, number, name, size, reply);
    }

    fn listxattr(&self, req: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        self.xattr_names(req, number, size, reply);
    }

    fn removexattr(&self, req: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove_xattr(req, number, name, reply);
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
        self.change_space(req, fh, offset, length, mode, reply);
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
        self.seek(req, fh, offset, whence, reply);
    }

    fn getlk(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        self.test_lock(req, Wish { fh, owner, start, end, typ, pid, wait: false }, reply);
    }

    fn setlk(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        self.set_lock(req, Wish { fh, owner, start, end, typ, pid, wait }, reply);
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
        self.copy_range(req, (fh_in, offset_in), (fh_out, offset_out), len, reply);
    }
}
