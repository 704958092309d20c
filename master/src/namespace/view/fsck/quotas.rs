//! Quotas: the usage of each is what the inodes that name it, or one within it, add up to.

use std::collections::BTreeMap;

use super::{Check, Stop};
use crate::{
    engine::Direction,
    namespace::Remedy,
    tables::{
        keys::Table,
        rows::{InodeRow, QuotaRow},
        source,
    },
};

impl Check<'_> {
    pub(super) fn count_in_quota(&mut self, row: &InodeRow) {
        if row.quota != 0 {
            let usage = self.accounts.entry(row.quota).or_default();
            usage.0 += if row.is_regular() { row.allocated } else { 0 };
            usage.1 += 1;
        }
    }

    pub(super) fn quotas(&mut self) -> Result<(), Stop> {
        let mut rows: BTreeMap<u64, QuotaRow> = BTreeMap::new();
        for pair in self.reader().scan(Table::Quotas.all(), Direction::Forward) {
            let (key, value) = pair?;
            rows.insert(source::owner(&key)?, source::decode(&key, value)?);
        }
        let mut found: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (account, (bytes, inodes)) in std::mem::take(&mut self.accounts) {
            if !rows.contains_key(&account) {
                let what =
                    format!("{inodes} inodes count in the quota of {account}, which has none");
                self.say_with(what, Remedy::UnknownQuota { account, usage: (bytes, inodes) });
                continue;
            }
            let mut at = account;
            // More steps than there are quotas mean a loop.
            for _ in 0..=rows.len() {
                let Some(row) = rows.get(&at) else { break };
                let usage = found.entry(at).or_default();
                usage.0 += bytes;
                usage.1 += inodes;
                at = row.around;
            }
        }
        for (account, row) in &rows {
            let (stored, found) =
                ((row.bytes, row.inodes), found.get(account).copied().unwrap_or_default());
            if stored != found {
                let what = format!(
                    "the quota of directory {account} counts {} bytes and {} inodes, but there are {} \
                     and {}",
                    stored.0, stored.1, found.0, found.1
                );
                self.say_with(what, Remedy::QuotaUsage { account: *account, stored, found });
            }
            if row.around != 0 && !rows.contains_key(&row.around) {
                self.say(format!("the quota of directory {account} lies in one that is not there"));
            }
        }
        Ok(())
    }
}
