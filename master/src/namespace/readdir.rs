//! ReadDir: one page of a directory, by cookie.

use cairn_proto::{FsError, limits::DIR_PAGE_MAX, pb};

use super::{Namespace, inodes::FIRST_COOKIE};
use crate::tables::{
    keys::Table,
    rows::CookieRow,
    source::{self, Source},
};

/// Entries when the client does not say.
const DEFAULT_ENTRIES: u32 = 1024;

impl Namespace {
    pub(super) fn read_dir(&mut self, request: &pb::ReadDir) -> Result<pb::DirPage, FsError> {
        let directory = self.directory(request.ino)?;
        let wanted = match request.max_entries {
            0 => DEFAULT_ENTRIES,
            wanted => wanted.min(DIR_PAGE_MAX),
        } as usize;
        let from = request.cookie.saturating_add(1).max(FIRST_COOKIE);
        let range = Table::Cookies.of_from(directory.ino, from);
        let mut rows = self.group.page(&range, wanted + 1)?;
        let end = rows.len() <= wanted;
        rows.truncate(wanted);
        let mut entries = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let row: CookieRow = source::decode(&key, value)?;
            let attr = match request.with_attrs.then(|| self.inode(row.ino)).transpose() {
                Ok(inode) => inode.map(|inode| inode.attr()),
                // A name that leads nowhere is damage, and no reason to show none of the others.
                Err(FsError::Stale) => continue,
                Err(error) => return Err(error),
            };
            entries.push(pb::DirEntry {
                name: row.name,
                ino: row.ino,
                cookie: source::second(&key)?,
                mode: attr.map_or(row.kind, |attr| attr.mode),
                attr,
            });
        }
        Ok(pb::DirPage { entries, end, parent_ino: directory.row.parent })
    }
}
