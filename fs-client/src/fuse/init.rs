//! What is agreed with the kernel at the start. One table, with reasons.

use fuser::{InitFlags, KernelConfig};

/// Largest write request; the kernel's own limit without further settings.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that nobody waits for directly (read-ahead, direct I/O) in the air at once.
const MAX_BACKGROUND: u16 = 64;

/// Asked for one by one, because the kernel may not know all of them. Nothing is in the list that
/// fuser 0.18 cannot honour.
const CAPABILITIES: [InitFlags; 12] = [
    // Attributes come with the names: one request for `ls -l` instead of one per file.
    InitFlags::FUSE_DO_READDIRPLUS,
    // ... but only while somebody wants them.
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // A large direct read or write is sent in parallel pieces.
    InitFlags::FUSE_ASYNC_DIO,
    // Lookups and listings of one directory need not wait for each other.
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Cached pages go when another client has changed length or mtime.
    InitFlags::FUSE_AUTO_INVAL_DATA,
    // O_TRUNC comes with the open: one operation instead of two.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // The target of a symbolic link never changes.
    InitFlags::FUSE_CACHE_SYMLINKS,
    // The kernel checks access control lists, which are extended attributes here.
    InitFlags::FUSE_POSIX_ACL,
    // A default list decides instead of the umask: the mode comes without, the umask beside it.
    InitFlags::FUSE_DONT_MASK,
    // Handles that bypass the page cache may be mapped all the same.
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    // Locks are the master's, for all mounts.
    InitFlags::FUSE_POSIX_LOCKS,
    InitFlags::FUSE_FLOCK_LOCKS,
];

/// Answers the kernel's offer.
pub(super) fn negotiate(config: &mut KernelConfig) {
    for capability in CAPABILITIES {
        if config.add_capabilities(capability).is_err() {
            tracing::info!(?capability, "this kernel does not offer it");
        }
    }
    // What is refused comes with the nearest value that is not.
    let _ = config.set_max_write(MAX_WRITE).or_else(|nearest| config.set_max_write(nearest));
    let _ =
        config.set_max_readahead(MAX_WRITE).or_else(|nearest| config.set_max_readahead(nearest));
    let _ = config.set_max_background(MAX_BACKGROUND);
}
