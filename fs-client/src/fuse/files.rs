//! Operations on open files.

use std::time::Instant;

use bytes::Bytes;
use cairn_proto::FsError;
use fuser::{
    Errno, FileHandle, INodeNo, OpenFlags, ReplyData, ReplyEmpty, ReplyLseek, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

use super::{
    flags::{open_flags, space_change, write_how},
    read_reply::ReadReply,
    tasks::{Adapter, ino},
};
use crate::{
    activity::Operation as Op,
    vfs::{Fh, OpenMode, SeekTo},
};

/// Most that one copy is asked for: its answer has 32 bits, the caller comes back for the rest.
const COPY_MAX: u64 = 1 << 31;

impl Adapter {
    pub(super) fn open_file(
        &self,
        req: &Request,
        number: INodeNo,
        flags: OpenFlags,
        reply: ReplyOpen,
    ) {
        let (mode, notices) = (OpenMode::from_flags(flags.0), self.notices.clone());
        self.task(Op::Open, req, reply, async move |vfs, caller| {
            let opened = vfs.open(caller, ino(number)?, mode).await?;
            notices.opened(&vfs, &opened).await;
            Ok((opened.fh, open_flags(mode, &opened)))
        });
    }

    pub(super) fn read_file(
        &self,
        req: &Request,
        fh: FileHandle,
        offset: u64,
        size: u32,
        reply: ReplyData,
    ) {
        let Some(reply) = self.leaves(reply) else { return };
        let reply = ReadReply::new(req, reply, &self.device);
        let (fh, len) = (Fh(fh.0), size as usize);
        let since = Instant::now();
        let _runtime = self.runtime.enter();
        match self.vfs.read_now(fh, offset, len) {
            Some(result) => self.now(Op::Read, req, since, reply, result),
            None => self.task(Op::Read, req, reply, async move |vfs, _| {
                vfs.read_slices(fh, offset, len).await
            }),
        }
    }

    pub(super) fn write_file(
        &self,
        req: &Request,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        flags: (OpenFlags, WriteFlags),
        reply: ReplyWrite,
    ) {
        let Some(reply) = self.leaves(reply) else { return };
        let (fh, how) = (Fh(fh.0), write_how(flags.0, flags.1));
        let since = Instant::now();
        let _runtime = self.runtime.enter();
        if let Some(result) = self.vfs.write_now(fh, offset, data, how) {
            return self.now(Op::Write, req, since, reply, result);
        }
        let data = Bytes::copy_from_slice(data);
        self.task(Op::Write, req, reply, async move |vfs, _| {
            vfs.write_as(fh, offset, &data, how).await
        });
    }

    pub(super) fn sync_file(&self, req: &Request, fh: FileHandle, reply: ReplyEmpty) {
        self.task(Op::Fsync, req, reply, async move |vfs, _| vfs.fsync(Fh(fh.0)).await);
    }

    pub(super) fn change_space(
        &self,
        req: &Request,
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

    pub(super) fn seek(
        &self,
        req: &Request,
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

    pub(super) fn copy_range(
        &self,
        req: &Request,
        (from, from_offset): (FileHandle, u64),
        (to, to_offset): (FileHandle, u64),
        len: u64,
        reply: ReplyWrite,
    ) {
        let (from, to, len) = (Fh(from.0), Fh(to.0), len.min(COPY_MAX));
        self.task(Op::CopyFileRange, req, reply, async move |vfs, _| {
            let copied = vfs.copy_file_range(from, from_offset, to, to_offset, len).await?;
            usize::try_from(copied).map_err(|_| FsError::Overflow)
        });
    }
}
