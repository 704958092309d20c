//! create, mknod, mkdir, symlink, link.

use bytes::Bytes;
use cairn_proto::{
    Attr, FileName, FsError, Ino,
    limits::SYMLINK_MAX,
    pb::{self, op::Kind},
};

use super::{Caller, OpenMode, Opened, Vfs, answers};

/// What [`Vfs::create`] made.
#[derive(Clone, Copy, Debug)]
pub struct Created {
    /// The open handle and the attributes.
    pub opened: Opened,
    /// False when the file existed already.
    pub created: bool,
}

/// What a new inode's mode shall be.
#[derive(Clone, Copy, Debug)]
pub struct NewMode {
    /// As the program gave it, type bits included where there is a choice.
    pub bits: u32,
    /// Permissions that the umask takes away, unless a default ACL decides instead.
    pub umask: u32,
}

impl From<u32> for NewMode {
    fn from(bits: u32) -> Self {
        Self { bits, umask: 0 }
    }
}

impl NewMode {
    /// The mode after the umask for an inode of type `kind`, and what that took.
    const fn masked(self, kind: u32) -> (u32, u32) {
        let umask = self.umask & 0o777;
        (kind | self.bits & 0o7777 & !umask, self.bits & umask)
    }
}

impl Vfs {
    /// Makes the regular file `name` with the permission bits of `mode` and opens it. An existing
    /// regular file is opened instead unless `exclusive`.
    ///
    /// # Errors
    /// `Exists` when `exclusive` and it exists, or it exists and is no regular file.
    pub async fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
        mode: impl Into<NewMode>,
        how: OpenMode,
        exclusive: bool,
    ) -> Result<Created, FsError> {
        let (mode, masked) = mode.into().masked(libc::S_IFREG);
        let op = pb::Create {
            parent: parent.get(),
            name: name.to_wire(),
            mode,
            masked,
            open: true,
            exclusive,
            ..pb::Create::default()
        };
        let change = self.listings.changing(parent);
        let entry = answers::entry(self.ask(caller, Kind::Create(op)).await?)?;
        drop(change);
        let attr = answers::attr(entry.attr)?;
        if !entry.created {
            // Another handle of this mount may be about to release the inode: open it in its own right.
            let opened = self.open(caller, attr.ino, how).await?;
            return Ok(Created { opened, created: false });
        }
        self.inodes.directory_changed(parent);
        let opened = self.adopt(caller, attr, entry.manifest, how)?;
        Ok(Created { opened, created: true })
    }

    /// Makes an inode of the type that `mode` says.
    ///
    /// # Errors
    /// `Exists` when the name is taken.
    pub async fn mknod(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
        mode: impl Into<NewMode>,
        rdev: u32,
    ) -> Result<Attr, FsError> {
        let mode = mode.into();
        let (mode, masked) = mode.masked(mode.bits & libc::S_IFMT);
        let what = pb::Create { mode, masked, rdev, ..pb::Create::default() };
        self.make(caller, parent, name, what).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `Exists` when the name is taken.
    pub async fn mkdir(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
        mode: impl Into<NewMode>,
    ) -> Result<Attr, FsError> {
        let (mode, masked) = mode.into().masked(libc::S_IFDIR);
        let what = pb::Create { mode, masked, ..pb::Create::default() };
        self.make(caller, parent, name, what).await
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// `Exists` when the name is taken; `NameTooLong` and `NotFound` for targets that no link may have.
    pub async fn symlink(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
        target: Bytes,
    ) -> Result<Attr, FsError> {
        if target.is_empty() {
            return Err(FsError::NotFound);
        }
        if target.len() > SYMLINK_MAX {
            return Err(FsError::NameTooLong);
        }
        let what = pb::Create { mode: libc::S_IFLNK | 0o777, target, ..pb::Create::default() };
        self.make(caller, parent, name, what).await
    }

    /// Gives `ino` the further name `name` in `parent`.
    ///
    /// # Errors
    /// `Exists` when the name is taken; `NotPermitted` for directories.
    pub async fn link(
        &self,
        caller: Caller,
        ino: Ino,
        parent: Ino,
        name: &FileName,
    ) -> Result<Attr, FsError> {
        let op = pb::Link { ino: ino.get(), parent: parent.get(), name: name.to_wire() };
        let change = self.listings.changing(parent);
        let entry = answers::entry(self.ask(caller, Kind::Link(op)).await?)?;
        drop(change);
        self.inodes.directory_changed(parent);
        Ok(self.merged(answers::attr(entry.attr)?))
    }

    async fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
        what: pb::Create,
    ) -> Result<Attr, FsError> {
        let op = pb::Create { parent: parent.get(), name: name.to_wire(), exclusive: true, ..what };
        let change = self.listings.changing(parent);
        let entry = answers::entry(self.ask(caller, Kind::Create(op)).await?)?;
        drop(change);
        self.inodes.directory_changed(parent);
        answers::attr(entry.attr)
    }
}
