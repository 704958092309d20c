//! lseek (SEEK_DATA, SEEK_HOLE) and fallocate.

use cairn_proto::{FsError, limits::FILE_SIZE_MAX};

use super::{AttrChange, Fh, Vfs};
use crate::file::Origin;

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// The next byte that is in a chunk.
    Data,
    /// The next byte that is in a hole; the end of the file is one.
    Hole,
}

/// What fallocate(2) shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceChange {
    /// Make sure that writes to the range do not run out of space: extends the file unless
    /// `keep_size`. Space is not set aside; a full store is found out when writing.
    Allocate {
        /// Leave the length as it is.
        keep_size: bool,
    },
    /// Turn the range into zeros and give its chunks back.
    Zero {
        /// Leave the length as it is.
        keep_size: bool,
    },
}

impl Vfs {
    /// The first offset at or after `offset` that is what `to` says. Holes are whole chunks.
    ///
    /// # Errors
    /// `NoSuchDevice` when `offset` is at or past the end, or no data follows.
    pub async fn lseek(&self, fh: Fh, offset: u64, to: SeekTo) -> Result<u64, FsError> {
        let open = self.handles.file(fh)?;
        open.file().seek(open.caller, offset, to == SeekTo::Data).await
    }

    /// Prepares or clears `length` bytes at `offset`.
    ///
    /// # Errors
    /// `BadHandle`, `TooBig`, `InvalidArgument`; write-back errors.
    pub async fn fallocate(
        &self,
        fh: Fh,
        offset: u64,
        length: u64,
        change: SpaceChange,
    ) -> Result<(), FsError> {
        let open = self.handles.file(fh)?;
        if !open.mode.write {
            return Err(FsError::BadHandle);
        }
        self.check_locks(fh, &open)?;
        if length == 0 {
            return Err(FsError::InvalidArgument);
        }
        let end = offset.checked_add(length).filter(|end| *end <= FILE_SIZE_MAX);
        let end = end.ok_or(FsError::TooBig)?;
        let file = open.file();
        let origin = Origin { caller: open.caller, kill_suid_sgid: false };
        let keep_size = match change {
            SpaceChange::Allocate { keep_size } => keep_size,
            SpaceChange::Zero { keep_size } => {
                file.clear(origin, offset, end).await?;
                keep_size
            }
        };
        if !keep_size && file.size() < end {
            let grow = AttrChange { size: Some(end), ..AttrChange::default() };
            self.setattr(open.caller, file.ino(), grow).await?;
        }
        Ok(())
    }
}
