//! Rename, with RENAME_NOREPLACE and RENAME_EXCHANGE: a plan that reads and checks, then its
//! application, which cannot be refused.

use bytes::Bytes;
use cairn_proto::{FsError, Ino, pb};

use super::{
    Namespace,
    inodes::{Inode, check_name},
};
use crate::tables::rows::DentryRow;

const NOREPLACE: u32 = libc::RENAME_NOREPLACE;
const EXCHANGE: u32 = libc::RENAME_EXCHANGE;

/// One name and what it leads to.
struct Place {
    directory: u64,
    name: Bytes,
    entry: DentryRow,
    inode: Inode,
}

/// What a rename is going to do.
enum Plan {
    /// Both names lead to the same inode already.
    Nothing,
    /// `from` gets the new name; what was there before loses it.
    Move { from: Place, to_directory: u64, to_name: Bytes, replaced: Option<Place> },
    /// The two names swap what they lead to.
    Exchange { one: Place, other: Place },
}

impl Namespace {
    pub(super) fn rename(&mut self, request: &pb::Rename) -> Result<pb::Done, FsError> {
        match self.plan_rename(request)? {
            Plan::Nothing => {}
            Plan::Move { from, to_directory, to_name, replaced } => {
                self.apply_move(from, to_directory, &to_name, replaced)?;
            }
            Plan::Exchange { one, other } => self.apply_exchange(one, other)?,
        }
        Ok(pb::Done {})
    }

    fn place(&mut self, directory: u64, name: &Bytes) -> Result<Option<Place>, FsError> {
        let Some(entry) = self.dentry(directory, name)? else { return Ok(None) };
        let inode = self.inode(entry.ino)?;
        Ok(Some(Place { directory, name: name.clone(), entry, inode }))
    }

    fn plan_rename(&mut self, request: &pb::Rename) -> Result<Plan, FsError> {
        let flags = request.flags;
        if flags & !(NOREPLACE | EXCHANGE) != 0 || flags == NOREPLACE | EXCHANGE {
            return Err(FsError::InvalidArgument);
        }
        let exchange = flags == EXCHANGE;
        let (name, new_name) = (check_name(&request.name)?, check_name(&request.new_name)?);
        let parent = self.directory(request.parent)?.ino;
        let new_parent = self.directory(request.new_parent)?;
        let from = self.place(parent, &name)?.ok_or(FsError::NotFound)?;
        let to = self.place(new_parent.ino, &new_name)?;
        match &to {
            Some(_) if flags == NOREPLACE => return Err(FsError::Exists),
            None if exchange || new_parent.row.nlink == 0 => return Err(FsError::NotFound),
            _ => {}
        }
        let moved = &from.inode;
        if moved.row.is_directory() && self.is_within(new_parent.ino, moved.ino)? {
            return Err(FsError::InvalidArgument);
        }
        if let Some(to) = &to
            && to.inode.row.is_directory()
            && self.is_within(parent, to.inode.ino)?
        {
            return Err(if exchange { FsError::InvalidArgument } else { FsError::NotEmpty });
        }
        match to {
            Some(to) if to.inode.ino == moved.ino => Ok(Plan::Nothing),
            Some(mut to) if exchange => {
                let account = self.directory(parent)?.row.quota;
                let mut from = from;
                self.move_usage(&mut from.inode, new_parent.row.quota)?;
                self.move_usage(&mut to.inode, account)?;
                Ok(Plan::Exchange { one: from, other: to })
            }
            to => {
                if let Some(to) = &to {
                    check_replaceable(moved, &to.inode)?;
                }
                let mut from = from;
                self.move_usage(&mut from.inode, new_parent.row.quota)?;
                let to_directory = new_parent.ino;
                Ok(Plan::Move { from, to_directory, to_name: new_name, replaced: to })
            }
        }
    }

    /// Whether `directory` is `ancestor` or lies below it.
    fn is_within(&mut self, directory: u64, ancestor: u64) -> Result<bool, FsError> {
        let mut at = directory;
        // A path cannot be longer than there are directories; more steps mean damage, not depth.
        for _ in 0..=self.counters.directories {
            if at == ancestor {
                return Ok(true);
            }
            if at == Ino::ROOT.get() {
                return Ok(false);
            }
            at = self.directory(at)?.row.parent;
            if at == 0 {
                return Ok(false);
            }
        }
        Err(FsError::Io)
    }

    fn apply_move(
        &mut self,
        from: Place,
        to_directory: u64,
        to_name: &Bytes,
        replaced: Option<Place>,
    ) -> Result<(), FsError> {
        let now = self.now();
        let Place { directory, name, entry, mut inode } = from;
        let is_directory = inode.row.is_directory();

        let mut source = self.directory(directory)?;
        self.remove_entry(&mut source, &name, &entry);
        if is_directory {
            source.row.nlink = source.row.nlink.saturating_sub(1);
        }
        self.touch_data(&mut source, now);
        self.put_inode(&source);

        let mut target = self.directory(to_directory)?;
        match replaced {
            Some(old) => {
                self.redirect_entry(to_directory, to_name, &old.entry, inode.ino, inode.row.mode);
                if old.inode.row.is_directory() {
                    target.row.nlink = target.row.nlink.saturating_sub(1);
                }
                self.drop_name(old.inode, now)?;
            }
            None => self.add_entry(&mut target, to_name, inode.ino, inode.row.mode),
        }
        if is_directory {
            target.row.nlink = target.row.nlink.checked_add(1).ok_or(FsError::TooManyLinks)?;
            inode.row.parent = to_directory;
        }
        self.touch_data(&mut target, now);
        self.put_inode(&target);
        self.touch(&mut inode, now);
        self.put_inode(&inode);
        Ok(())
    }

    fn apply_exchange(&mut self, mut one: Place, mut other: Place) -> Result<(), FsError> {
        let now = self.now();
        for (place, arriving) in [(&one, &other), (&other, &one)] {
            let (ino, mode) = (arriving.inode.ino, arriving.inode.row.mode);
            self.redirect_entry(place.directory, &place.name, &place.entry, ino, mode);
            let mut directory = self.directory(place.directory)?;
            let leaves = u32::from(place.inode.row.is_directory());
            let arrives = u32::from(arriving.inode.row.is_directory());
            directory.row.nlink = (directory.row.nlink + arrives).saturating_sub(leaves);
            self.touch_data(&mut directory, now);
            self.put_inode(&directory);
        }
        let directories = (one.directory, other.directory);
        for (place, new_parent) in [(&mut one, directories.1), (&mut other, directories.0)] {
            // Read again: one of the two directories may be the parent of the other name.
            let mut inode = self.inode(place.inode.ino)?;
            if inode.row.is_directory() {
                inode.row.parent = new_parent;
            }
            inode.row.quota = place.inode.row.quota;
            self.touch(&mut inode, now);
            self.put_inode(&inode);
        }
        Ok(())
    }
}

fn check_replaceable(moved: &Inode, replaced: &Inode) -> Result<(), FsError> {
    match (moved.row.is_directory(), replaced.row.is_directory()) {
        (true, false) => Err(FsError::NotDirectory),
        (false, true) => Err(FsError::IsDirectory),
        (true, true) if replaced.row.entries != 0 => Err(FsError::NotEmpty),
        (true, true) | (false, false) => Ok(()),
    }
}
