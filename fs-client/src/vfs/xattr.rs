//! Extended attributes.
//!
//! `system.*` is refused: access control lists that are stored and not enforced would be a lie.

use bytes::Bytes;
use cairn_proto::{
    FsError, Ino,
    limits::{XATTR_NAME_MAX, XATTR_SIZE_MAX},
    pb,
    pb::op::Kind,
};

use super::{Caller, Vfs, answers};

const CAPABILITY: &[u8] = b"security.capability";

impl Vfs {
    /// Whether it is known without asking that `ino` has no attribute `name`.
    pub fn xattr_absent(&self, ino: Ino, name: &[u8]) -> bool {
        let lasting = name == CAPABILITY && self.inodes.knows_no_capabilities(ino);
        lasting || self.inodes.knows_no_xattrs(ino)
    }

    /// The value of attribute `name`.
    ///
    /// # Errors
    /// `NoAttribute`; `NotSupported` for names that Cairn does not keep.
    pub async fn getxattr(&self, caller: Caller, ino: Ino, name: &[u8]) -> Result<Bytes, FsError> {
        check_name(name)?;
        if self.xattr_absent(ino, name) {
            return Err(FsError::NoAttribute);
        }
        let op = pb::GetXattr { ino: ino.get(), name: Bytes::copy_from_slice(name) };
        match self.ask(caller, Kind::GetXattr(op)).await {
            Ok(pb::reply::Kind::XattrValue(value)) => Ok(value.value),
            Ok(other) => Err(answers::unexpected(&other)),
            Err(error) => {
                if error == FsError::NoAttribute && name == CAPABILITY {
                    self.inodes.has_no_capabilities(ino);
                }
                Err(error)
            }
        }
    }

    /// Sets attribute `name`. `flags`: `XATTR_CREATE` 1, `XATTR_REPLACE` 2.
    ///
    /// # Errors
    /// `Exists`, `NoAttribute` as the flags want; `ArgumentTooBig`; `NotSupported`.
    pub async fn setxattr(
        &self,
        caller: Caller,
        ino: Ino,
        name: &[u8],
        value: Bytes,
        flags: u32,
    ) -> Result<(), FsError> {
        check_name(name)?;
        if value.len() > XATTR_SIZE_MAX {
            return Err(FsError::ArgumentTooBig);
        }
        self.inodes.has_xattrs(ino);
        let name = Bytes::copy_from_slice(name);
        let op = pb::SetXattr { ino: ino.get(), name, value, flags, kill_sgid: false };
        answers::done(self.ask(caller, Kind::SetXattr(op)).await?)
    }

    /// The names of all attributes.
    ///
    /// # Errors
    /// `NotFound` when the inode is gone.
    pub async fn listxattr(&self, caller: Caller, ino: Ino) -> Result<Vec<Bytes>, FsError> {
        if self.inodes.knows_no_xattrs(ino) {
            return Ok(Vec::new());
        }
        match self.ask(caller, Kind::ListXattr(pb::ListXattr { ino: ino.get() })).await? {
            pb::reply::Kind::XattrNames(answer) => {
                if answer.names.is_empty() {
                    self.inodes.has_no_xattrs(ino);
                }
                Ok(answer.names)
            }
            other => Err(answers::unexpected(&other)),
        }
    }

    /// Removes attribute `name`.
    ///
    /// # Errors
    /// `NoAttribute` when there is none of that name.
    pub async fn removexattr(&self, caller: Caller, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        check_name(name)?;
        let op = pb::RemoveXattr { ino: ino.get(), name: Bytes::copy_from_slice(name) };
        answers::done(self.ask(caller, Kind::RemoveXattr(op)).await?)
    }
}

fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > XATTR_NAME_MAX {
        return Err(FsError::OutOfRange);
    }
    if name.starts_with(b"system.") {
        return Err(FsError::NotSupported);
    }
    if name.is_empty() { Err(FsError::InvalidArgument) } else { Ok(()) }
}
