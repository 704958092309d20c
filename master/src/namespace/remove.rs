//! Unlink and Rmdir.

use bytes::Bytes;
use cairn_proto::{FsError, pb};

use super::{
    Namespace,
    inodes::{Inode, check_name},
};
use crate::tables::rows::DentryRow;

impl Namespace {
    fn entry_to_remove(
        &mut self,
        parent: u64,
        name: &Bytes,
    ) -> Result<(Inode, Bytes, DentryRow, Inode), FsError> {
        let parent = self.directory(parent)?;
        let name = check_name(name)?;
        let entry = self.dentry(parent.ino, &name)?.ok_or(FsError::NotFound)?;
        let inode = self.inode(entry.ino)?;
        Ok((parent, name, entry, inode))
    }

    pub(super) fn unlink(&mut self, request: &pb::Unlink) -> Result<pb::Done, FsError> {
        let (mut parent, name, entry, inode) =
            self.entry_to_remove(request.parent, &request.name)?;
        if inode.row.is_directory() {
            return Err(FsError::IsDirectory);
        }
        let now = self.now();
        self.remove_entry(&mut parent, &name, &entry);
        self.touch_data(&mut parent, now);
        self.put_inode(&parent);
        self.drop_name(inode, now)?;
        Ok(pb::Done {})
    }

    pub(super) fn rmdir(&mut self, request: &pb::Rmdir) -> Result<pb::Done, FsError> {
        let (mut parent, name, entry, inode) =
            self.entry_to_remove(request.parent, &request.name)?;
        if !inode.row.is_directory() {
            return Err(FsError::NotDirectory);
        }
        if inode.row.entries != 0 {
            return Err(FsError::NotEmpty);
        }
        let now = self.now();
        self.remove_entry(&mut parent, &name, &entry);
        parent.row.nlink = parent.row.nlink.saturating_sub(1);
        self.touch_data(&mut parent, now);
        self.put_inode(&parent);
        self.drop_name(inode, now)?;
        Ok(pb::Done {})
    }
}
