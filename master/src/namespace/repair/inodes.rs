//! Counts: of directories, links, attributes, stored bytes; the usage counters.

use cairn_proto::FsError;

use super::{Counters, Mended, Namespace};
use crate::{namespace::inodes::Inode, tables::keys};

/// `value` and the difference between what was found and what was stored.
const fn shifted(value: u64, stored: u64, found: u64) -> u64 {
    value.saturating_add(found).saturating_sub(stored)
}

impl Namespace {
    pub(super) fn shift_counters(&mut self, stored: Counters, found: Counters) -> Option<String> {
        let now = self.counters;
        self.counters = Counters {
            files: shifted(now.files, stored.files, found.files),
            directories: shifted(now.directories, stored.directories, found.directories),
            other: shifted(now.other, stored.other, found.other),
            logical_bytes: shifted(now.logical_bytes, stored.logical_bytes, found.logical_bytes),
            referenced_bytes: shifted(
                now.referenced_bytes,
                stored.referenced_bytes,
                found.referenced_bytes,
            ),
            orphans: shifted(now.orphans, stored.orphans, found.orphans),
        };
        // Orphans are freed only while any are counted.
        self.reclaim.look_again(self.settled);
        (self.counters != now).then(|| "the counters were set to what there is".to_owned())
    }

    pub(super) fn shift_entries(&mut self, ino: u64, stored: u64, found: u64) -> Mended {
        let Some(mut inode) = self.living_directory(ino)? else { return Ok(None) };
        let entries = shifted(inode.row.entries, stored, found);
        if entries == inode.row.entries {
            return Ok(None);
        }
        inode.row.entries = entries;
        self.put_mended(inode);
        Ok(Some(format!("the directory counts {entries} names now")))
    }

    pub(super) fn shift_links(&mut self, ino: u64, stored: u32, found: u32) -> Mended {
        let Some(mut inode) = self.living_directory(ino)? else { return Ok(None) };
        // Its own name and the one in itself are links, whatever else there is.
        let links = inode.row.nlink.saturating_add(found).saturating_sub(stored).max(2);
        if links == inode.row.nlink {
            return Ok(None);
        }
        inode.row.nlink = links;
        self.put_mended(inode);
        Ok(Some(format!("the directory counts {links} links now")))
    }

    pub(super) fn raise_next_cookie(&mut self, ino: u64, next_cookie: u64) -> Mended {
        let Some(mut inode) = self.living_directory(ino)? else { return Ok(None) };
        if inode.row.next_cookie >= next_cookie {
            return Ok(None);
        }
        inode.row.next_cookie = next_cookie;
        self.put_mended(inode);
        Ok(Some(format!("new names get places from {next_cookie} on")))
    }

    /// A directory that has not been removed: the counts of one that has are none.
    fn living_directory(&mut self, ino: u64) -> Result<Option<Inode>, FsError> {
        Ok(self.existing(ino)?.filter(|inode| inode.row.is_directory() && inode.row.nlink != 0))
    }

    pub(super) fn store_links(&mut self, ino: u64, version: u64, names: u32) -> Mended {
        let Some(mut inode) = self.unchanged(ino, version)? else { return Ok(None) };
        if inode.row.nlink == 0 {
            self.group.delete(keys::orphan(ino));
            self.counters.orphans = self.counters.orphans.saturating_sub(1);
        }
        // The links of a directory are those of its content: the next pass counts them.
        let links = if inode.row.is_directory() { 2 } else { names };
        inode.row.nlink = links;
        self.put_mended(inode);
        Ok(Some(format!("the inode counts {links} links now")))
    }

    pub(super) fn attribute_list(
        &mut self,
        ino: u64,
        version: u64,
        (bytes, bits): (u64, u32),
    ) -> Mended {
        let Some(mut inode) = self.unchanged(ino, version)? else { return Ok(None) };
        inode.row.xattr_list = bytes;
        inode.row.xattrs = bits;
        self.put_mended(inode);
        Ok(Some("the inode knows now what there is".to_owned()))
    }

    pub(super) fn store_sum(
        &mut self,
        ino: u64,
        version: u64,
        (number, segment, stored): (u64, u64, u64),
    ) -> Mended {
        let Some(inode) = self.unchanged(ino, version)? else { return Ok(None) };
        if stored == 0 {
            self.set_list_entry(ino, number, None)?;
            self.release_segment(segment)?;
        } else {
            self.set_list_entry(ino, number, Some((segment, stored)))?;
        }
        // Not touched: the sum of the whole file is stored by a remedy of its own, for this version.
        self.put_inode(&inode);
        Ok(Some(format!("{stored} bytes are counted now")))
    }

    pub(super) fn store_allocated(&mut self, ino: u64, version: u64, allocated: u64) -> Mended {
        let Some(mut inode) = self.unchanged(ino, version)? else { return Ok(None) };
        let before = (inode.row.size, inode.row.allocated);
        inode.row.allocated = allocated;
        self.count_change(before, &inode.row);
        self.correct_usage(before.1, &inode)?;
        self.put_mended(inode);
        Ok(Some(format!("{allocated} bytes are counted now")))
    }
}
