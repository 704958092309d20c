//! Names and listings: names that lead nowhere, types, parents, cookies.

use bytes::Bytes;
use cairn_proto::FsError;

use super::{Mended, Namespace};
use crate::tables::{
    keys::{self, Table},
    rows::{CookieRow, DentryRow},
    source::{self, Source},
};

/// Names looked at at once.
const PAGE: usize = 1024;

impl Namespace {
    /// Lists a name at its place, or at the end when the place is another's.
    pub(super) fn list_name(&mut self, directory: u64, name: &Bytes) -> Mended {
        let Some(mut inode) = self.existing(directory)? else { return Ok(None) };
        let Some(entry) = self.dentry(directory, name)? else { return Ok(None) };
        let mode = entry.kind;
        let wanted = CookieRow { name: name.clone(), ino: entry.ino, kind: entry.kind };
        let found: Option<CookieRow> =
            source::row(&mut self.group, &keys::cookie(directory, entry.cookie))?;
        match found {
            Some(row) if row == wanted => return Ok(None),
            Some(row)
                if row.name != *name && self.is_listed_at(directory, &row, entry.cookie)? =>
            {
                // `add_entry` counts the name once more.
                inode.row.entries = inode.row.entries.saturating_sub(1);
                self.add_entry(&mut inode, name, entry.ino, mode);
                self.put_mended(inode);
            }
            _ => {
                self.redirect_entry(directory, name, &entry, entry.ino, mode);
                self.put_mended(inode);
            }
        }
        Ok(Some("the name is listed now".to_owned()))
    }

    /// Whether `cookie` is the place of the name that its row shows.
    fn is_listed_at(
        &mut self,
        directory: u64,
        row: &CookieRow,
        cookie: u64,
    ) -> Result<bool, FsError> {
        let owner = self.dentry(directory, &row.name)?;
        Ok(owner.is_some_and(|entry| entry.cookie == cookie))
    }

    pub(super) fn unlist_name(&mut self, directory: u64, cookie: u64) -> Mended {
        let key = keys::cookie(directory, cookie);
        let row: Option<CookieRow> = source::row(&mut self.group, &key)?;
        let Some(row) = row else { return Ok(None) };
        if self.is_listed_at(directory, &row, cookie)? {
            return Ok(None);
        }
        self.group.delete(key);
        Ok(Some("the name is listed no more".to_owned()))
    }

    pub(super) fn drop_dangling(&mut self, directory: u64, name: &Bytes) -> Mended {
        let Some(entry) = self.dentry(directory, name)? else { return Ok(None) };
        let holder = self.existing(directory)?.filter(|inode| inode.row.is_directory());
        match holder {
            Some(_) if self.existing(entry.ino)?.is_some() => return Ok(None),
            Some(mut inode) => {
                self.remove_entry(&mut inode, name, &entry);
                let now = self.now();
                self.touch_data(&mut inode, now);
                self.put_inode(&inode);
            }
            None => {
                self.group.delete(keys::dentry(directory, name));
                self.group.delete(keys::cookie(directory, entry.cookie));
            }
        }
        Ok(Some("the name was removed".to_owned()))
    }

    pub(super) fn name_kind(&mut self, directory: u64, name: &Bytes) -> Mended {
        let Some(entry) = self.dentry(directory, name)? else { return Ok(None) };
        let (holder, inode) = (self.existing(directory)?, self.existing(entry.ino)?);
        let (Some(holder), Some(inode)) = (holder, inode) else { return Ok(None) };
        if inode.row.mode & libc::S_IFMT == entry.kind {
            return Ok(None);
        }
        self.redirect_entry(directory, name, &entry, inode.ino, inode.row.mode);
        self.put_mended(holder);
        Ok(Some("the name has the type of its inode now".to_owned()))
    }

    pub(super) fn name_parent(&mut self, directory: u64, name: &Bytes) -> Mended {
        let Some(entry) = self.dentry(directory, name)? else { return Ok(None) };
        let (holder, inode) = (self.existing(directory)?, self.existing(entry.ino)?);
        let (Some(mut holder), Some(mut inode)) = (holder, inode) else { return Ok(None) };
        if !inode.row.is_directory() || inode.row.parent == directory {
            return Ok(None);
        }
        if self.name_in(inode.row.parent, inode.ino)?.is_some() {
            // A directory has one name, and this one is not where it says that it lies.
            self.remove_entry(&mut holder, name, &entry);
            holder.row.nlink = holder.row.nlink.saturating_sub(1);
            let now = self.now();
            self.touch_data(&mut holder, now);
            self.put_inode(&holder);
            return Ok(Some("the further name of the directory was removed".to_owned()));
        }
        inode.row.parent = directory;
        self.put_mended(inode);
        Ok(Some("the directory knows now where it lies".to_owned()))
    }

    /// The name in `directory` that leads to `ino`.
    pub(super) fn name_in(
        &mut self,
        directory: u64,
        ino: u64,
    ) -> Result<Option<(Bytes, DentryRow)>, FsError> {
        let mut range = Table::Dentries.of(directory);
        loop {
            let page = self.group.page(&range, PAGE)?;
            let Some((last, _)) = page.last().cloned() else { return Ok(None) };
            for (key, value) in page {
                let entry: DentryRow = source::decode(&key, value)?;
                if entry.ino == ino {
                    let name = keys::name(&key).ok_or_else(|| source::bad_key(&key))?;
                    return Ok(Some((name, entry)));
                }
            }
            range = keys::after(&range, last);
        }
    }
}
