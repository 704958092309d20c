//! Rows that belong to nothing: orphans that are none, lists, attributes, replies and locks whose
//! owner is gone; and numbers that would be given out twice.

use super::{Check, Stop};
use crate::{
    engine::Direction,
    namespace::Remedy,
    tables::{
        keys::{self, Mark, Table},
        rows::ShareRow,
        source::{self, Source},
    },
};

impl Check<'_> {
    pub(super) fn orphans(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Orphans.all(), Direction::Forward) {
            let ino = source::owner(&pair?.0)?;
            if self.inode(ino)?.is_none_or(|row| row.nlink != 0) {
                let what = format!("inode {ino} is listed as an orphan and is none");
                self.say_with(what, Remedy::UnlistOrphan { ino });
            }
            self.step()?;
        }
        Ok(())
    }

    /// What is being freed exists no more.
    pub(super) fn dead(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Dead.all(), Direction::Forward) {
            let ino = source::owner(&pair?.0)?;
            if self.inode(ino)?.is_some() {
                let what = format!("inode {ino} exists and is said to be gone");
                self.say_with(what, Remedy::NotDead { ino });
            }
            self.step()?;
        }
        Ok(())
    }

    /// Every list belongs to a file, or to one that is being freed.
    pub(super) fn lists(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Lists.all(), Direction::Forward) {
            let ino = source::owner(&pair?.0)?;
            match self.inode(ino)? {
                Some(row) if row.is_regular() => {}
                Some(_) => self.say(format!("inode {ino} has references and is no file")),
                None => self.left_behind(ino, "references")?,
            }
            self.step()?;
        }
        Ok(())
    }

    /// Every attribute belongs to an inode, or to one that is being freed.
    pub(super) fn attributes_of_nothing(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        let mut last = None;
        for pair in reader.scan(Table::Xattrs.all(), Direction::Forward) {
            let ino = source::owner(&pair?.0)?;
            if last.replace(ino) != Some(ino) && self.inode(ino)?.is_none() {
                self.left_behind(ino, "attributes")?;
            }
            self.step()?;
        }
        Ok(())
    }

    fn left_behind(&mut self, ino: u64, what: &str) -> Result<(), Stop> {
        if self.source.get(&keys::dead(ino))?.is_none() {
            let what = format!("{what} of inode {ino} are left, but it does not exist");
            self.say_with(what, Remedy::Leftovers { ino });
        }
        Ok(())
    }

    pub(super) fn shares(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Shares.all(), Direction::Forward) {
            let (key, value) = pair?;
            let segment = source::owner(&key)?;
            let row: ShareRow = source::decode(&key, value)?;
            if row.users < 2 || self.source.get(&keys::segment(segment))?.is_none() {
                let what = format!("segment {segment} is said to have {} users", row.users);
                self.say_with(what, Remedy::ShareOfNothing { segment });
            }
            self.step()?;
        }
        Ok(())
    }

    /// Every reply belongs to a session.
    pub(super) fn replies(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        let mut last = None;
        for pair in reader.scan(Table::Replies.all(), Direction::Forward) {
            let session = source::owner(&pair?.0)?;
            if last.replace(session) != Some(session)
                && self.source.get(&keys::session(session))?.is_none()
            {
                let what = format!("replies of session {session} are left, but it has ended");
                self.say_with(what, Remedy::RepliesOfNothing { session });
            }
            self.step()?;
        }
        Ok(())
    }

    /// Every lock belongs to a session and is on an inode.
    pub(super) fn locks(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Locks.all(), Direction::Forward) {
            let (key, _) = pair?;
            let ino = source::owner(&key)?;
            let session = source::second(&key)?;
            if self.source.get(&keys::session(session))?.is_none() {
                let what = format!("inode {ino} is locked by session {session}, which has ended");
                self.say_with(what, Remedy::LocksOfNothing { session });
            } else if self.inode(ino)?.is_none() {
                self.say(format!("session {session} has locked inode {ino}, which does not exist"));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Numbers beyond the mark up to which they were given out would be given out again.
    pub(super) fn numbers(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for (table, mark, what) in [
            (Table::Inodes, Mark::Ino, "inode"),
            (Table::Segments, Mark::Segment, "segment"),
            (Table::Sessions, Mark::Session, "session"),
        ] {
            let last = reader.scan(table.all(), Direction::Backward).next().transpose()?;
            let Some((key, _)) = last else { continue };
            let last = source::owner(&key)?;
            // The root has its number from the start.
            if last <= 1 && table == Table::Inodes {
                continue;
            }
            let stored = self.source.get(&keys::mark(mark))?;
            let end = stored.and_then(|bytes| bytes.as_ref().try_into().ok());
            if end.map_or(0, u64::from_be_bytes) <= last {
                self.say(format!("the number of {what} {last} would be given out again"));
            }
        }
        Ok(())
    }
}
