//! Extended attributes, access control lists among them: the kernel enforces those, the master keeps
//! them in step with the modes.

use bytes::Bytes;
use cairn_proto::{
    FsError, Ino,
    limits::XATTR_SIZE_MAX,
    pb,
    pb::op::Kind,
    xattr::{ACCESS_ACL, DEFAULT_ACL, check_name},
};

use super::{Caller, Vfs, answers};

/// The namespace that only privileged processes see.
const TRUSTED: &[u8] = b"trusted.";

impl Vfs {
    /// Whether it is known without asking that `ino` has no attribute `name`.
    pub fn xattr_absent(&self, ino: Ino, name: &[u8]) -> bool {
        // A name that no attribute can have is another error.
        check_name(name).is_ok() && self.inodes.knows_absent(ino, name)
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
                if error == FsError::NoAttribute {
                    self.inodes.lacks_xattr(ino, name);
                }
                Err(error)
            }
        }
    }

    /// Sets attribute `name`. `flags`: `XATTR_CREATE` 1, `XATTR_REPLACE` 2. With `kill_sgid` an access
    /// list clears the set-group-id bit, which the caller may not keep.
    ///
    /// # Errors
    /// `Exists`, `NoAttribute` as the flags want; `ArgumentTooBig`; `NotSupported`; `InvalidArgument`
    /// for a list that is none.
    pub async fn setxattr(
        &self,
        caller: Caller,
        ino: Ino,
        name: &[u8],
        value: Bytes,
        flags: u32,
        kill_sgid: bool,
    ) -> Result<(), FsError> {
        check_name(name)?;
        if value.len() > XATTR_SIZE_MAX {
            return Err(FsError::ArgumentTooBig);
        }
        self.inodes.xattr_changed(ino, name);
        let wire = Bytes::copy_from_slice(name);
        let op = pb::SetXattr { ino: ino.get(), name: wire, value, flags, kill_sgid };
        let done = self.ask(caller, Kind::SetXattr(op)).await.and_then(answers::done);
        self.inodes.xattr_changed(ino, name);
        done
    }

    /// The names of all attributes that the caller may see.
    ///
    /// # Errors
    /// `NotFound` when the inode is gone.
    pub async fn listxattr(&self, caller: Caller, ino: Ino) -> Result<Vec<Bytes>, FsError> {
        if self.inodes.knows_no_xattrs(ino) {
            return Ok(Vec::new());
        }
        match self.ask(caller, Kind::ListXattr(pb::ListXattr { ino: ino.get() })).await? {
            pb::reply::Kind::XattrNames(mut answer) => {
                if caller.uid != 0 {
                    answer.names.retain(|name| !name.starts_with(TRUSTED));
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
        self.inodes.xattr_changed(ino, name);
        let op = pb::RemoveXattr { ino: ino.get(), name: Bytes::copy_from_slice(name) };
        let done = self.ask(caller, Kind::RemoveXattr(op)).await.and_then(answers::done);
        self.inodes.xattr_changed(ino, name);
        done
    }
}

/// Whether `name` is that of an access control list.
pub fn is_acl(name: &[u8]) -> bool {
    matches!(name, ACCESS_ACL | DEFAULT_ACL)
}
