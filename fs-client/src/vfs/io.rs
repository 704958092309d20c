//! read, write, flush, fsync.

use bytes::Bytes;
use cairn_proto::{FsError, limits::FILE_SIZE_MAX};

use super::{Fh, Vfs, open::OpenFile};
use crate::file::{Origin, Slices, ToldBy};

/// What is special about a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteHow {
    /// The commit clears the set-user-id and set-group-id bits.
    pub kill_suid_sgid: bool,
    /// To the end of the file, wherever that is by then. Only where the handle is for it: see
    /// [`OpenMode::is_uncached`](super::OpenMode::is_uncached).
    pub append: bool,
    /// Answered when the bytes are power-safe. Left to the cache above where there is one: it syncs.
    pub durable: bool,
    /// Of pages changed through a mapping. Nobody waits for it who could be told of earlier errors.
    pub mapped: bool,
}

impl Vfs {
    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// `BadHandle` when the handle is not for reading; `Io` when no node has an intact copy.
    pub async fn read(&self, fh: Fh, offset: u64, len: usize) -> Result<Bytes, FsError> {
        self.read_slices(fh, offset, len).await.map(Slices::joined)
    }

    /// As [`Vfs::read`], without a copy.
    ///
    /// # Errors
    /// As for [`Vfs::read`].
    pub async fn read_slices(&self, fh: Fh, offset: u64, len: usize) -> Result<Slices, FsError> {
        let open = self.readable(fh)?;
        self.file_was_read(&open);
        open.file().read(open.caller, &open.ahead, offset, len).await
    }

    /// As [`Vfs::read_slices`] when the answer is in memory, otherwise `None`.
    pub fn read_now(&self, fh: Fh, offset: u64, len: usize) -> Option<Result<Slices, FsError>> {
        match self.readable(fh) {
            Ok(open) => {
                let bytes = open.file().read_now(&open.ahead, offset, len)?;
                self.file_was_read(&open);
                Some(Ok(bytes))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Writes all of `data` at `offset`, or at the end of the file when the handle is for appending.
    /// It is seen by every handle of this mount at once and committed later (see the module's head of
    /// [`crate::file`]).
    ///
    /// # Errors
    /// `BadHandle` when the handle is not for writing; `TooBig`; a write-back error of earlier
    /// writes, which every handle tells once by a write.
    pub async fn write(&self, fh: Fh, offset: u64, data: &[u8]) -> Result<usize, FsError> {
        let append = self.handles.file(fh)?.mode.append;
        self.write_as(fh, offset, data, WriteHow { append, ..WriteHow::default() }).await
    }

    /// [`Vfs::write`] with everything that can be special about it.
    ///
    /// # Errors
    /// As [`Vfs::write`].
    pub async fn write_as(
        &self,
        fh: Fh,
        offset: u64,
        data: &[u8],
        how: WriteHow,
    ) -> Result<usize, FsError> {
        let open = self.writable(fh, offset, data.len(), how)?;
        let origin = Origin { caller: open.caller, kill_suid_sgid: how.kill_suid_sgid };
        if how.append && open.mode.is_uncached() {
            open.file().append(origin, data).await?;
        } else {
            open.file().write(origin, offset, data).await?;
        }
        if how.durable && open.mode.is_uncached() {
            // One request of several that a write(2) may have been cut into.
            self.sync_file(&open, ToldBy::Write).await?;
        }
        Ok(data.len())
    }

    /// As [`Vfs::write_as`] when nothing has to be waited for, otherwise `None` and nothing is done.
    pub fn write_now(
        &self,
        fh: Fh,
        offset: u64,
        data: &[u8],
        how: WriteHow,
    ) -> Option<Result<usize, FsError>> {
        match self.writable(fh, offset, data.len(), how) {
            Err(error) => Some(Err(error)),
            Ok(open) if (how.append || how.durable) && open.mode.is_uncached() => None,
            Ok(open) => {
                let origin = Origin { caller: open.caller, kill_suid_sgid: how.kill_suid_sgid };
                open.file().write_now(origin, offset, data).then_some(Ok(data.len()))
            }
        }
    }

    /// Commits what was written, so that every open after this sees it: what close(2) does.
    ///
    /// # Errors
    /// A write-back error that this handle has told to no close and no sync.
    pub async fn flush(&self, fh: Fh) -> Result<(), FsError> {
        let open = self.handles.file(fh)?;
        if !open.mode.write {
            return Ok(());
        }
        // The outcome is in the file's error count, which the check below reads.
        let _outcome = open.file().flush().await;
        open.check_errors(ToldBy::Close)
    }

    /// Commits what was written and waits until the master has it power-safe. The chunks are
    /// power-safe before they are committed.
    ///
    /// # Errors
    /// A write-back error that this handle has told to no sync, whatever writes and closes have told;
    /// `TimedOut` when the master does not answer.
    pub async fn fsync(&self, fh: Fh) -> Result<(), FsError> {
        let open = self.handles.file(fh)?;
        self.sync_file(&open, ToldBy::Sync).await
    }

    async fn sync_file(&self, open: &OpenFile, by: ToldBy) -> Result<(), FsError> {
        // The outcome is in the file's error count, which the check reads.
        let safe = open.file().flush_durably().await.unwrap_or(false);
        open.check_errors(by)?;
        if safe && self.session.is_durable() { Ok(()) } else { self.session.sync().await }
    }

    fn readable(&self, fh: Fh) -> Result<std::sync::Arc<OpenFile>, FsError> {
        let open = self.handles.file(fh)?;
        if open.mode.read { Ok(open) } else { Err(FsError::BadHandle) }
    }

    fn writable(
        &self,
        fh: Fh,
        offset: u64,
        len: usize,
        how: WriteHow,
    ) -> Result<std::sync::Arc<OpenFile>, FsError> {
        let open = self.handles.file(fh)?;
        if !open.mode.write {
            return Err(FsError::BadHandle);
        }
        if offset.checked_add(len as u64).is_none_or(|end| end > FILE_SIZE_MAX) {
            return Err(FsError::TooBig);
        }
        if !how.mapped {
            open.check_errors(ToldBy::Write)?;
        }
        self.check_locks(fh, &open)?;
        Ok(open)
    }

    /// Nobody goes on writing as if he held a lock that is lost.
    pub(super) fn check_locks(&self, fh: Fh, open: &OpenFile) -> Result<(), FsError> {
        let generation = || self.session.session_generation();
        let lost = open.has_lost_lock()
            || open.has_taken_locks() && self.locks.lost(open.file().ino(), fh, generation());
        if lost { Err(FsError::Io) } else { Ok(()) }
    }
}
