//! What mends a finding of the check, as ordinary changes while the master serves.
//!
//! A finding is of a snapshot and may be old. So every remedy looks at the rows again and does nothing
//! when they have changed: counts that were taken of the snapshot are stored only while the inode has
//! the version that it had there, and what is counted without a version (the usage counters, the names
//! in a directory, the users of a segment) is shifted by what was missing, which operations in between
//! leave as it is: a directory that programs work in all the time never has the version it had.
//!
//! Nothing that has a name, and nothing that a name could be given to, is destroyed: an inode that
//! lost its name gets one in `/lost+found`. What goes are rows that nothing refers to.
//!
//! - [`inodes`]: counts of an inode and of all. [`names`]: names and listings. [`lost`]: what lost its
//!   name. [`rows`]: rows that belong to nothing, users of segments.

mod inodes;
mod lost;
mod names;
mod rows;

use bytes::Bytes;
use cairn_proto::FsError;

use super::{Counters, Namespace, inodes::Inode};
use crate::tables::{keys, source};

/// What would mend a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The usage counters are off by the difference of the two.
    Counters {
        /// What they say.
        stored: Counters,
        /// What there is.
        found: Counters,
    },
    /// List `ino`, which has no name, as an orphan: it is freed when nobody holds it open.
    ListOrphan {
        /// The inode.
        ino: u64,
    },
    /// `ino` is no orphan: take it off the list.
    UnlistOrphan {
        /// The inode.
        ino: u64,
    },
    /// `ino` exists: what belongs to it is not to be freed.
    NotDead {
        /// The inode.
        ino: u64,
    },
    /// `ino` does not exist: free its lists and attributes.
    Leftovers {
        /// The inode that was.
        ino: u64,
    },
    /// The names that a directory says it holds are off by the difference of the two.
    Entries {
        /// The directory.
        ino: u64,
        /// What it says.
        stored: u64,
        /// What there are.
        found: u64,
    },
    /// The links of a directory are off by the difference of the two.
    DirectoryLinks {
        /// The directory.
        ino: u64,
        /// What it says.
        stored: u32,
        /// What there are.
        found: u32,
    },
    /// Give out no place in a directory's listing below this one.
    NextCookie {
        /// The directory.
        ino: u64,
        /// A place that no name of it has, nor any behind it.
        next_cookie: u64,
    },
    /// List a name as it is.
    Cookie {
        /// The directory.
        directory: u64,
        /// The name in it.
        name: Bytes,
    },
    /// Take a name off the listing that is not there.
    CookieOfNothing {
        /// The directory.
        directory: u64,
        /// The place in its listing.
        cookie: u64,
    },
    /// Remove a name that leads nowhere or lies in no directory.
    NameOfNothing {
        /// The directory, or what should be one.
        directory: u64,
        /// The name in it.
        name: Bytes,
    },
    /// Give a name the type of its inode.
    NameKind {
        /// The directory.
        directory: u64,
        /// The name in it.
        name: Bytes,
    },
    /// Let the directory that a name leads to know where it lies; or remove the name, when it lies
    /// elsewhere indeed.
    Parent {
        /// The directory that holds the name.
        directory: u64,
        /// The name in it.
        name: Bytes,
    },
    /// Store how many names an inode has.
    Links {
        /// The inode.
        ino: u64,
        /// Its version then.
        version: u64,
        /// Its names.
        names: u32,
    },
    /// Give an inode that lost its name one in `/lost+found`.
    Reattach {
        /// The inode.
        ino: u64,
        /// Its version then.
        version: u64,
    },
    /// Take a directory that lies within itself out of the loop.
    Loop {
        /// The directory.
        ino: u64,
    },
    /// Store the length of the list of attributes, and which there are.
    AttributeList {
        /// The inode.
        ino: u64,
        /// Its version then.
        version: u64,
        /// The length.
        bytes: u64,
        /// Which, as [`cairn_proto::xattr`] has them.
        bits: u32,
    },
    /// Store what the references in a segment of a file add up to.
    Stored {
        /// The file.
        ino: u64,
        /// Its version then.
        version: u64,
        /// Which of its segments.
        number: u64,
        /// The segment.
        segment: u64,
        /// The sum.
        stored: u64,
    },
    /// Store what all references of a file add up to.
    Allocated {
        /// The file.
        ino: u64,
        /// Its version then.
        version: u64,
        /// The sum.
        allocated: u64,
    },
    /// The users of a segment are miscounted by the difference of the two.
    Users {
        /// The segment.
        segment: u64,
        /// What was counted.
        counted: u64,
        /// How many there are.
        found: u64,
    },
    /// Remove the count of a segment that does not exist or has one user.
    ShareOfNothing {
        /// The segment.
        segment: u64,
    },
    /// Remove the replies of a session that has ended.
    RepliesOfNothing {
        /// The session.
        session: u64,
    },
    /// The usage of a quota, bytes and inodes, is off by the difference of the two.
    QuotaUsage {
        /// Its directory.
        account: u64,
        /// What it says.
        stored: (u64, u64),
        /// What there is.
        found: (u64, u64),
    },
    /// Take inodes out of a quota that does not exist.
    UnknownQuota {
        /// What they name.
        account: u64,
        /// What they add up to.
        usage: (u64, u64),
    },
    /// Free the locks of a session that has ended.
    LocksOfNothing {
        /// The session.
        session: u64,
    },
}

/// What was done, as a sentence; `None`: things have changed, nothing was.
type Mended = Result<Option<String>, FsError>;

impl Namespace {
    /// Applies a remedy in the pending group, if it still applies. Says what was done.
    ///
    /// # Errors
    /// When rows cannot be read; nothing is changed then.
    pub fn repair(&mut self, remedy: &Remedy) -> Mended {
        self.undoable(|namespace| namespace.apply(remedy))
    }

    fn apply(&mut self, remedy: &Remedy) -> Mended {
        match *remedy {
            Remedy::Counters { stored, found } => Ok(self.shift_counters(stored, found)),
            Remedy::ListOrphan { ino } => self.list_orphan(ino),
            Remedy::UnlistOrphan { ino } => self.unlist_orphan(ino),
            Remedy::NotDead { ino } => self.not_dead(ino),
            Remedy::Leftovers { ino } => self.leftovers(ino),
            Remedy::Entries { ino, stored, found } => self.shift_entries(ino, stored, found),
            Remedy::DirectoryLinks { ino, stored, found } => self.shift_links(ino, stored, found),
            Remedy::NextCookie { ino, next_cookie } => self.raise_next_cookie(ino, next_cookie),
            Remedy::Cookie { directory, ref name } => self.list_name(directory, name),
            Remedy::CookieOfNothing { directory, cookie } => self.unlist_name(directory, cookie),
            Remedy::NameOfNothing { directory, ref name } => self.drop_dangling(directory, name),
            Remedy::NameKind { directory, ref name } => self.name_kind(directory, name),
            Remedy::Parent { directory, ref name } => self.name_parent(directory, name),
            Remedy::Links { ino, version, names } => self.store_links(ino, version, names),
            Remedy::Reattach { ino, version } => self.reattach(ino, version),
            Remedy::Loop { ino } => self.break_loop(ino),
            Remedy::AttributeList { ino, version, bytes, bits } => {
                self.attribute_list(ino, version, (bytes, bits))
            }
            Remedy::Stored { ino, version, number, segment, stored } => {
                self.store_sum(ino, version, (number, segment, stored))
            }
            Remedy::Allocated { ino, version, allocated } => {
                self.store_allocated(ino, version, allocated)
            }
            Remedy::Users { segment, counted, found } => self.shift_users(segment, counted, found),
            Remedy::ShareOfNothing { segment } => self.drop_share(segment),
            Remedy::RepliesOfNothing { session } => self.drop_replies(session),
            Remedy::QuotaUsage { account, stored, found } => {
                self.shift_account(account, stored, found)
            }
            Remedy::UnknownQuota { account, usage } => self.end_unknown_account(account, usage),
            Remedy::LocksOfNothing { session } => Ok(self.free_locks(session)),
        }
    }

    /// The inode, if there is one.
    fn existing(&mut self, ino: u64) -> Result<Option<Inode>, FsError> {
        let row = source::row(&mut self.group, &keys::inode(ino))?;
        Ok(row.map(|row| Inode { ino, row }))
    }

    /// The inode, if it is still as the check saw it.
    fn unchanged(&mut self, ino: u64, version: u64) -> Result<Option<Inode>, FsError> {
        Ok(self.existing(ino)?.filter(|inode| inode.row.version == version))
    }

    fn put_mended(&mut self, mut inode: Inode) {
        let now = self.now();
        self.touch(&mut inode, now);
        self.put_inode(&inode);
    }
}
