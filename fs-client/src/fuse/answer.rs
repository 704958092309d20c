//! [`Answer`]: one way to answer for all kinds of replies.

use bytes::Bytes;
use cairn_proto::{Attr, FsError};
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use super::{
    attr::{BLOCK, TTL, to_fuse},
    shown::Shown,
};
use crate::vfs::{Created, Fh, Opened, Usage};

/// Inode numbers are never used again, so one generation is enough.
pub(super) const GENERATION: Generation = Generation(0);

/// A reply that is owed to the kernel.
pub trait Answer: Send + 'static {
    /// What a success consists of.
    type Value: Send + 'static;

    /// Answers with a success.
    fn ok(self, value: Self::Value);

    /// Answers with an error.
    fn fail(self, errno: Errno);

    /// How many bytes of a file a success moves.
    fn bytes(_value: &Self::Value) -> u64 {
        0
    }

    /// A success as this mount shows it.
    fn show(value: Self::Value, _shown: Shown) -> Self::Value {
        value
    }
}

/// Answers with `result`.
pub fn send<A: Answer>(reply: A, result: Result<A::Value, FsError>) {
    match result {
        Ok(value) => reply.ok(value),
        Err(error) => reply.fail(errno(error)),
    }
}

/// What a system call answers. A cluster that does not answer is an I/O error for an application.
pub fn errno(error: FsError) -> Errno {
    let shown = if error == FsError::TimedOut { FsError::Io } else { error };
    Errno::from_i32(shown.errno())
}

macro_rules! answer {
    ($reply:ty, $value:ty, |$r:ident, $v:ident| $ok:expr $(, |$moved:ident| $bytes:expr)?
     $(; |$stored:ident, $how:ident| $shown:expr)?) => {
        impl Answer for $reply {
            type Value = $value;

            fn ok(self, $v: $value) {
                let $r = self;
                $ok
            }

            fn fail(self, errno: Errno) {
                self.error(errno);
            }

            $(fn bytes($moved: &$value) -> u64 {
                $bytes
            })?

            $(fn show($stored: $value, $how: Shown) -> $value {
                $shown
            })?
        }
    };
}

answer!(ReplyEmpty, (), |reply, _done| reply.ok());
answer!(ReplyData, Bytes, |reply, data| reply.data(&data), |data| data.len() as u64);
answer!(ReplyAttr, Attr, |reply, attr| reply.attr(&TTL, &to_fuse(&attr)); |attr, shown| shown.of(attr));
answer!(ReplyEntry, Attr, |reply, attr| reply.entry(&TTL, &to_fuse(&attr), GENERATION); |attr, shown| shown.of(attr));
answer!(ReplyOpen, (Fh, FopenFlags), |reply, open| reply.opened(FileHandle(open.0.0), open.1));
answer!(
    ReplyWrite,
    usize,
    |reply, len| reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
    |len| *len as u64
);
answer!(ReplyLseek, u64, |reply, at| reply.offset(i64::try_from(at).unwrap_or(i64::MAX)));
answer!(ReplyCreate, (Created, FopenFlags), |reply, made| {
    let (Created { opened: Opened { fh, attr, .. }, .. }, flags) = made;
    reply.created(&TTL, &to_fuse(&attr), GENERATION, FileHandle(fh.0), flags);
}; |made, shown| {
    let (mut made, flags) = made;
    made.opened.attr = shown.of(made.opened.attr);
    (made, flags)
});
answer!(ReplyStatfs, Usage, |reply, usage| {
    let blocks = |bytes: u64| bytes / u64::from(BLOCK);
    let free = blocks(usage.free_bytes);
    // Without a quota inodes are no resource that runs out; show as many free ones as free blocks.
    let inodes = usage.inodes_total.unwrap_or_else(|| usage.inodes.saturating_add(free));
    let free_inodes = inodes.saturating_sub(usage.inodes);
    reply.statfs(blocks(usage.total_bytes), free, free, inodes, free_inodes, BLOCK, 255, BLOCK);
});

/// An extended attribute's value or list for a caller with room for `size` bytes; 0 asks for the size.
pub struct XattrAnswer {
    /// The reply.
    pub reply: ReplyXattr,
    /// The caller's room.
    pub size: u32,
}

impl Answer for XattrAnswer {
    type Value = Bytes;

    fn ok(self, value: Bytes) {
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        match self.size {
            0 => self.reply.size(len),
            size if len > size => self.reply.error(errno(FsError::OutOfRange)),
            _ => self.reply.data(&value),
        }
    }

    fn fail(self, errno: Errno) {
        self.reply.error(errno);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_does_not_answer_is_an_io_error() {
        assert_eq!(i32::from(errno(FsError::TimedOut)), libc::EIO);
        assert_eq!(i32::from(errno(FsError::NotFound)), libc::ENOENT);
        assert_eq!(i32::from(errno(FsError::NoSpace)), libc::ENOSPC);
    }
}
