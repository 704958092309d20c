//! Extended attributes. Access control lists are among them: [`super::acls`] says what else they do.

use bytes::Bytes;
use cairn_proto::{
    FsError,
    limits::{XATTR_LIST_MAX, XATTR_SIZE_MAX},
    pb,
    xattr::{ACCESS_ACL, CAPABILITY, DEFAULT_ACL, HAS_ANY, bit, check_name as check},
};

use super::{Namespace, inodes::Inode};
use crate::tables::{
    keys::{self, Table},
    source::{self, Source},
};

const CREATE: u32 = libc::XATTR_CREATE as u32;
const REPLACE: u32 = libc::XATTR_REPLACE as u32;

impl Namespace {
    pub(super) fn get_xattr(&mut self, request: &pb::GetXattr) -> Result<pb::XattrValue, FsError> {
        check(&request.name)?;
        let inode = self.inode(request.ino)?;
        if inode.row.xattr_bits() & bit(&request.name) == 0 {
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
        match request.name.as_ref() {
            // As in the kernel, lists are set whatever the flags say.
            ACCESS_ACL => self.set_access_acl(&mut inode, request)?,
            DEFAULT_ACL => self.set_default_acl(&mut inode, request)?,
            _ => {
                let exists = self.group.get(&keys::xattr(inode.ino, &request.name))?.is_some();
                if exists && request.flags & CREATE != 0 {
                    return Err(FsError::Exists);
                }
                if !exists && request.flags & REPLACE != 0 {
                    return Err(FsError::NoAttribute);
                }
                self.put_xattr(&mut inode, &request.name, request.value.clone())?;
            }
        }
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
        let is_acl = matches!(request.name.as_ref(), ACCESS_ACL | DEFAULT_ACL);
        // A list that is not there can be removed, any other attribute cannot: so Linux has it.
        if !self.drop_xattr(&mut inode, &request.name)? && !is_acl {
            return Err(FsError::NoAttribute);
        }
        self.store_touched(inode);
        Ok(pb::Done {})
    }

    /// Stores an attribute. The caller stores the inode.
    pub(super) fn put_xattr(
        &mut self,
        inode: &mut Inode,
        name: &[u8],
        value: Bytes,
    ) -> Result<(), FsError> {
        let key = keys::xattr(inode.ino, name);
        self.know_bits(inode)?;
        if self.group.get(&key)?.is_none() {
            inode.row.xattr_list += name.len() as u64 + 1;
            if inode.row.xattr_list > XATTR_LIST_MAX as u64 {
                return Err(FsError::NoSpace);
            }
        }
        inode.row.xattrs |= HAS_ANY | bit(name);
        self.group.put(key, value);
        Ok(())
    }

    /// Removes an attribute; whether it was there. The caller stores the inode.
    pub(super) fn drop_xattr(&mut self, inode: &mut Inode, name: &[u8]) -> Result<bool, FsError> {
        let key = keys::xattr(inode.ino, name);
        if inode.row.xattr_list == 0 || self.group.get(&key)?.is_none() {
            return Ok(false);
        }
        self.know_bits(inode)?;
        self.group.delete(key);
        let freed = name.len() as u64 + 1;
        inode.row.xattr_list = inode.row.xattr_list.saturating_sub(freed);
        let gone = if inode.row.xattr_list == 0 { HAS_ANY } else { 0 };
        inode.row.xattrs &= !(bit(name) & !HAS_ANY | gone);
        Ok(true)
    }

    /// Finds out what an older version did not note.
    fn know_bits(&mut self, inode: &mut Inode) -> Result<(), FsError> {
        if inode.row.xattr_list != 0 && inode.row.xattrs == 0 {
            inode.row.xattrs = HAS_ANY;
            for name in [CAPABILITY, ACCESS_ACL, DEFAULT_ACL] {
                if self.group.get(&keys::xattr(inode.ino, name))?.is_some() {
                    inode.row.xattrs |= bit(name);
                }
            }
        }
        Ok(())
    }

    fn store_touched(&mut self, mut inode: Inode) {
        let now = self.now();
        self.touch(&mut inode, now);
        self.put_inode(&inode);
    }
}
