//! Operations on an inode's attributes, the extended ones included.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};
use cairn_proto::FsError;
use fuser::{INodeNo, ReplyAttr, ReplyData, ReplyEmpty, ReplyXattr, Request};

use super::{
    answer::XattrAnswer,
    privileges::kills_sgid,
    tasks::{Adapter, ino},
};
use crate::{
    activity::Operation as Op,
    vfs::{AttrChange, is_acl},
};

impl Adapter {
    pub(super) fn attributes(&self, req: &Request, number: INodeNo, reply: ReplyAttr) {
        self.task(Op::Getattr, req, reply, async move |vfs, caller| {
            let asked = Instant::now();
            let attr = vfs.getattr(caller, ino(number)?).await?;
            vfs.inodes().told(&attr, asked);
            Ok(attr)
        });
    }

    pub(super) fn change_attributes(
        &self,
        req: &Request,
        number: INodeNo,
        change: AttrChange,
        reply: ReplyAttr,
    ) {
        self.task(Op::Setattr, req, reply, async move |vfs, caller| {
            let asked = Instant::now();
            let attr = vfs.setattr(caller, ino(number)?, change).await?;
            vfs.inodes().told(&attr, asked);
            Ok(attr)
        });
    }

    pub(super) fn link_target(&self, req: &Request, number: INodeNo, reply: ReplyData) {
        self.task(Op::Readlink, req, reply, async move |vfs, caller| {
            vfs.readlink(caller, ino(number)?).await
        });
    }

    pub(super) fn set_xattr(
        &self,
        req: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        reply: ReplyEmpty,
    ) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let (value, flags) = (Bytes::copy_from_slice(value), flags.cast_unsigned());
        self.task(Op::Setxattr, req, reply, async move |vfs, caller| {
            let ino = ino(number)?;
            let kill_sgid = kills_sgid(&vfs, caller, ino, &name).await?;
            vfs.setxattr(caller, ino, &name, value, flags, kill_sgid).await
        });
    }

    pub(super) fn xattr(
        &self,
        req: &Request,
        number: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let reply = XattrAnswer { reply, size };
        let hidden = self.shown.hides_acls() && is_acl(name.as_bytes());
        if hidden || ino(number).is_ok_and(|ino| self.vfs.xattr_absent(ino, name.as_bytes())) {
            let none = Err(FsError::NoAttribute);
            return self.now(Op::Getxattr, req, Instant::now(), reply, none);
        }
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.task(Op::Getxattr, req, reply, async move |vfs, caller| {
            vfs.getxattr(caller, ino(number)?, &name).await
        });
    }

    pub(super) fn xattr_names(&self, req: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let hide_acls = self.shown.hides_acls();
        self.task(Op::Listxattr, req, XattrAnswer { reply, size }, async move |vfs, caller| {
            let mut list = BytesMut::new();
            let names = vfs.listxattr(caller, ino(number)?).await?;
            for name in names.into_iter().filter(|name| !(hide_acls && is_acl(name))) {
                list.put(name);
                list.put_u8(0);
            }
            Ok(list.freeze())
        });
    }

    pub(super) fn remove_xattr(
        &self,
        req: &Request,
        number: INodeNo,
        name: &OsStr,
        reply: ReplyEmpty,
    ) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.task(Op::Removexattr, req, reply, async move |vfs, caller| {
            vfs.removexattr(caller, ino(number)?, &name).await
        });
    }
}
