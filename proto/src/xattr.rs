//! Names of extended attributes, and the summary of an inode's that travels with its attributes.
//!
//! The summary spares questions: the kernel asks for `security.capability` before every write and for
//! access lists whenever a path is walked, and most inodes have neither.

use crate::{FsError, limits::XATTR_NAME_MAX};

/// File capabilities.
pub const CAPABILITY: &[u8] = b"security.capability";
/// The access ACL.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The default ACL of a directory.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Bit of the summary: there may be an attribute.
pub const HAS_ANY: u32 = 1;
/// There may be file capabilities.
pub const HAS_CAPABILITY: u32 = 2;
/// There may be an access ACL.
pub const HAS_ACCESS_ACL: u32 = 4;
/// There may be a default ACL.
pub const HAS_DEFAULT_ACL: u32 = 8;
/// There may be anything.
pub const ALL: u32 = HAS_ANY | HAS_CAPABILITY | HAS_ACCESS_ACL | HAS_DEFAULT_ACL;

/// Namespaces of which every name is kept.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// The bit without which there is no attribute `name`.
pub fn bit(name: &[u8]) -> u32 {
    match name {
        CAPABILITY => HAS_CAPABILITY,
        ACCESS_ACL => HAS_ACCESS_ACL,
        DEFAULT_ACL => HAS_DEFAULT_ACL,
        _ => HAS_ANY,
    }
}

/// Whether `name` can be the name of an attribute.
///
/// # Errors
/// `OutOfRange` when it is empty or too long; `InvalidArgument` when it holds a NUL or is nothing but its
/// namespace; `NotSupported` when its namespace is none of Linux's, or `system` with something else than
/// an ACL.
pub fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(FsError::OutOfRange);
    }
    if name.contains(&0) || NAMESPACES.contains(&name) {
        return Err(FsError::InvalidArgument);
    }
    let known = NAMESPACES.iter().any(|namespace| name.starts_with(namespace));
    if known || name == ACCESS_ACL || name == DEFAULT_ACL {
        Ok(())
    } else {
        Err(FsError::NotSupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_linux() {
        for name in [&b"user.x"[..], b"trusted.x", b"security.capability", ACCESS_ACL, DEFAULT_ACL]
        {
            assert_eq!(check_name(name), Ok(()));
        }
        assert_eq!(check_name(b""), Err(FsError::OutOfRange));
        assert_eq!(check_name(&[b'n'; 256]), Err(FsError::OutOfRange));
        assert_eq!(check_name(b"user."), Err(FsError::InvalidArgument));
        assert_eq!(check_name(b"user.a\0b"), Err(FsError::InvalidArgument));
        for name in [&b"system.nfs4_acl"[..], b"system.", b"btrfs.compression", b"x", b"User.x"] {
            assert_eq!(check_name(name), Err(FsError::NotSupported));
        }
    }

    #[test]
    fn every_bit_stands_for_one_kind() {
        let bits = [b"user.x", CAPABILITY, ACCESS_ACL, DEFAULT_ACL].map(bit);
        assert_eq!(bits.iter().fold(0, |all, bit| all | bit), ALL);
        assert_eq!(bits.iter().sum::<u32>(), ALL);
    }
}
