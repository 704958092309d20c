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
        mode: u32,
        how: OpenMode,
        exclusive: bool,
    ) -> Result<Created, FsError> {
        let op = pb::Create {
            parent: parent.get(),
            name: name.to_wire(),
            mode: libc::S_IFREG | (mode & 0o7777),
            open: true,
            exclusive,
            ..pb::Create::default()
        };
        let entry = answers::entry(self.ask(caller, Kind::Create(op)).await?)?;
        let attr = answers::attr(entry.attr)?;
        if !entry.created {
            // Another handle of this mount may be about to release the inode: open it in its own right.
            let opened = self.open(caller, attr.ino, how).await?;
            return Ok(Created { opened, created: false });
        }
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
        mode: u32,
        rdev: u32,
    ) -> Result<Attr, FsError> {
        self.make(caller, parent, name, mode, rdev, Bytes::new()).await
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
        mode: u32,
    ) -> Result<Attr, FsError> {
        let mode = libc::S_IFDIR | (mode & 0o7777);
        self.make(caller, parent, name, mode, 0, Bytes::new()).await
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
        self.make(caller, parent, name, libc::S_IFLNK | 0o777, 0, target).await
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
        let entry = answers::entry(self.ask(caller, Kind::Link(op)).await?)?;
        Ok(self.files.merged(answers::attr(entry.attr)?))
    }

    async fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
        mode: u32,
        rdev: u32,
        target: Bytes,
    ) -> Result<Attr, FsError> {
        let op = pb::Create {
            parent: parent.get(),
            name: name.to_wire(),
            mode,
            rdev,
            target,
            exclusive: true,
            ..pb::Create::default()
        };
        let entry = answers::entry(self.ask(caller, Kind::Create(op)).await?)?;
        answers::attr(entry.attr)
    }
}
