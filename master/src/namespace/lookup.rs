//! Lookup, GetAttr, ReadLink, StatFs: looking without changing.

use cairn_proto::{FileKind, FsError, pb};

use super::{Namespace, inodes::check_name};

impl Namespace {
    pub(super) fn lookup(&mut self, request: &pb::Lookup) -> Result<pb::Entry, FsError> {
        let directory = self.directory(request.parent)?;
        let name = check_name(&request.name)?;
        let entry = self.dentry(directory.ino, &name)?.ok_or(FsError::NotFound)?;
        let attr = self.inode(entry.ino)?.attr();
        Ok(pb::Entry { attr: Some(attr), ..pb::Entry::default() })
    }

    pub(super) fn get_attr(&mut self, request: &pb::GetAttr) -> Result<pb::AttrReply, FsError> {
        Ok(pb::AttrReply { attr: Some(self.inode(request.ino)?.attr()) })
    }

    pub(super) fn read_link(&mut self, request: &pb::ReadLink) -> Result<pb::LinkTarget, FsError> {
        let inode = self.inode(request.ino)?;
        match inode.row.kind() {
            Some(FileKind::Symlink) => Ok(pb::LinkTarget { target: inode.row.target }),
            _ => Err(FsError::InvalidArgument),
        }
    }

    pub(super) fn stat_fs(&self) -> pb::StatFsReply {
        let (total_bytes, free_bytes) = self.capacity;
        let counters = self.counters;
        pb::StatFsReply {
            total_bytes,
            free_bytes,
            inodes: counters.files + counters.directories + counters.other,
            files: counters.files,
        }
    }
}
