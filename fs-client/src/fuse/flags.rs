//! Flags of open(2) and fallocate(2), to and from the kernel.

use cairn_proto::FsError;
use fuser::{FopenFlags, OpenFlags, WriteFlags};

use crate::vfs::{OpenMode, Opened, SpaceChange, WriteHow};

/// How the kernel shall treat a handle.
pub(super) fn open_flags(mode: OpenMode, opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.pages_current {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    // No FOPEN_NOFLUSH for readers: a close must be heard of, since it ends locks.
    if mode.is_uncached() {
        // Appended bytes may end up at another place than the kernel believes: off its pages. Of others
        // that nobody reads through this handle, the copy into the page cache is spared.
        flags |= FopenFlags::FOPEN_DIRECT_IO;
        if !mode.append {
            flags |= FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        }
    }
    flags
}

/// How the kernel wants a write to be done. `flags` are the handle's at this moment: `O_APPEND` comes
/// and goes with `fcntl`, and the sync flags may be meant for this one write.
pub(super) fn write_how(flags: OpenFlags, write: WriteFlags) -> WriteHow {
    // Pages that were changed through a mapping come through any handle that can write.
    let mapped = write.contains(WriteFlags::FUSE_WRITE_CACHE);
    WriteHow {
        kill_suid_sgid: write.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        append: !mapped && flags.0 & libc::O_APPEND != 0,
        durable: !mapped && flags.0 & libc::O_DSYNC != 0,
        mapped,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mapping_has_changed_is_neither_appended_nor_synced() {
        let (flags, none) =
            (OpenFlags(libc::O_RDWR | libc::O_APPEND | libc::O_SYNC), WriteFlags::empty());
        let how = write_how(flags, none);
        assert!(how.append && how.durable && !how.kill_suid_sgid && !how.mapped);
        let mapped = WriteFlags::FUSE_WRITE_CACHE | WriteFlags::FUSE_WRITE_KILL_SUIDGID;
        let how = write_how(flags, mapped);
        assert!(!how.append && !how.durable && how.kill_suid_sgid && how.mapped);
        assert_eq!(write_how(OpenFlags(libc::O_RDWR), none), WriteHow::default());
    }
}
