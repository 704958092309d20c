//! Operations on names: looking them up, making, moving and removing them.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, time::Instant};

use bytes::Bytes;
use cairn_proto::FileName;
use fuser::{INodeNo, RenameFlags, ReplyCreate, ReplyEmpty, ReplyEntry, Request};

use super::{
    again,
    flags::open_flags,
    tasks::{Adapter, ino},
};
use crate::{
    activity::Operation as Op,
    vfs::{NewMode, OpenMode},
};

impl Adapter {
    pub(super) fn look_up(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.named(Op::Lookup, req, parent, name, reply, async |vfs, caller, parent, name| {
            let asked = Instant::now();
            let attr = vfs.lookup(caller, parent, &name).await?;
            Self::remember(&vfs, &attr, asked);
            Ok(attr)
        });
    }

    /// Makes a fifo, socket, device or regular file without opening it.
    pub(super) fn make_node(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: NewMode,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.named(Op::Mknod, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let asked = Instant::now();
            let attr = vfs.mknod(caller, parent, &name, mode, rdev).await?;
            Self::remember(&vfs, &attr, asked);
            Ok(attr)
        });
    }

    pub(super) fn make_directory(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: NewMode,
        reply: ReplyEntry,
    ) {
        self.named(Op::Mkdir, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let asked = Instant::now();
            let attr = vfs.mkdir(caller, parent, &name, mode).await?;
            Self::remember(&vfs, &attr, asked);
            Ok(attr)
        });
    }

    pub(super) fn make_symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = Bytes::copy_from_slice(target.as_os_str().as_bytes());
        self.named(
            Op::Symlink,
            req,
            parent,
            name,
            reply,
            async move |vfs, caller, parent, name| {
                let asked = Instant::now();
                let attr = vfs.symlink(caller, parent, &name, target).await?;
                Self::remember(&vfs, &attr, asked);
                Ok(attr)
            },
        );
    }

    pub(super) fn make_link(
        &self,
        req: &Request,
        number: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.named(Op::Link, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let asked = Instant::now();
            let attr = vfs.link(caller, ino(number)?, parent, &name).await?;
            Self::remember(&vfs, &attr, asked);
            Ok(attr)
        });
    }

    /// Makes a regular file and opens it.
    pub(super) fn make_file(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: NewMode,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (how, exclusive) = (OpenMode::from_flags(flags), flags & libc::O_EXCL != 0);
        self.named(Op::Create, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let asked = Instant::now();
            let made = vfs.create(caller, parent, &name, mode, how, exclusive).await?;
            Self::remember(&vfs, &made.opened.attr, asked);
            Ok((made, open_flags(how, &made.opened)))
        });
    }

    pub(super) fn move_name(
        &self,
        req: &Request,
        (parent, name): (INodeNo, &OsStr),
        (new_parent, new_name): (INodeNo, &OsStr),
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (new_name, resent) = (FileName::try_from(new_name.as_bytes()), again::is_resent(req));
        self.named(Op::Rename, req, parent, name, reply, async move |vfs, caller, parent, name| {
            let (new_parent, new_name) = (ino(new_parent)?, new_name?);
            let flags = flags.bits();
            let result = vfs.rename(caller, parent, &name, new_parent, &new_name, flags).await;
            again::renamed(resent, result, &vfs, caller, (new_parent, &new_name)).await
        });
    }

    pub(super) fn remove_file(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEmpty,
    ) {
        let resent = again::is_resent(req);
        self.named(Op::Unlink, req, parent, name, reply, async move |vfs, caller, parent, name| {
            again::removed(resent, vfs.unlink(caller, parent, &name).await)
        });
    }

    pub(super) fn remove_directory(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEmpty,
    ) {
        let resent = again::is_resent(req);
        self.named(Op::Rmdir, req, parent, name, reply, async move |vfs, caller, parent, name| {
            again::removed(resent, vfs.rmdir(caller, parent, &name).await)
        });
    }
}
