//! Quotas of directories: what an account allows and what counts in it.
//!
//! An account is a directory with a [`QuotaRow`]; it has the directory's number. Every inode's row names
//! the innermost account that it counts in, inherited from the directory it was made in; the account's own
//! directory names itself. An account names the one around it, so that what counts inside counts outside
//! too. What always holds, in every snapshot: the usage of an account is the sum over all inodes that name
//! it or an account within it. It changes in the transaction that changes what it counts.
//!
//! What crosses the border of an account: a file with one name takes its usage with it; directories, and
//! files with several names, are refused with EXDEV, as between two file systems.
//!
//! - [`walk`]: counting what a directory held before it became an account, and the end of an account.

mod walk;

use bytes::Bytes;
use cairn_proto::FsError;

pub use walk::QuotaWalk;

use super::{Namespace, inodes::Inode};
use crate::{
    engine::EngineError,
    tables::{
        keys::{self, Table},
        rows::{QuotaRow, QuotaState},
        source,
    },
};

/// Accounts within each other; more means damage.
const DEPTH: usize = 256;
/// Accounts read at once.
const PAGE: usize = 4096;

/// Whether limits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limits {
    Enforced,
    Ignored,
}

/// The limits of an account; `None` stays as it is, 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Bytes that chunks may take, each reference counted.
    pub bytes: Option<u64>,
    /// Inodes.
    pub inodes: Option<u64>,
}

/// A number that went up or down.
const fn moved(by: u64, up: bool) -> i128 {
    if up { by as i128 } else { -(by as i128) }
}

fn shifted(value: u64, by: i128) -> u64 {
    u64::try_from(i128::from(value).saturating_add(by).max(0)).unwrap_or(u64::MAX)
}

impl Namespace {
    pub(super) fn quota(&mut self, account: u64) -> Result<Option<QuotaRow>, EngineError> {
        if account == 0 {
            return Ok(None);
        }
        source::row(&mut self.group, &keys::quota(account))
    }

    fn put_quota(&mut self, account: u64, row: &QuotaRow) {
        self.group.put_row(keys::quota(account), row);
    }

    /// Adds to an account and all around it; false when a limit is in the way.
    fn shift_usage(
        &mut self,
        account: u64,
        (bytes, inodes): (i128, i128),
        limits: Limits,
    ) -> Result<bool, EngineError> {
        let mut at = account;
        for _ in 0..DEPTH {
            let Some(mut row) = self.quota(at)? else { return Ok(true) };
            row.bytes = shifted(row.bytes, bytes);
            row.inodes = shifted(row.inodes, inodes);
            let beyond = |limit: u64, value: u64, by: i128| limit != 0 && by > 0 && value > limit;
            if limits == Limits::Enforced
                && row.state() != QuotaState::Ending
                && (beyond(row.bytes_limit, row.bytes, bytes)
                    || beyond(row.inodes_limit, row.inodes, inodes))
            {
                return Ok(false);
            }
            self.put_quota(at, &row);
            at = row.around;
        }
        Ok(true)
    }

    fn charge(&mut self, account: u64, bytes: i128, inodes: i128) -> Result<(), FsError> {
        match account == 0 || self.shift_usage(account, (bytes, inodes), Limits::Enforced)? {
            true => Ok(()),
            false => Err(FsError::QuotaExceeded),
        }
    }

    /// A new inode counts where the directory of its name counts.
    pub(super) fn charge_new(&mut self, inode: &Inode) -> Result<(), FsError> {
        self.charge(inode.row.quota, i128::from(inode.row.allocated), 1)
    }

    /// The chunks of a file take another sum of bytes.
    pub(super) fn charge_change(&mut self, before: u64, inode: &Inode) -> Result<(), FsError> {
        let change = i128::from(inode.row.allocated) - i128::from(before);
        if change == 0 {
            return Ok(());
        }
        self.charge(inode.row.quota, change, 0)
    }

    /// The same for a repair, which no limit refuses.
    pub(super) fn correct_usage(&mut self, before: u64, inode: &Inode) -> Result<(), EngineError> {
        let change = i128::from(inode.row.allocated) - i128::from(before);
        self.shift_usage(inode.row.quota, (change, 0), Limits::Ignored).map(|_| ())
    }

    /// An inode is gone, and the account with it when it was one.
    pub(super) fn release_usage(&mut self, inode: &Inode) -> Result<(), EngineError> {
        let account = inode.row.quota;
        if account == 0 {
            return Ok(());
        }
        let usage = (moved(allocated(inode), false), -1);
        self.shift_usage(account, usage, Limits::Ignored)?;
        if account == inode.ino
            && let Some(mut row) = self.quota(account)?
        {
            if row.inodes == 0 {
                self.group.delete(keys::quota(account));
            } else {
                // Files without a name that somebody holds open still count in it.
                row.set_state(QuotaState::Ending);
                self.put_quota(account, &row);
            }
        }
        Ok(())
    }

    /// The account that an inode counts in by the place of its name: of an account's own directory, the one
    /// around it.
    fn account_of(&mut self, inode: &Inode) -> Result<u64, EngineError> {
        if inode.row.quota != inode.ino {
            return Ok(inode.row.quota);
        }
        Ok(self.quota(inode.ino)?.map_or(0, |row| row.around))
    }

    /// The only name of an inode moves into a directory that counts in `account`. The caller stores the
    /// inode.
    pub(super) fn move_usage(&mut self, inode: &mut Inode, account: u64) -> Result<(), FsError> {
        let from = self.account_of(inode)?;
        if from == account {
            return Ok(());
        }
        if inode.row.is_directory() || inode.row.nlink > 1 {
            return Err(FsError::CrossDevice);
        }
        let bytes = allocated(inode);
        self.shift_usage(from, (moved(bytes, false), -1), Limits::Ignored)?;
        self.charge(account, moved(bytes, true), 1)?;
        inode.row.quota = account;
        Ok(())
    }

    /// Whether an inode may get a further name in a directory that counts in `account`.
    pub(super) fn may_link(inode: &Inode, account: u64) -> Result<(), FsError> {
        if inode.row.quota == account { Ok(()) } else { Err(FsError::CrossDevice) }
    }

    /// Makes the directory at `path` an account or changes its limits; in the pending group. What it holds
    /// is counted by [`QuotaWalk`].
    pub fn set_quota(
        &mut self,
        path: &str,
        limits: QuotaLimits,
    ) -> Result<(u64, QuotaRow), FsError> {
        let ino = self.resolve(path)?.ino.get();
        self.undoable(|namespace| {
            let mut directory = namespace.live_directory(ino)?;
            let mut row = match namespace.quota(ino)? {
                Some(row) if row.state() == QuotaState::Ending => return Err(FsError::Busy),
                Some(row) => row,
                None => {
                    let around = directory.row.quota;
                    directory.row.quota = ino;
                    namespace.put_inode(&directory);
                    let mut row = QuotaRow { around, inodes: 1, ..QuotaRow::default() };
                    row.set_state(QuotaState::Counting);
                    row
                }
            };
            row.bytes_limit = limits.bytes.unwrap_or(row.bytes_limit);
            row.inodes_limit = limits.inodes.unwrap_or(row.inodes_limit);
            path.trim_matches('/').clone_into(&mut row.path);
            namespace.put_quota(ino, &row);
            Ok((ino, row))
        })
    }

    /// Begins the end of the account of the directory at `path`, in the pending group.
    pub fn remove_quota(&mut self, path: &str) -> Result<(u64, QuotaRow), FsError> {
        let ino = self.resolve(path)?.ino.get();
        self.undoable(|namespace| {
            let mut row = namespace.quota(ino)?.ok_or(FsError::NoAttribute)?;
            if row.state() == QuotaState::Counting {
                return Err(FsError::Busy);
            }
            row.set_state(QuotaState::Ending);
            namespace.put_quota(ino, &row);
            Ok((ino, row))
        })
    }

    /// The innermost account that an inode counts in; 0: none.
    pub fn quota_of(&mut self, ino: u64) -> Result<u64, FsError> {
        Ok(self.inode(ino)?.row.quota)
    }

    /// All accounts.
    pub fn quotas(&mut self) -> Result<Vec<(u64, QuotaRow)>, EngineError> {
        let rows = self.group.rows(&Table::Quotas.all(), PAGE)?;
        let account =
            |(key, value): (Bytes, Bytes)| Ok((source::owner(&key)?, source::decode(&key, value)?));
        rows.into_iter().map(account).collect()
    }

    /// What is left of the tightest account that `ino` counts in: bytes that files could take there
    /// altogether and still, and inodes likewise; `None` where nothing limits it.
    pub(super) fn quota_room(&mut self, ino: u64) -> Result<QuotaRoom, EngineError> {
        let row: Option<crate::tables::rows::InodeRow> =
            source::row(&mut self.group, &keys::inode(ino))?;
        let mut room = QuotaRoom::default();
        let mut at = row.map_or(0, |row| row.quota);
        for _ in 0..DEPTH {
            let Some(row) = self.quota(at)? else { break };
            if row.state() != QuotaState::Ending {
                room.bytes = tighter(room.bytes, row.bytes_limit, row.bytes);
                room.inodes = tighter(room.inodes, row.inodes_limit, row.inodes);
            }
            at = row.around;
        }
        Ok(room)
    }

    /// A repair: the usage of an account is off by the difference of the two.
    pub(super) fn shift_account(
        &mut self,
        account: u64,
        stored: (u64, u64),
        found: (u64, u64),
    ) -> Result<Option<String>, FsError> {
        let Some(mut row) = self.quota(account)? else { return Ok(None) };
        let by = |stored: u64, found: u64| i128::from(found) - i128::from(stored);
        row.bytes = shifted(row.bytes, by(stored.0, found.0));
        row.inodes = shifted(row.inodes, by(stored.1, found.1));
        self.put_quota(account, &row);
        Ok(Some(format!("it counts {} bytes and {} inodes now", row.bytes, row.inodes)))
    }

    /// A repair: inodes name an account that does not exist. It is made, to be ended in order.
    pub(super) fn end_unknown_account(
        &mut self,
        account: u64,
        (bytes, inodes): (u64, u64),
    ) -> Result<Option<String>, FsError> {
        if self.quota(account)?.is_some() {
            return Ok(None);
        }
        let mut row = QuotaRow { bytes, inodes, ..QuotaRow::default() };
        row.set_state(QuotaState::Ending);
        self.put_quota(account, &row);
        Ok(Some("they are taken out of it".to_owned()))
    }
}

/// What counts of an inode besides itself.
fn allocated(inode: &Inode) -> u64 {
    if inode.row.is_regular() { inode.row.allocated } else { 0 }
}

/// (limit, what is left of it)
type Left = Option<(u64, u64)>;

/// What accounts leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QuotaRoom {
    pub(super) bytes: Left,
    pub(super) inodes: Left,
}

fn tighter(so_far: Left, limit: u64, used: u64) -> Left {
    let left = limit.saturating_sub(used);
    match so_far {
        _ if limit == 0 => so_far,
        Some((_, least)) if least <= left => so_far,
        _ => Some((limit, left)),
    }
}
