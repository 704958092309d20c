//! [`FileName`]: one component of a path, checked.

use std::fmt;

use bytes::Bytes;

use crate::{FsError, limits::NAME_MAX};

/// A directory entry's name: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(Bytes);

impl FileName {
    /// The bytes; any encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as the wire carries them.
    pub fn to_wire(&self) -> Bytes {
        self.0.clone()
    }
}

impl TryFrom<Bytes> for FileName {
    type Error = FsError;

    /// # Errors
    /// `ENAMETOOLONG` above 255 bytes, `ENOENT` when empty (as POSIX has it for empty paths),
    /// `EINVAL` for the rest.
    fn try_from(name: Bytes) -> Result<Self, FsError> {
        match name.as_ref() {
            [] => Err(FsError::NotFound),
            n if n.len() > NAME_MAX => Err(FsError::NameTooLong),
            b"." | b".." => Err(FsError::InvalidArgument),
            n if n.iter().any(|b| matches!(b, b'/' | 0)) => Err(FsError::InvalidArgument),
            _ => Ok(Self(name)),
        }
    }
}

impl TryFrom<&[u8]> for FileName {
    type Error = FsError;

    fn try_from(name: &[u8]) -> Result<Self, FsError> {
        Self::try_from(Bytes::copy_from_slice(name))
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_no_directory_may_hold() {
        let parse = |n: &[u8]| FileName::try_from(n).map(|_| ());
        assert_eq!(parse(b""), Err(FsError::NotFound));
        assert_eq!(parse(&[b'a'; 256]), Err(FsError::NameTooLong));
        for wrong in [&b"."[..], b"..", b"a/b", b"a\0"] {
            assert_eq!(parse(wrong), Err(FsError::InvalidArgument));
        }
        for right in [&b"..."[..], b"a", &[b'a'; 255], &[0xff, 0xfe], b"\n"] {
            assert_eq!(parse(right), Ok(()));
        }
    }
}
