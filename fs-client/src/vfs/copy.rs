//! copy_file_range: shares whole chunks, copies the rest.

use cairn_proto::{Attr, FsError, limits::FILE_SIZE_MAX, pb, pb::op::Kind};

use super::{Fh, Vfs, answers, open::OpenFile};
use crate::file::{Origin, ToldBy};

/// Most bytes that one call copies by reading and writing.
const COPY_MAX: u64 = 4 << 20;

impl Vfs {
    /// Copies up to `len` bytes and says how many; fewer only when the source ends or the range is
    /// better copied in several calls. Where both offsets are at the start of a chunk no bytes move.
    ///
    /// # Errors
    /// `BadHandle`, `TooBig`; those of reading and writing.
    pub async fn copy_file_range(
        &self,
        from: Fh,
        from_offset: u64,
        to: Fh,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, FsError> {
        let (src, dst) = (self.handles.file(from)?, self.handles.file(to)?);
        if !src.mode.read || !dst.mode.write || dst.mode.append {
            return Err(FsError::BadHandle);
        }
        dst.check_errors(ToldBy::Write)?;
        self.check_locks(to, &dst)?;
        src.file().flush().await?;
        dst.file().flush().await?;
        let src_size = self.getattr(src.caller, src.file().ino()).await?.size;
        let len = len.min(src_size.saturating_sub(from_offset));
        if to_offset.checked_add(len).is_none_or(|end| end > FILE_SIZE_MAX) {
            return Err(FsError::TooBig);
        }
        if len == 0 {
            return Ok(0);
        }
        let dst_size = self.getattr(dst.caller, dst.file().ino()).await?.size;
        let chunk = u64::from(self.chunk_size());
        let to_the_end = from_offset + len == src_size && to_offset + len >= dst_size;
        let whole = if to_the_end { len } else { len / chunk * chunk };
        if from_offset.is_multiple_of(chunk) && to_offset.is_multiple_of(chunk) && whole > 0 {
            let attr = self.clone_range(&src, from_offset, &dst, to_offset, whole).await?;
            dst.file().resized(attr);
            return Ok(whole);
        }
        // Up to the next start of a chunk when the offsets are alike, so that the next call can share.
        let to_border = chunk - from_offset % chunk;
        let alike = from_offset % chunk == to_offset % chunk;
        let len = if alike && len > to_border { to_border } else { len.min(COPY_MAX) };
        let data = self.read(from, from_offset, len as usize).await?;
        let origin = Origin { caller: dst.caller, kill_suid_sgid: false };
        dst.file().write(origin, to_offset, &data).await?;
        Ok(data.len() as u64)
    }

    async fn clone_range(
        &self,
        src: &OpenFile,
        src_offset: u64,
        dst: &OpenFile,
        dst_offset: u64,
        length: u64,
    ) -> Result<Attr, FsError> {
        let op = pb::CloneRange {
            src_ino: src.file().ino().get(),
            src_offset,
            dst_ino: dst.file().ino().get(),
            dst_offset,
            length,
        };
        let answer = self.ask(dst.caller, Kind::CloneRange(op)).await?;
        let committed = answers::committed(answer)?;
        if !committed.applied {
            return Err(FsError::TryAgain);
        }
        answers::attr(committed.attr)
    }
}
