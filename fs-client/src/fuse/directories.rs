//! Operations on open directories, and on the file system as a whole.

use std::{sync::Arc, time::Instant};

use fuser::{
    FileHandle, FopenFlags, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyOpen,
    ReplyStatfs, Request,
};

use super::{
    listing::PlusAnswer,
    tasks::{Adapter, ino},
};
use crate::{activity::Operation as Op, vfs::Fh};

impl Adapter {
    pub(super) fn open_directory(&self, req: &Request, number: INodeNo, reply: ReplyOpen) {
        self.task(Op::Opendir, req, reply, async move |vfs, _| {
            Ok((vfs.opendir(ino(number)?).await?, FopenFlags::empty()))
        });
    }

    pub(super) fn list(&self, req: &Request, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.task(Op::Readdir, req, reply, async move |vfs, caller| {
            vfs.readdir(caller, Fh(fh.0), offset, false).await
        });
    }

    /// Lists with attributes.
    pub(super) fn list_plus(
        &self,
        req: &Request,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let reply = PlusAnswer { reply, vfs: Arc::clone(&self.vfs), shown: self.shown };
        self.task(Op::Readdir, req, reply, async move |vfs, caller| {
            vfs.readdir(caller, Fh(fh.0), offset, true).await
        });
    }

    pub(super) fn release_directory(&self, req: &Request, fh: FileHandle, reply: ReplyEmpty) {
        let result = self.vfs.releasedir(Fh(fh.0));
        self.now(Op::Releasedir, req, Instant::now(), reply, result);
    }

    pub(super) fn sync_directory(&self, req: &Request, reply: ReplyEmpty) {
        self.task(Op::Fsyncdir, req, reply, async move |vfs, _| vfs.fsyncdir().await);
    }

    pub(super) fn usage(&self, req: &Request, number: INodeNo, reply: ReplyStatfs) {
        self.task(Op::Statfs, req, reply, async move |vfs, caller| {
            vfs.statfs(caller, ino(number)?).await
        });
    }
}
