//! `/lost+found`: where an inode gets a name that has lost its own.

use bytes::Bytes;
use cairn_proto::{FileKind, FsError, Ino};

use super::{Mended, Namespace};
use crate::namespace::{create::Blueprint, inodes::Inode};

const LOST_AND_FOUND: &str = "lost+found";
/// How many names are tried before giving up.
const TRIES: u32 = 100;

impl Namespace {
    pub(super) fn reattach(&mut self, ino: u64, version: u64) -> Mended {
        let Some(inode) = self.unchanged(ino, version)? else { return Ok(None) };
        if inode.row.nlink == 0 || ino == Ino::ROOT.get() {
            return Ok(None);
        }
        self.name_again(inode).map(Some)
    }

    pub(super) fn break_loop(&mut self, ino: u64) -> Mended {
        let Some(inode) = self.existing(ino)? else { return Ok(None) };
        if !inode.row.is_directory() || !self.lies_within_itself(&inode)? {
            return Ok(None);
        }
        let above = inode.row.parent;
        if let Some((name, entry)) = self.name_in(above, ino)?
            && let Some(mut holder) = self.existing(above)?
        {
            self.remove_entry(&mut holder, &name, &entry);
            holder.row.nlink = holder.row.nlink.saturating_sub(1);
            self.put_mended(holder);
        }
        // Read again: in the shortest loop it is its own parent.
        let Some(inode) = self.existing(ino)? else { return Ok(None) };
        self.name_again(inode).map(Some)
    }

    fn lies_within_itself(&mut self, inode: &Inode) -> Result<bool, FsError> {
        let mut at = inode.row.parent;
        for _ in 0..=self.counters.directories {
            if at == inode.ino {
                return Ok(true);
            }
            match self.existing(at)? {
                Some(above) if at != Ino::ROOT.get() => at = above.row.parent,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    fn name_again(&mut self, mut inode: Inode) -> Result<String, FsError> {
        let (mut lost, place) = self.lost_and_found()?;
        let name = self.free_name(lost.ino, &format!("#{}", inode.ino))?;
        self.add_entry(&mut lost, &name, inode.ino, inode.row.mode);
        if inode.row.is_directory() {
            inode.row.parent = lost.ino;
            lost.row.nlink += 1;
        } else {
            inode.row.nlink = 1;
        }
        let now = self.now();
        self.touch_data(&mut lost, now);
        self.put_inode(&lost);
        self.put_mended(inode);
        Ok(format!("it is /{place}/{} now", name.escape_ascii()))
    }

    /// The directory, made when there is none, and its name.
    fn lost_and_found(&mut self) -> Result<(Inode, String), FsError> {
        for n in 0..TRIES {
            let name =
                if n == 0 { LOST_AND_FOUND.to_owned() } else { format!("{LOST_AND_FOUND}.{n}") };
            let bytes = Bytes::from(name.clone());
            let Some(entry) = self.dentry(Ino::ROOT.get(), &bytes)? else {
                let mut root = self.directory(Ino::ROOT.get())?;
                let ino = self.ids.ino(self.group.engine().as_ref())?;
                let made = self.add_inode(ino, &mut root, &bytes, blueprint())?;
                self.put_inode(&made);
                self.put_inode(&root);
                return Ok((made, name));
            };
            if let Some(inode) = self.existing(entry.ino)?
                && inode.row.is_directory()
            {
                return Ok((inode, name));
            }
        }
        Err(FsError::Exists)
    }

    fn free_name(&mut self, directory: u64, wanted: &str) -> Result<Bytes, FsError> {
        for n in 0..TRIES {
            let name =
                Bytes::from(if n == 0 { wanted.to_owned() } else { format!("{wanted}.{n}") });
            if self.dentry(directory, &name)?.is_none() {
                return Ok(name);
            }
        }
        Err(FsError::Exists)
    }
}

fn blueprint() -> Blueprint {
    Blueprint {
        kind: FileKind::Directory,
        permissions: 0o700,
        masked: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Bytes::new(),
    }
}
