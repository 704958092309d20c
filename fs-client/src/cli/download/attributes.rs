//! Giving local files the attributes that they have in the store.

use std::{io, path::Path};

use cairn_proto::{Attr, FileKind, FsError, Timestamp};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, chmodat, chownat, utimensat};

use super::job::Job;
use crate::cli::{
    device,
    failure::Failure,
    local_xattrs::{self, Xattr},
    store::StorePath,
};

/// Sets owner (as root), extended attributes, mode and times of `path`, which is not followed if it is a
/// link. In this order: an owner's change takes capabilities away, an access list changes the mode.
pub(super) fn apply(path: &Path, attr: &Attr, xattrs: &[Xattr]) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid));
        chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    local_xattrs::write(path, xattrs)?;
    if attr.kind() != FileKind::Symlink {
        chmodat(CWD, path, Mode::from_raw_mode(attr.mode & 0o7777), AtFlags::empty())?;
    }
    let times =
        Timestamps { last_access: timespec(attr.atime), last_modification: timespec(attr.mtime) };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The extended attributes of `attr`, whose name is `path`, in the store.
pub(super) async fn xattrs(
    job: &Job,
    path: &StorePath,
    attr: &Attr,
) -> Result<Vec<Xattr>, Failure> {
    if attr.xattrs == Some(0) {
        return Ok(Vec::new());
    }
    let (vfs, caller) = (&job.store.vfs, job.store.caller);
    let at = |e| Failure::at(path, e);
    let mut found = Vec::new();
    for name in vfs.listxattr(caller, attr.ino).await.map_err(at)? {
        match vfs.getxattr(caller, attr.ino, &name).await {
            Ok(value) => found.push((name, value)),
            // Removed a moment ago, or kept by a version that kept other names.
            Err(FsError::NoAttribute | FsError::NotSupported) => {}
            Err(error) => return Err(at(error)),
        }
    }
    Ok(found)
}

/// Makes a fifo, socket or device node like `attr`.
pub(super) fn make_node(path: &Path, attr: &Attr) -> io::Result<()> {
    let kind = rustix::fs::FileType::from_raw_mode(attr.mode);
    let device = device::unpack(attr.rdev);
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device)?)
}

fn timespec(t: Timestamp) -> Timespec {
    Timespec { tv_sec: t.seconds, tv_nsec: i64::from(t.nanos) }
}
