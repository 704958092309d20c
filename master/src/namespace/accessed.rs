//! Accessed: the times of reads that mounts have noticed, many at once.

use cairn_proto::{FsError, pb};

use super::{Namespace, setattr::checked};
use crate::tables::{keys, rows::InodeRow, source};

/// Most of them in one operation.
const ACCESSES_MAX: usize = 4096;

impl Namespace {
    /// Takes later times over. Neither `ctime` nor a version changes: nobody's caches are wrong in
    /// anything but this time.
    pub(super) fn accessed(&mut self, request: &pb::Accessed) -> Result<pb::Done, FsError> {
        if request.accesses.len() > ACCESSES_MAX {
            return Err(FsError::InvalidArgument);
        }
        for access in &request.accesses {
            let Some(atime) = checked(access.atime)? else { continue };
            let key = keys::inode(access.ino);
            let row: Option<InodeRow> = source::row(&mut self.group, &key)?;
            let Some(mut row) = row else { continue };
            let later =
                |old: pb::Timestamp| (atime.seconds, atime.nanos) > (old.seconds, old.nanos);
            if row.atime.is_none_or(later) {
                row.atime = Some(atime);
                self.group.put_row(key, &row);
            }
        }
        Ok(pb::Done {})
    }
}
