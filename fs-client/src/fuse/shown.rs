//! [`Shown`]: owner, group and permissions that a mount shows instead of the stored ones.
//!
//! Only what is shown changes, as with other FUSE file systems: a new file is stored with its real
//! owner and mode, and what chown and chmod ask for is stored and seen by other mounts.

use cairn_proto::Attr;

/// All permission bits that a umask can take away.
const ALL: u32 = 0o777;
/// The bits of a mode that are no permissions but the file's type.
const TYPE: u32 = libc::S_IFMT;

/// `uid=`, `gid=` and `umask=`; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Owner of everything.
    pub uid: Option<u32>,
    /// Group of everything.
    pub gid: Option<u32>,
    /// Permissions that nothing has; everything has all others.
    pub umask: Option<u32>,
}

impl Shown {
    /// Whether access control lists are hidden: where permissions are made up, they would take effect
    /// beside those.
    pub fn hides_acls(self) -> bool {
        self.umask.is_some()
    }

    /// What is shown of an inode with `attr`.
    pub fn of(self, attr: Attr) -> Attr {
        let mode = |umask: u32| (attr.mode & TYPE) | (ALL & !umask);
        Attr {
            uid: self.uid.unwrap_or(attr.uid),
            gid: self.gid.unwrap_or(attr.gid),
            mode: self.umask.map_or(attr.mode, mode),
            ..attr
        }
    }
}
