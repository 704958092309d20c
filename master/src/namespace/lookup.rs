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

    /// How full the file system is, or the quota that `ino` counts in when that is less.
    pub(super) fn stat_fs(&mut self, ino: u64) -> Result<pb::StatFsReply, FsError> {
        let (mut total_bytes, mut free_bytes) = self.capacity;
        let room = self.quota_room(ino)?;
        if let Some((limit, left)) = room.bytes {
            let used = limit.saturating_sub(left);
            free_bytes = free_bytes.min(left);
            total_bytes = limit.min(used.saturating_add(free_bytes));
        }
        let counters = self.counters;
        let mut inodes = counters.files + counters.directories + counters.other;
        let mut inodes_total = 0;
        if let Some((limit, left)) = room.inodes {
            (inodes, inodes_total) = (limit.saturating_sub(left), limit);
        }
        let files = counters.files;
        Ok(pb::StatFsReply { total_bytes, free_bytes, inodes, files, inodes_total })
    }
}
