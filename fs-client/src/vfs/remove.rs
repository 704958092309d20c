//! unlink, rmdir.

use cairn_proto::{FileName, FsError, Ino, pb, pb::op::Kind};

use super::{Caller, Vfs, answers};

impl Vfs {
    /// Removes a name that is no directory's. An inode that is open stays until its last handle goes.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`.
    pub async fn unlink(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
    ) -> Result<(), FsError> {
        let op = pb::Unlink { parent: parent.get(), name: name.to_wire() };
        let _change = self.listings.changing(parent);
        answers::done(self.ask(caller, Kind::Unlink(op)).await?)?;
        self.inodes.directory_changed(parent);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`.
    pub async fn rmdir(&self, caller: Caller, parent: Ino, name: &FileName) -> Result<(), FsError> {
        let op = pb::Rmdir { parent: parent.get(), name: name.to_wire() };
        let _change = self.listings.changing(parent);
        answers::done(self.ask(caller, Kind::Rmdir(op)).await?)?;
        self.inodes.directory_changed(parent);
        Ok(())
    }
}
