//! The closed error vocabulary: [`FsError`] for the namespace and files, [`ChunkError`] for chunks.
//!
//! Each has a stable number for the wire, an errno, and one table that says whether the same request
//! may be sent again. No map has a catch-all arm, so a new variant has to be placed everywhere.

use thiserror::Error;

/// A received message whose content no sender of this protocol would produce.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    what: &'static str,
    why: String,
}

impl Malformed {
    /// `what` names the field, `why` completes the sentence.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

macro_rules! errors {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $errno:ident, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
        pub enum $name {
            $($(#[$vdoc])* #[error($text)] $variant,)*
        }

        impl $name {
            /// Every variant, for tests that go through all of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The number on the wire; never 0, never reused.
            pub const fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The variant with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// What a system call answers.
            pub const fn errno(self) -> i32 {
                match self { $(Self::$variant => libc::$errno,)* }
            }
        }
    };
}

errors! {
    /// Errors of the file system, in POSIX's words.
    FsError {
        /// ENOENT
        NotFound = 1, ENOENT, "no such file or directory";
        /// EEXIST
        Exists = 2, EEXIST, "file exists";
        /// ENOTDIR
        NotDirectory = 3, ENOTDIR, "not a directory";
        /// EISDIR
        IsDirectory = 4, EISDIR, "is a directory";
        /// ENOTEMPTY
        NotEmpty = 5, ENOTEMPTY, "directory not empty";
        /// EACCES
        AccessDenied = 6, EACCES, "permission denied";
        /// EPERM
        NotPermitted = 7, EPERM, "operation not permitted";
        /// EINVAL
        InvalidArgument = 8, EINVAL, "invalid argument";
        /// ENAMETOOLONG
        NameTooLong = 9, ENAMETOOLONG, "file name too long";
        /// EFBIG
        TooBig = 10, EFBIG, "file too large";
        /// ENOSPC
        NoSpace = 11, ENOSPC, "no space left";
        /// EDQUOT
        QuotaExceeded = 12, EDQUOT, "quota exceeded";
        /// EROFS
        ReadOnly = 13, EROFS, "read-only file system";
        /// EMLINK
        TooManyLinks = 14, EMLINK, "too many links";
        /// ELOOP
        Loop = 15, ELOOP, "too many levels of symbolic links";
        /// EXDEV
        CrossDevice = 16, EXDEV, "cross-device link";
        /// EBUSY
        Busy = 17, EBUSY, "resource busy";
        /// ETXTBSY
        TextBusy = 18, ETXTBSY, "text file busy";
        /// ENODATA
        NoAttribute = 19, ENODATA, "no such attribute";
        /// ERANGE
        OutOfRange = 20, ERANGE, "result does not fit";
        /// E2BIG
        ArgumentTooBig = 21, E2BIG, "argument too large";
        /// EOPNOTSUPP
        NotSupported = 22, EOPNOTSUPP, "operation not supported";
        /// ENOSYS
        NotImplemented = 23, ENOSYS, "function not implemented";
        /// EBADF
        BadHandle = 24, EBADF, "bad file handle";
        /// ESTALE: the session, the request or the file is gone
        Stale = 25, ESTALE, "stale: the session or the file no longer exists";
        /// EINTR
        Interrupted = 26, EINTR, "interrupted";
        /// ETIMEDOUT, from the master within the deadline; a mount shows EIO
        TimedOut = 27, ETIMEDOUT, "no answer within the deadline";
        /// EAGAIN
        TryAgain = 28, EAGAIN, "temporarily unavailable";
        /// EDEADLK
        Deadlock = 29, EDEADLK, "would deadlock";
        /// ENOLCK
        NoLocks = 30, ENOLCK, "no locks available";
        /// EOVERFLOW
        Overflow = 31, EOVERFLOW, "value too large";
        /// ENXIO
        NoSuchDevice = 32, ENXIO, "no such device or address";
        /// EIO
        Io = 33, EIO, "input/output error";
        /// ENOMEM
        NoMemory = 34, ENOMEM, "out of memory";
        /// EPROTO
        Protocol = 35, EPROTO, "protocol error";
    }
}

errors! {
    /// What can go wrong with a chunk on a storage node.
    ChunkError {
        /// No node that was asked holds it.
        NotFound = 1, EIO, "chunk not found";
        /// The bytes are not what the id names.
        Damaged = 2, EIO, "chunk damaged: its bytes do not match its id";
        /// A put whose data is not what its id names; nothing was stored.
        Mismatch = 3, EINVAL, "data does not match the chunk id";
        /// Larger than the chunk size, or empty.
        BadLength = 4, EINVAL, "chunk length out of range";
        /// The node's disk is at its high-water mark.
        NoSpace = 5, ENOSPC, "storage node has no space left";
        /// The disk failed; the node no longer takes puts.
        DiskFailed = 6, EIO, "storage node's disk failed";
        /// The node cannot be reached or did not answer in time.
        Unreachable = 7, EIO, "storage node unreachable";
        /// The node does too much already.
        Overloaded = 8, EAGAIN, "storage node overloaded";
        /// The cluster has fewer nodes up than `min_replicas`.
        TooFewNodes = 9, EIO, "too few storage nodes are up";
        /// The sender's message makes no sense.
        Malformed = 10, EINVAL, "malformed chunk request";
    }
}

impl FsError {
    /// Whether the very same request, with the same (session, seq), may be sent again.
    pub const fn may_retry(self) -> bool {
        match self {
            Self::TryAgain | Self::TimedOut => true,
            Self::NotFound
            | Self::Exists
            | Self::NotDirectory
            | Self::IsDirectory
            | Self::NotEmpty
            | Self::AccessDenied
            | Self::NotPermitted
            | Self::InvalidArgument
            | Self::NameTooLong
            | Self::TooBig
            | Self::NoSpace
            | Self::QuotaExceeded
            | Self::ReadOnly
            | Self::TooManyLinks
            | Self::Loop
            | Self::CrossDevice
            | Self::Busy
            | Self::TextBusy
            | Self::NoAttribute
            | Self::OutOfRange
            | Self::ArgumentTooBig
            | Self::NotSupported
            | Self::NotImplemented
            | Self::BadHandle
            | Self::Stale
            | Self::Interrupted
            | Self::Deadlock
            | Self::NoLocks
            | Self::Overflow
            | Self::NoSuchDevice
            | Self::Io
            | Self::NoMemory
            | Self::Protocol => false,
        }
    }
}

impl ChunkError {
    /// Whether another try, perhaps with a newer map, may go better.
    pub const fn may_retry(self) -> bool {
        match self {
            Self::Unreachable | Self::Overloaded | Self::TooFewNodes | Self::DiskFailed => true,
            Self::NotFound
            | Self::Damaged
            | Self::Mismatch
            | Self::BadLength
            | Self::NoSpace
            | Self::Malformed => false,
        }
    }
}

impl From<ChunkError> for FsError {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::NoSpace => Self::NoSpace,
            ChunkError::Mismatch
            | ChunkError::BadLength
            | ChunkError::Malformed
            | ChunkError::NotFound
            | ChunkError::Damaged
            | ChunkError::DiskFailed
            | ChunkError::Unreachable
            | ChunkError::Overloaded
            | ChunkError::TooFewNodes => Self::Io,
        }
    }
}

impl From<Malformed> for FsError {
    fn from(_: Malformed) -> Self {
        Self::InvalidArgument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_are_never_zero() {
        for &e in FsError::ALL {
            assert_eq!(FsError::from_number(e.number()), Some(e));
            assert!(e.number() != 0 && e.errno() > 0);
        }
        for &e in ChunkError::ALL {
            assert_eq!(ChunkError::from_number(e.number()), Some(e));
            assert!(e.number() != 0 && e.errno() > 0);
        }
        assert_eq!(FsError::from_number(0), None);
        assert_eq!(ChunkError::from_number(0), None);
    }
}
