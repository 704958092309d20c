//! statfs.

use cairn_proto::{FsError, Ino, pb, pb::op::Kind};

use super::{Caller, Vfs, answers};

/// How full the file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that files could take altogether.
    pub total_bytes: u64,
    /// Bytes that files can still take.
    pub free_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Inodes that a quota allows, if one does.
    pub inodes_total: Option<u64>,
}

impl Vfs {
    /// How full the file system is, or the quota that `ino` counts in.
    ///
    /// # Errors
    /// `TimedOut` when the master is away.
    pub async fn statfs(&self, caller: Caller, ino: Ino) -> Result<Usage, FsError> {
        match self.ask(caller, Kind::StatFs(pb::StatFs { ino: ino.get() })).await? {
            pb::reply::Kind::StatFs(s) => Ok(Usage {
                total_bytes: s.total_bytes,
                free_bytes: s.free_bytes.min(s.total_bytes),
                inodes: s.inodes,
                inodes_total: (s.inodes_total != 0).then_some(s.inodes_total),
            }),
            other => Err(answers::unexpected(&other)),
        }
    }
}
