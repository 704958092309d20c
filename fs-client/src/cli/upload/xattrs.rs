//! Giving what was copied the extended attributes that it has locally, ACLs among them.

use cairn_proto::{
    Attr, FsError,
    xattr::{ACCESS_ACL, DEFAULT_ACL, bit},
};
use tokio::task::block_in_place;

use super::{
    job::Job,
    walk::{Item, cannot_read},
};
use crate::cli::{failure::Failure, local_xattrs};

/// Sets the attributes that `item` has locally on `made`, and takes inherited lists away. To be done
/// before the mode is set: a list changes it.
pub(super) async fn copy_in(job: &Job, item: &Item, made: &Attr) -> Result<(), Failure> {
    let (vfs, caller, ino) = (&job.store.vfs, job.store.caller, made.ino);
    let at = |e| Failure::at(&item.target, e);
    let xattrs = block_in_place(|| local_xattrs::read(&item.source));
    let xattrs = xattrs.map_err(|e| cannot_read(&item.source, &e))?;
    for name in [ACCESS_ACL, DEFAULT_ACL] {
        let inherited = made.xattrs.is_some_and(|bits| bits & bit(name) != 0);
        if inherited && !xattrs.iter().any(|(given, _)| given == name) {
            vfs.removexattr(caller, ino, name).await.map_err(at)?;
        }
    }
    for (name, value) in xattrs.into_iter().filter(|(name, _)| may_set(caller.uid, name)) {
        match vfs.setxattr(caller, ino, &name, value, 0, false).await {
            // The local file system keeps what no other does.
            Ok(()) | Err(FsError::NotSupported) => {}
            Err(error) => return Err(at(error)),
        }
    }
    Ok(())
}

/// Only root may say what a program may do, as on a local disk.
fn may_set(uid: u32, name: &[u8]) -> bool {
    uid == 0 || !(name.starts_with(b"security.") || name.starts_with(b"trusted."))
}
