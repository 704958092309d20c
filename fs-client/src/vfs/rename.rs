//! rename.

use cairn_proto::{FileName, FsError, Ino, pb, pb::op::Kind};

use super::{Caller, Vfs, answers};

const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;

impl Vfs {
    /// Moves a name, over an existing one unless `flags` says otherwise (`RENAME_NOREPLACE` 1,
    /// `RENAME_EXCHANGE` 2).
    ///
    /// # Errors
    /// As rename(2); `InvalidArgument` for other flags.
    pub async fn rename(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
        new_parent: Ino,
        new_name: &FileName,
        flags: u32,
    ) -> Result<(), FsError> {
        if flags & !(NOREPLACE | EXCHANGE) != 0 {
            return Err(FsError::InvalidArgument);
        }
        let op = pb::Rename {
            parent: parent.get(),
            name: name.to_wire(),
            new_parent: new_parent.get(),
            new_name: new_name.to_wire(),
            flags,
        };
        let _changes = [self.listings.changing(parent), self.listings.changing(new_parent)];
        answers::done(self.ask(caller, Kind::Rename(op)).await?)?;
        self.inodes.directory_changed(parent);
        self.inodes.directory_changed(new_parent);
        Ok(())
    }
}
