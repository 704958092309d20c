//! lookup, getattr, readlink, and paths for the command line.

use bytes::Bytes;
use cairn_proto::{Attr, FileKind, FileName, FsError, Ino, pb, pb::op::Kind};

use super::{Caller, Vfs, answers};

impl Vfs {
    /// The attributes of the inode that `name` in `parent` refers to.
    ///
    /// # Errors
    /// `NotFound` when there is no such name.
    pub async fn lookup(
        &self,
        caller: Caller,
        parent: Ino,
        name: &FileName,
    ) -> Result<Attr, FsError> {
        let op = pb::Lookup { parent: parent.get(), name: name.to_wire() };
        let entry = answers::entry(self.ask(caller, Kind::Lookup(op)).await?)?;
        Ok(self.merged(answers::attr(entry.attr)?))
    }

    /// The attributes of `ino`, this mount's own writes included. What is no regular file can have no
    /// name any longer and still be somebody's working directory or open: then it is as it was, without
    /// a name.
    ///
    /// # Errors
    /// `Stale` when it is gone.
    pub async fn getattr(&self, caller: Caller, ino: Ino) -> Result<Attr, FsError> {
        let op = pb::GetAttr { ino: ino.get() };
        let answer = self.ask(caller, Kind::GetAttr(op)).await.and_then(answers::attr_reply);
        match (answer, self.inodes.last_told(ino)) {
            (Err(FsError::Stale), Some(attr)) => Ok(Attr { nlink: 0, ..attr }),
            (answer, _) => answer.map(|attr| self.merged(attr)),
        }
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `InvalidArgument` when `ino` is none.
    pub async fn readlink(&self, caller: Caller, ino: Ino) -> Result<Bytes, FsError> {
        self.other_was_read(ino);
        let op = pb::ReadLink { ino: ino.get() };
        match self.ask(caller, Kind::ReadLink(op)).await? {
            pb::reply::Kind::LinkTarget(link) => Ok(link.target),
            other => Err(answers::unexpected(&other)),
        }
    }

    /// The inode at `path`, components separated by `/`; empty ones and `.` are skipped. Symbolic
    /// links are not followed.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory` as on a local disk; `InvalidArgument` for `..`.
    pub async fn resolve(&self, caller: Caller, path: &[u8]) -> Result<Attr, FsError> {
        let mut at = self.getattr(caller, self.session.root()).await?;
        for name in components(path) {
            if at.kind() != FileKind::Directory {
                return Err(FsError::NotDirectory);
            }
            at = self.lookup(caller, at.ino, &name?).await?;
        }
        Ok(at)
    }

    /// The directory that holds the last component of `path`, and that component. Missing
    /// directories are made when `make_with_mode` is given.
    ///
    /// # Errors
    /// As [`Vfs::resolve`]; `InvalidArgument` when `path` names the root.
    pub async fn resolve_parent(
        &self,
        caller: Caller,
        path: &[u8],
        make_with_mode: Option<u32>,
    ) -> Result<(Ino, FileName), FsError> {
        let mut names = components(path).collect::<Result<Vec<_>, _>>()?;
        let last = names.pop().ok_or(FsError::InvalidArgument)?;
        let mut at = self.session.root();
        for name in &names {
            let found = match (self.lookup(caller, at, name).await, make_with_mode) {
                (Err(FsError::NotFound), Some(mode)) => {
                    match self.mkdir(caller, at, name, mode).await {
                        Err(FsError::Exists) => self.lookup(caller, at, name).await,
                        made => made,
                    }
                }
                (found, _) => found,
            }?;
            if found.kind() != FileKind::Directory {
                return Err(FsError::NotDirectory);
            }
            at = found.ino;
        }
        Ok((at, last))
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = Result<FileName, FsError>> + '_ {
    path.split(|b| *b == b'/').filter(|c| !matches!(*c, b"" | b".")).map(FileName::try_from)
}
