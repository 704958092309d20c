//! Extended attributes.

use bytes::Bytes;
use cairn_proto::{
    FsError,
    limits::{XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX},
    pb,
};

use super::{Namespace, inodes::Inode};
use crate::tables::{
    keys::{self, Table},
    source::{self, Source},
};

const CREATE: u32 = libc::XATTR_CREATE as u32;
const REPLACE: u32 = libc::XATTR_REPLACE as u32;

fn check(name: &Bytes) -> Result<(), FsError> {
    match name.len() {
        0 => Err(FsError::OutOfRange),
        n if n > XATTR_NAME_MAX => Err(FsError::OutOfRange),
        _ if name.contains(&0) => Err(FsError::InvalidArgument),
        _ => Ok(()),
    }
}

impl Namespace {
    pub(super) fn get_xattr(&mut self, request: &pb::GetXattr) -> Result<pb::XattrValue, FsError> {
        check(&request.name)?;
        let inode = self.inode(request.ino)?;
        if inode.row.xattr_list == 0 {
            return Err(FsError::NoAttribute);
        }
        let value = self.group.get(&keys::xattr(inode.ino, &request.name))?;
        Ok(pb::XattrValue { value: value.ok_or(FsError::NoAttribute)? })
    }

    pub(super) fn set_xattr(&mut self, request: &pb::SetXattr) -> Result<pb::Done, FsError> {
        check(&request.name)?;
        if request.flags & !(CREATE | REPLACE) != 0 {
            return Err(FsError::InvalidArgument);
        }
        if request.value.len() > XATTR_SIZE_MAX {
            return Err(FsError::ArgumentTooBig);
        }
        let mut inode = self.inode(request.ino)?;
        let key = keys::xattr(inode.ino, &request.name);
        let exists = self.group.get(&key)?.is_some();
        if exists && request.flags & CREATE != 0 {
            return Err(FsError::Exists);
        }
        if !exists && request.flags & REPLACE != 0 {
            return Err(FsError::NoAttribute);
        }
        if !exists {
            inode.row.xattr_list += request.name.len() as u64 + 1;
            if inode.row.xattr_list > XATTR_LIST_MAX as u64 {
                return Err(FsError::NoSpace);
            }
        }
        self.group.put(key, request.value.clone());
        self.store_touched(inode);
        Ok(pb::Done {})
    }

    pub(super) fn list_xattr(
        &mut self,
        request: &pb::ListXattr,
    ) -> Result<pb::XattrNames, FsError> {
        let inode = self.inode(request.ino)?;
        if inode.row.xattr_list == 0 {
            return Ok(pb::XattrNames::default());
        }
        let rows = self.group.page(&Table::Xattrs.of(inode.ino), XATTR_LIST_MAX)?;
        let name = |(key, _): &(Bytes, Bytes)| keys::name(key).ok_or_else(|| source::bad_key(key));
        Ok(pb::XattrNames { names: rows.iter().map(name).collect::<Result<_, _>>()? })
    }

    pub(super) fn remove_xattr(&mut self, request: &pb::RemoveXattr) -> Result<pb::Done, FsError> {
        check(&request.name)?;
        let mut inode = self.inode(request.ino)?;
        let key = keys::xattr(inode.ino, &request.name);
        if self.group.get(&key)?.is_none() {
            return Err(FsError::NoAttribute);
        }
        self.group.delete(key);
        let freed = request.name.len() as u64 + 1;
        inode.row.xattr_list = inode.row.xattr_list.saturating_sub(freed);
        self.store_touched(inode);
        Ok(pb::Done {})
    }

    fn store_touched(&mut self, mut inode: Inode) {
        let now = self.now();
        self.touch(&mut inode, now);
        self.put_inode(&inode);
    }
}
