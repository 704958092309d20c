//! Work that an account makes once: counting what its directory holds already, and letting go of it at
//! the end. In bounded steps while the master serves; after a restart from the beginning, which finds
//! what is done already.
//!
//! Going down the tree, a directory is moved over to its new account when it is seen in the listing of the
//! one above, before it is looked into. From then on what is made in it counts rightly, and it cannot
//! leave (EXDEV). Entries that come later have later places in the listing. So a walk misses nothing,
//! whatever happens meanwhile. What an ending account still counts after its walk (files with several
//! names, without one, in `/lost+found`) is found by passes over all inodes.

use bytes::Bytes;

use super::{Namespace, allocated, moved, shifted};
use crate::{
    engine::EngineError,
    failpoints,
    namespace::inodes::{FIRST_COOKIE, Inode},
    tables::{
        keys::{self, Table},
        rows::{CookieRow, InodeRow, QuotaState},
        source::{self, Source},
    },
};

/// Rows looked at in one step.
const STEP: usize = 128;

/// How far the work for one account is.
#[derive(Debug)]
pub struct QuotaWalk {
    account: u64,
    state: QuotaState,
    /// Directories to be looked into, and the place where their listing goes on.
    stack: Vec<(u64, u64)>,
    /// Of an ending account, after the tree: where the pass over all inodes goes on.
    pass: Option<u64>,
    found_in_pass: bool,
}

impl QuotaWalk {
    /// From the beginning; `None` when there is nothing to do for an account in this state.
    pub fn of(account: u64, state: QuotaState) -> Option<Self> {
        let stack = vec![(account, FIRST_COOKIE)];
        match state {
            QuotaState::Settled => None,
            QuotaState::Counting | QuotaState::Ending => {
                Some(Self { account, state, stack, pass: None, found_in_pass: false })
            }
        }
    }
}

impl Namespace {
    /// Does a bounded part of the work, in the pending group. False when it is done, or there is
    /// nothing to be done any more.
    pub fn quota_step(&mut self, walk: &mut QuotaWalk) -> Result<bool, EngineError> {
        let counters = self.counters;
        self.group.begin();
        let result = self.one_step(walk);
        if result.is_err() {
            self.group.undo();
            self.counters = counters;
        }
        failpoints::hit(failpoints::QUOTA_STEP);
        result
    }

    fn one_step(&mut self, walk: &mut QuotaWalk) -> Result<bool, EngineError> {
        match self.quota(walk.account)? {
            Some(row) if row.state() == walk.state => {}
            _ => return Ok(false),
        }
        if walk.state == QuotaState::Ending {
            self.let_go_of_directory(walk.account)?;
        }
        if let Some((directory, from)) = walk.stack.pop() {
            self.look_into(walk, directory, from)?;
            return Ok(true);
        }
        match walk.state {
            QuotaState::Settled => Ok(false),
            QuotaState::Counting => {
                if let Some(mut row) = self.quota(walk.account)? {
                    row.set_state(QuotaState::Settled);
                    self.put_quota(walk.account, &row);
                }
                Ok(false)
            }
            QuotaState::Ending => self.pass_over_all(walk),
        }
    }

    /// The directory of an ending account counts in the one around it again, and so does what is made in
    /// it. Accounts within it lie in that one, too.
    fn let_go_of_directory(&mut self, account: u64) -> Result<(), EngineError> {
        let row: Option<InodeRow> = source::row(&mut self.group, &keys::inode(account))?;
        if let Some(row) = row.filter(|row| row.quota == account) {
            self.take_over(Inode { ino: account, row }, account, QuotaState::Ending)?;
        }
        for (inner, mut row) in self.quotas()? {
            if row.around == account && inner != account {
                let Some(mut ending) = self.quota(account)? else { return Ok(()) };
                row.around = ending.around;
                ending.bytes = ending.bytes.saturating_sub(row.bytes);
                ending.inodes = ending.inodes.saturating_sub(row.inodes);
                self.put_quota(inner, &row);
                self.put_quota(account, &ending);
            }
        }
        Ok(())
    }

    fn look_into(
        &mut self,
        walk: &mut QuotaWalk,
        directory: u64,
        from: u64,
    ) -> Result<(), EngineError> {
        let page = self.group.page(&Table::Cookies.of_from(directory, from), STEP)?;
        let more = page.len() == STEP;
        if let Some((last, _)) = page.last().filter(|_| more) {
            walk.stack.push((directory, source::second(last)?.saturating_add(1)));
        }
        for (key, value) in page {
            let entry: CookieRow = source::decode(&key, value)?;
            let row: Option<InodeRow> = source::row(&mut self.group, &keys::inode(entry.ino))?;
            let Some(row) = row else { continue };
            let is_directory = row.is_directory();
            let inode = Inode { ino: entry.ino, row };
            if self.take_over(inode, walk.account, walk.state)? && is_directory {
                walk.stack.push((entry.ino, FIRST_COOKIE));
            }
        }
        Ok(())
    }

    /// Lets an inode name the account that it shall count in. Whether what lies below it is to be looked
    /// at: not below the directory of another account.
    fn take_over(
        &mut self,
        mut inode: Inode,
        account: u64,
        state: QuotaState,
    ) -> Result<bool, EngineError> {
        let Some(mut row) = self.quota(account)? else { return Ok(false) };
        let counting = state == QuotaState::Counting;
        let (from, to) = if counting { (row.around, account) } else { (account, row.around) };
        if inode.row.quota == inode.ino && inode.ino != account {
            return self.take_over_account(inode.ino, account, (from, to)).map(|()| false);
        }
        if inode.row.quota == from {
            row.bytes = shifted(row.bytes, moved(allocated(&inode), counting));
            row.inodes = shifted(row.inodes, moved(1, counting));
            self.put_quota(account, &row);
            inode.row.quota = to;
            self.put_inode(&inode);
        }
        Ok(inode.row.quota == to)
    }

    /// An account within one that is being counted: it lies in that now.
    fn take_over_account(
        &mut self,
        inner: u64,
        account: u64,
        (from, to): (u64, u64),
    ) -> Result<(), EngineError> {
        let (Some(mut row), Some(mut outer)) = (self.quota(inner)?, self.quota(account)?) else {
            return Ok(());
        };
        if row.around == from && to == account {
            row.around = account;
            outer.bytes = outer.bytes.saturating_add(row.bytes);
            outer.inodes = outer.inodes.saturating_add(row.inodes);
            self.put_quota(inner, &row);
            self.put_quota(account, &outer);
        }
        Ok(())
    }

    /// Looks at all inodes until a pass finds none that names the account; then it is no more.
    fn pass_over_all(&mut self, walk: &mut QuotaWalk) -> Result<bool, EngineError> {
        let settled = self.quota(walk.account)?.is_none_or(|row| row.inodes == 0);
        let Some(from) = walk.pass else {
            if settled {
                self.group.delete(keys::quota(walk.account));
                return Ok(false);
            }
            walk.pass = Some(0);
            return Ok(true);
        };
        let page: Vec<(Bytes, Bytes)> = self.group.page(&Table::Inodes.starting(from), STEP)?;
        let Some((last, _)) = page.last().cloned() else {
            if !walk.found_in_pass {
                self.group.delete(keys::quota(walk.account));
                return Ok(false);
            }
            (walk.pass, walk.found_in_pass) = (Some(0), false);
            return Ok(true);
        };
        for (key, value) in page {
            let row: InodeRow = source::decode(&key, value)?;
            if row.quota == walk.account {
                walk.found_in_pass = true;
                let inode = Inode { ino: source::owner(&key)?, row };
                self.take_over(inode, walk.account, walk.state)?;
            }
        }
        walk.pass = source::owner(&last)?.checked_add(1);
        Ok(true)
    }
}
