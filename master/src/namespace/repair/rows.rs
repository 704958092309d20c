//! Rows that belong to nothing, and the users of segments.

use bytes::Bytes;
use cairn_proto::FsError;

use super::{Mended, Namespace};
use crate::tables::{
    keys::{self, Table},
    rows::ShareRow,
    source::{self, Source},
};

/// Replies removed at once; a session keeps fewer.
const REPLIES: usize = 8192;

impl Namespace {
    pub(super) fn list_orphan(&mut self, ino: u64) -> Mended {
        let Some(inode) = self.existing(ino)? else { return Ok(None) };
        if inode.row.nlink != 0 || self.group.get(&keys::orphan(ino))?.is_some() {
            return Ok(None);
        }
        self.group.put(keys::orphan(ino), Bytes::new());
        self.reclaim.look_again(self.settled);
        Ok(Some("it is freed as soon as nobody holds it open".to_owned()))
    }

    pub(super) fn unlist_orphan(&mut self, ino: u64) -> Mended {
        let named = self.existing(ino)?.is_none_or(|inode| inode.row.nlink != 0);
        self.drop_row(named, keys::orphan(ino), "it is listed no more")
    }

    pub(super) fn not_dead(&mut self, ino: u64) -> Mended {
        let exists = self.existing(ino)?.is_some();
        self.drop_row(exists, keys::dead(ino), "its content is kept")
    }

    pub(super) fn leftovers(&mut self, ino: u64) -> Mended {
        if self.existing(ino)?.is_some() || self.group.get(&keys::dead(ino))?.is_some() {
            return Ok(None);
        }
        self.group.put(keys::dead(ino), Bytes::new());
        self.reclaim.wake_dead(ino);
        Ok(Some("they are freed".to_owned()))
    }

    pub(super) fn shift_users(&mut self, segment: u64, counted: u64, found: u64) -> Mended {
        if self.group.get(&keys::segment(segment))?.is_none() {
            return Ok(None);
        }
        let key = keys::share(segment);
        let row: Option<ShareRow> = source::row(&mut self.group, &key)?;
        let now = row.map_or(1, |row| row.users.max(1));
        let users = now.saturating_add(found).saturating_sub(counted);
        match users {
            0 => {
                self.group.delete(keys::segment(segment));
                self.group.delete(key);
                return Ok(Some("the segment was removed".to_owned()));
            }
            1 => self.group.delete(key),
            _ => self.group.put_row(key, &ShareRow { users }),
        }
        Ok(Some(format!("the segment counts {users} users now")))
    }

    pub(super) fn drop_share(&mut self, segment: u64) -> Mended {
        let key = keys::share(segment);
        let row: Option<ShareRow> = source::row(&mut self.group, &key)?;
        let lost = self.group.get(&keys::segment(segment))?.is_none();
        let needless = lost || row.is_some_and(|row| row.users < 2);
        self.drop_row(needless, key, "the count was removed")
    }

    pub(super) fn drop_replies(&mut self, session: u64) -> Mended {
        if self.sessions.knows(session) {
            return Ok(None);
        }
        let rows = self.group.page(&Table::Replies.of(session), REPLIES)?;
        rows.iter().for_each(|(key, _)| self.group.delete(key.clone()));
        Ok((!rows.is_empty()).then(|| "they were removed".to_owned()))
    }

    pub(super) fn free_locks(&mut self, session: u64) -> Option<String> {
        let freed = !self.sessions.knows(session) && self.drop_session_locks(session);
        freed.then(|| "they were freed".to_owned())
    }

    /// Deletes the row, if it is there and `really`.
    fn drop_row(
        &mut self,
        really: bool,
        key: Bytes,
        done: &str,
    ) -> Result<Option<String>, FsError> {
        if !really || self.group.get(&key)?.is_none() {
            return Ok(None);
        }
        self.group.delete(key);
        Ok(Some(done.to_owned()))
    }
}
