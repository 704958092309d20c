//! What access control lists do to inodes: setting one changes the mode, chmod(2) changes the list, new
//! inodes inherit. The lists themselves are in [`crate::acl`].

use bytes::Bytes;
use cairn_proto::{
    FileKind, FsError, pb,
    xattr::{ACCESS_ACL, DEFAULT_ACL, HAS_ACCESS_ACL, HAS_DEFAULT_ACL},
};

use super::{Namespace, inodes::Inode};
use crate::{
    acl::Acl,
    tables::{keys, source::Source},
};

/// What a new inode gets besides its permissions.
#[derive(Default)]
pub(super) struct Inherited {
    access: Option<Bytes>,
    default: Option<Bytes>,
}

impl Namespace {
    /// Sets the access list; one that says no more than a mode is kept as mode only.
    pub(super) fn set_access_acl(
        &mut self,
        inode: &mut Inode,
        request: &pb::SetXattr,
    ) -> Result<(), FsError> {
        if inode.row.kind() == Some(FileKind::Symlink) {
            return Err(FsError::NotSupported);
        }
        let Some(acl) = Acl::read(request.value.clone())? else {
            return self.drop_xattr(inode, ACCESS_ACL).map(|_| ());
        };
        inode.row.mode = acl.shown_in(inode.row.mode);
        if request.kill_sgid {
            inode.row.mode &= !libc::S_ISGID;
        }
        if acl.is_minimal() {
            self.drop_xattr(inode, ACCESS_ACL).map(|_| ())
        } else {
            self.put_xattr(inode, ACCESS_ACL, acl.to_bytes())
        }
    }

    /// Sets the default list of a directory.
    pub(super) fn set_default_acl(
        &mut self,
        inode: &mut Inode,
        request: &pb::SetXattr,
    ) -> Result<(), FsError> {
        let acl = Acl::read(request.value.clone())?;
        if !inode.row.is_directory() {
            return if acl.is_some() { Err(FsError::AccessDenied) } else { Ok(()) };
        }
        match acl {
            Some(acl) => self.put_xattr(inode, DEFAULT_ACL, acl.to_bytes()),
            None => self.drop_xattr(inode, DEFAULT_ACL).map(|_| ()),
        }
    }

    /// The mode was changed: the access list follows.
    pub(super) fn chmod_acl(&mut self, inode: &mut Inode) -> Result<(), FsError> {
        if inode.row.xattr_bits() & HAS_ACCESS_ACL == 0 {
            return Ok(());
        }
        if let Some(acl) = self.acl(inode.ino, ACCESS_ACL)? {
            let changed = acl.after_chmod(inode.row.mode);
            self.put_xattr(inode, ACCESS_ACL, changed.to_bytes())?;
        }
        Ok(())
    }

    /// What an inode of `kind` inherits in `parent`, and its permissions: those asked for, without what
    /// the umask takes (`permissions` are without, `masked` is what it took), or what a default list
    /// leaves of them.
    pub(super) fn inherit(
        &mut self,
        parent: &Inode,
        kind: FileKind,
        permissions: u32,
        masked: u32,
    ) -> Result<(u32, Inherited), FsError> {
        let nothing = Ok((permissions, Inherited::default()));
        if kind == FileKind::Symlink || parent.row.xattr_bits() & HAS_DEFAULT_ACL == 0 {
            return nothing;
        }
        let Some(acl) = self.acl(parent.ino, DEFAULT_ACL)? else { return nothing };
        let default = (kind == FileKind::Directory).then(|| acl.to_bytes());
        let wanted = permissions | masked & 0o777;
        let acl = acl.inherited(wanted);
        let access = (!acl.is_minimal()).then(|| acl.to_bytes());
        Ok((acl.shown_in(wanted), Inherited { access, default }))
    }

    /// Gives a new inode what it inherits.
    pub(super) fn bequeath(
        &mut self,
        inode: &mut Inode,
        inherited: Inherited,
    ) -> Result<(), FsError> {
        let lists = [(ACCESS_ACL, inherited.access), (DEFAULT_ACL, inherited.default)];
        for (name, list) in lists {
            if let Some(list) = list {
                self.put_xattr(inode, name, list)?;
            }
        }
        Ok(())
    }

    /// A stored list. What is none was stored by a version that did not look at lists: it counts as
    /// absent, which leaves the mode in force.
    fn acl(&mut self, ino: u64, name: &[u8]) -> Result<Option<Acl>, FsError> {
        let value = self.group.get(&keys::xattr(ino, name))?;
        Ok(value.and_then(|value| Acl::read(value).ok().flatten()))
    }
}
