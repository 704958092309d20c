//! Giving local files the attributes that they have in the store.

use std::{io, path::Path};

use cairn_proto::{Attr, FileKind, Timestamp};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, chmodat, chownat, utimensat};

use crate::cli::device;

/// Sets owner (as root), mode and times of `path`, which is not followed if it is a link.
pub(super) fn apply(path: &Path, attr: &Attr) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid));
        chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if attr.kind() != FileKind::Symlink {
        chmodat(CWD, path, Mode::from_raw_mode(attr.mode & 0o7777), AtFlags::empty())?;
    }
    let times =
        Timestamps { last_access: timespec(attr.atime), last_modification: timespec(attr.mtime) };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
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
