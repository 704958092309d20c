//! Requests that the kernel sends again because a daemon died before it had answered them.
//!
//! The daemon may have carried them out. A name that is gone was most likely removed or moved by that
//! request, so its absence is success; so do file systems of other kinds after a lost answer. What was
//! to be made new and is there is an error all the same: two programs must not both believe that they
//! have made a lock file.

use cairn_proto::{FileName, FsError, Ino};
use fuser::Request;

use crate::vfs::{Caller, Vfs};

/// `FUSE_UNIQUE_RESEND`
const RESENT: u64 = 1 << 63;

/// Whether the kernel has sent it to an earlier daemon.
pub(super) fn is_resent(req: &Request) -> bool {
    req.unique().0 & RESENT != 0
}

/// The result of a removal.
pub(super) fn removed(resent: bool, result: Result<(), FsError>) -> Result<(), FsError> {
    match result {
        Err(FsError::NotFound) if resent => Ok(()),
        other => other,
    }
}

/// The result of a rename to `name` in `parent`.
pub(super) async fn renamed(
    resent: bool,
    result: Result<(), FsError>,
    vfs: &Vfs,
    caller: Caller,
    (parent, name): (Ino, &FileName),
) -> Result<(), FsError> {
    match result {
        Err(FsError::NotFound) if resent && vfs.lookup(caller, parent, name).await.is_ok() => {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_before_may_have_removed_the_name() {
        assert_eq!(removed(true, Err(FsError::NotFound)), Ok(()));
        assert_eq!(removed(false, Err(FsError::NotFound)), Err(FsError::NotFound));
        assert_eq!(removed(true, Err(FsError::NotEmpty)), Err(FsError::NotEmpty));
    }
}
