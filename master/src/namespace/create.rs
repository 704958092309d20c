//! Create and Link: new names.

use bytes::Bytes;
use cairn_proto::{
    FileKind, FsError,
    limits::{LINK_MAX, SYMLINK_MAX},
    pb,
};

use super::{
    Namespace,
    execute::Call,
    inodes::{FIRST_COOKIE, Inode, check_name},
};
use crate::tables::{
    keys,
    rows::{DentryRow, InodeRow},
    source::Source,
};

/// What `stat` shows as the length of a directory.
pub(super) const DIRECTORY_SIZE: u64 = 4096;

/// What a new inode shall be.
pub(super) struct Blueprint {
    pub(super) kind: FileKind,
    /// Without those that the umask took.
    pub(super) permissions: u32,
    /// What the umask took.
    pub(super) masked: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) target: Bytes,
}

impl Blueprint {
    fn of(call: Call, request: &pb::Create) -> Result<Self, FsError> {
        let kind = FileKind::from_mode(request.mode).ok_or(FsError::InvalidArgument)?;
        let (rdev, target) = match kind {
            FileKind::Symlink if request.target.is_empty() => return Err(FsError::NotFound),
            FileKind::Symlink if request.target.len() > SYMLINK_MAX => {
                return Err(FsError::NameTooLong);
            }
            FileKind::Symlink if request.target.contains(&0) => {
                return Err(FsError::InvalidArgument);
            }
            FileKind::Symlink => (0, request.target.clone()),
            FileKind::CharDevice | FileKind::BlockDevice => (request.rdev, Bytes::new()),
            FileKind::Regular | FileKind::Directory | FileKind::Fifo | FileKind::Socket => {
                (0, Bytes::new())
            }
        };
        let permissions = request.mode & 0o7777;
        let masked = request.masked & 0o777;
        Ok(Self { kind, permissions, masked, uid: call.uid, gid: call.gid, rdev, target })
    }
}

impl Namespace {
    pub(super) fn create(
        &mut self,
        call: Call,
        request: &pb::Create,
    ) -> Result<pb::Entry, FsError> {
        let mut parent = self.live_directory(request.parent)?;
        let name = check_name(&request.name)?;
        let blueprint = Blueprint::of(call, request)?;
        if let Some(entry) = self.dentry(parent.ino, &name)? {
            return self.open_existing(call, request, &blueprint, &parent, &entry);
        }
        let ino = self.number_for(call, request.ino)?;
        let inode = self.add_inode(ino, &mut parent, &name, blueprint)?;
        self.put_inode(&inode);
        self.put_inode(&parent);
        let manifest = request.open.then(|| self.first_page(&inode)).transpose()?;
        if request.open {
            self.sessions.hold(call.session, ino);
        }
        Ok(pb::Entry {
            attr: Some(inode.attr()),
            created: true,
            manifest,
            parent: Some(parent.attr()),
        })
    }

    fn open_existing(
        &mut self,
        call: Call,
        request: &pb::Create,
        blueprint: &Blueprint,
        parent: &Inode,
        entry: &DentryRow,
    ) -> Result<pb::Entry, FsError> {
        if request.exclusive || blueprint.kind != FileKind::Regular {
            return Err(FsError::Exists);
        }
        let inode = self.inode(entry.ino)?;
        match inode.row.kind() {
            Some(FileKind::Regular) => {}
            Some(FileKind::Directory) => return Err(FsError::IsDirectory),
            _ => return Err(FsError::Exists),
        }
        let manifest = request.open.then(|| self.first_page(&inode)).transpose()?;
        if request.open {
            self.sessions.hold(call.session, inode.ino);
        }
        Ok(pb::Entry {
            attr: Some(inode.attr()),
            created: false,
            manifest,
            parent: Some(parent.attr()),
        })
    }

    /// The number that the client knows the file by, when it had one before a power loss took the
    /// file back, otherwise a new one.
    fn number_for(&mut self, call: Call, wanted: u64) -> Result<u64, FsError> {
        if call.replay
            && self.ids.was_ino(wanted)
            && self.group.get(&keys::inode(wanted))?.is_none()
            && self.group.get(&keys::dead(wanted))?.is_none()
        {
            return Ok(wanted);
        }
        Ok(self.ids.ino(self.group.engine().as_ref())?)
    }

    /// Makes an inode and its name. The caller stores both inodes.
    pub(super) fn add_inode(
        &mut self,
        ino: u64,
        parent: &mut Inode,
        name: &Bytes,
        blueprint: Blueprint,
    ) -> Result<Inode, FsError> {
        let now = self.now();
        let Blueprint { kind, permissions, masked, uid, mut gid, rdev, target } = blueprint;
        let (mut permissions, inherited) = self.inherit(parent, kind, permissions, masked)?;
        let is_directory = kind == FileKind::Directory;
        if parent.row.mode & libc::S_ISGID != 0 {
            gid = parent.row.gid;
            if is_directory {
                permissions |= libc::S_ISGID;
            }
        }
        let mut inode = Inode {
            ino,
            row: InodeRow {
                mode: kind.mode_bits() | permissions,
                nlink: if is_directory { 2 } else { 1 },
                uid,
                gid,
                rdev,
                size: if is_directory { DIRECTORY_SIZE } else { target.len() as u64 },
                target,
                atime: Some(now),
                btime: Some(now),
                parent: if is_directory { parent.ino } else { 0 },
                next_cookie: if is_directory { FIRST_COOKIE } else { 0 },
                quota: parent.row.quota,
                ..InodeRow::default()
            },
        };
        self.bequeath(&mut inode, inherited)?;
        self.touch_data(&mut inode, now);
        self.add_entry(parent, name, ino, inode.row.mode);
        if is_directory {
            parent.row.nlink = parent.row.nlink.checked_add(1).ok_or(FsError::TooManyLinks)?;
        }
        self.touch_data(parent, now);
        self.count_new(&inode);
        self.charge_new(&inode)?;
        Ok(inode)
    }

    pub(super) fn link(&mut self, request: &pb::Link) -> Result<pb::Entry, FsError> {
        let mut parent = self.live_directory(request.parent)?;
        let name = check_name(&request.name)?;
        let mut inode = self.inode(request.ino)?;
        if self.dentry(parent.ino, &name)?.is_some() {
            return Err(FsError::Exists);
        }
        if inode.row.is_directory() {
            return Err(FsError::NotPermitted);
        }
        if inode.row.nlink == 0 {
            return Err(FsError::NotFound);
        }
        if inode.row.nlink >= LINK_MAX {
            return Err(FsError::TooManyLinks);
        }
        Self::may_link(&inode, parent.row.quota)?;
        let now = self.now();
        inode.row.nlink += 1;
        self.touch(&mut inode, now);
        self.add_entry(&mut parent, &name, inode.ino, inode.row.mode);
        self.touch_data(&mut parent, now);
        self.put_inode(&inode);
        self.put_inode(&parent);
        Ok(pb::Entry {
            attr: Some(inode.attr()),
            created: true,
            manifest: None,
            parent: Some(parent.attr()),
        })
    }
}
