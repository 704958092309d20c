//! Flags of open(2) and fallocate(2), to and from the kernel.

use cairn_proto::FsError;
use fuser::FopenFlags;

use crate::vfs::{OpenMode, Opened, SpaceChange};

/// How the kernel shall treat a handle.
pub(super) fn open_flags(mode: OpenMode, opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.pages_current {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    // No FOPEN_NOFLUSH for readers: a close must be heard of, since it ends locks.
    if mode.append {
        // The bytes may end up at another place than the kernel believes: keep them off its pages.
        flags |= FopenFlags::FOPEN_DIRECT_IO;
    } else if mode.write && !mode.read {
        // Nobody reads through this handle: spare the copy into the page cache.
        flags |= FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    }
    flags
}

/// What the mode of fallocate(2) asks for.
pub(super) fn space_change(mode: i32) -> Result<SpaceChange, FsError> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Ok(SpaceChange::Allocate { keep_size }),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Ok(SpaceChange::Zero { keep_size }),
        libc::FALLOC_FL_ZERO_RANGE => Ok(SpaceChange::Zero { keep_size }),
        _ => Err(FsError::NotSupported),
    }
}
