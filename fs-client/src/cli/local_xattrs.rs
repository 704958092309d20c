//! Extended attributes of local files, ACLs among them, for copying them in and out. Links are not
//! followed. What a file system does not have or does not let the caller have is left out, as `cp -a` does.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path};

use bytes::Bytes;
use cairn_proto::{
    limits::{XATTR_LIST_MAX, XATTR_SIZE_MAX},
    xattr::{ACCESS_ACL, DEFAULT_ACL},
};
use rustix::{
    fs::{XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr},
    io::Errno,
};

/// Name and value.
pub(super) type Xattr = (Bytes, Bytes);

/// The attributes of `path`.
pub(super) fn read(path: &Path) -> io::Result<Vec<Xattr>> {
    let mut list = vec![0; XATTR_LIST_MAX];
    let len = match llistxattr(path, &mut list[..]) {
        Ok(len) => len,
        Err(error) if is_left_out(error) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTR_SIZE_MAX];
        match lgetxattr(path, OsStr::from_bytes(name), &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                found.push((Bytes::copy_from_slice(name), value.into()));
            }
            Err(error) if is_left_out(error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Gives `path` these attributes; of ACLs, also only these.
pub(super) fn write(path: &Path, xattrs: &[Xattr]) -> io::Result<()> {
    for name in [ACCESS_ACL, DEFAULT_ACL] {
        if !xattrs.iter().any(|(given, _)| given == name) {
            allowed(lremovexattr(path, OsStr::from_bytes(name)))?;
        }
    }
    for (name, value) in xattrs {
        allowed(lsetxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty()))?;
    }
    Ok(())
}

fn allowed(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if !is_left_out(error) => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the file system does not have the attribute, or has it for others.
fn is_left_out(error: Errno) -> bool {
    matches!(error, Errno::NOTSUP | Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::INVAL)
}
