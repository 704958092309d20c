//! setattr: chmod, chown, utimens, truncate.

use cairn_proto::{Attr, FsError, Ino, Timestamp, limits::FILE_SIZE_MAX, pb, pb::op::Kind};

use super::{Caller, Vfs, answers};

/// A new time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    /// This moment, by the master's clock.
    Now,
    /// A given moment.
    At(Timestamp),
}

/// What to change; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length: cut off or extended with a hole.
    pub size: Option<u64>,
    /// Time of the last read.
    pub atime: Option<TimeChange>,
    /// Time of the last write.
    pub mtime: Option<TimeChange>,
    /// Clear the set-user-id and set-group-id bits as write(2) does.
    pub kill_suid_sgid: bool,
}

impl Vfs {
    /// Changes attributes. What was written before is committed first, so that a new length cuts it
    /// and a new time stays.
    ///
    /// # Errors
    /// `TooBig` for lengths that no file may have; a write-back error of the data written before.
    pub async fn setattr(
        &self,
        caller: Caller,
        ino: Ino,
        change: AttrChange,
    ) -> Result<Attr, FsError> {
        if change.size.is_some_and(|size| size > FILE_SIZE_MAX) {
            return Err(FsError::TooBig);
        }
        let file = self.files.get(ino);
        if let Some(file) = &file
            && (change.size.is_some()
                || change.mtime.is_some()
                // A mode that is set now stays: an earlier write clears nothing of it.
                || change.mode.is_some() && file.loses_set_ids())
        {
            file.flush().await?;
        }
        if change.atime.is_some() {
            self.atimes.forget(ino);
        }
        let op = to_wire(ino, change);
        let attr = answers::attr_reply(self.ask(caller, Kind::SetAttr(op)).await?)?;
        match (&file, change.size) {
            (Some(file), Some(_)) => file.resized(attr),
            (Some(file), None) => file.absorb(attr),
            (None, _) => {}
        }
        Ok(self.merged(attr))
    }
}

fn to_wire(ino: Ino, change: AttrChange) -> pb::SetAttr {
    let at = |t: Option<TimeChange>| match t {
        Some(TimeChange::At(t)) => Some(t.into()),
        Some(TimeChange::Now) | None => None,
    };
    let now = |t: Option<TimeChange>| t == Some(TimeChange::Now);
    pb::SetAttr {
        ino: ino.get(),
        mode: change.mode.map(|m| m & 0o7777),
        uid: change.uid,
        gid: change.gid,
        size: change.size,
        atime: at(change.atime),
        mtime: at(change.mtime),
        atime_now: now(change.atime),
        mtime_now: now(change.mtime),
        ctime: None,
        kill_suid_sgid: change.kill_suid_sgid,
    }
}
