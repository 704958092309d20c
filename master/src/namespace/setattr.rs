//! SetAttr: chmod, chown, utimens, truncate.

use cairn_proto::{FileKind, FsError, Timestamp, limits::FILE_SIZE_MAX, pb};

use super::{Namespace, inodes::Inode};

/// Clears what write(2) and chown(2) clear: set-uid, and set-gid where the group may execute.
pub(super) fn kill_suid_sgid(inode: &mut Inode) {
    if inode.row.is_directory() {
        return;
    }
    inode.row.mode &= !libc::S_ISUID;
    if inode.row.mode & libc::S_IXGRP != 0 {
        inode.row.mode &= !libc::S_ISGID;
    }
}

pub(super) fn checked(time: Option<pb::Timestamp>) -> Result<Option<pb::Timestamp>, FsError> {
    Ok(time.map(Timestamp::try_from).transpose()?.map(pb::Timestamp::from))
}

impl Namespace {
    pub(super) fn set_attr(&mut self, request: &pb::SetAttr) -> Result<pb::AttrReply, FsError> {
        let (atime, mtime, ctime) =
            (checked(request.atime)?, checked(request.mtime)?, checked(request.ctime)?);
        let mut inode = self.inode(request.ino)?;
        let now = self.now();
        if request.kill_suid_sgid {
            kill_suid_sgid(&mut inode);
        }
        if let Some(mode) = request.mode {
            inode.row.mode = inode.row.mode & libc::S_IFMT | mode & 0o7777;
            self.chmod_acl(&mut inode)?;
        }
        inode.row.uid = request.uid.unwrap_or(inode.row.uid);
        inode.row.gid = request.gid.unwrap_or(inode.row.gid);
        if let Some(size) = request.size {
            self.set_size(&mut inode, size)?;
            self.touch_data(&mut inode, now);
        } else {
            self.touch(&mut inode, now);
        }
        let chosen = |time: Option<pb::Timestamp>, to_now: bool, before| {
            if to_now { Some(now) } else { time.or(before) }
        };
        inode.row.atime = chosen(atime, request.atime_now, inode.row.atime);
        inode.row.mtime = chosen(mtime, request.mtime_now, inode.row.mtime);
        inode.row.ctime = ctime.or(inode.row.ctime);
        self.put_inode(&inode);
        Ok(pb::AttrReply { attr: Some(inode.attr()) })
    }

    /// Truncates or extends. The caller touches and stores the inode.
    pub(super) fn set_size(&mut self, inode: &mut Inode, size: u64) -> Result<(), FsError> {
        match inode.row.kind() {
            Some(FileKind::Regular) => {}
            Some(FileKind::Directory) => return Err(FsError::IsDirectory),
            _ => return Err(FsError::InvalidArgument),
        }
        if size > FILE_SIZE_MAX {
            return Err(FsError::TooBig);
        }
        let before = (inode.row.size, inode.row.allocated);
        if size < inode.row.size {
            self.cut(inode, size)?;
        }
        inode.row.size = size;
        self.count_change(before, &inode.row);
        self.charge_change(before.1, inode)?;
        Ok(())
    }
}
