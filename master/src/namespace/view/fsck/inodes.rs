//! Each inode by itself and with what belongs to it: a directory's names and its way to the root, the
//! list of attributes; and the counters of what exists.

use std::collections::HashSet;

use cairn_proto::{FileKind, Ino, xattr};

use super::{Check, Stop};
use crate::{
    engine::Direction,
    namespace::{Counters, Remedy},
    tables::{
        keys::{self, Table},
        rows::{CookieRow, CountersRow, DentryRow, InodeRow},
        source::{self, Source},
    },
};

/// Directories known to lead to the root.
const KNOWN_DIRECTORIES: usize = 1 << 18;

impl Check<'_> {
    pub(super) fn inodes(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Inodes.all(), Direction::Forward) {
            let (key, value) = pair?;
            let ino = source::owner(&key)?;
            let row: InodeRow = source::decode(&key, value)?;
            self.progress.inodes += 1;
            match row.kind() {
                Some(FileKind::Directory) => {
                    self.found.directories += 1;
                    self.directory(ino, &row)?;
                }
                Some(FileKind::Regular) => {
                    self.found.files += 1;
                    self.found.logical_bytes += row.size;
                    self.found.referenced_bytes += row.allocated;
                    self.file(ino, &row)?;
                }
                Some(kind) => {
                    self.found.other += 1;
                    if kind == FileKind::Symlink && row.target.is_empty() {
                        self.say(format!("inode {ino} is a symbolic link to nowhere"));
                    }
                }
                None => self.say(format!("inode {ino} has no type (mode {:o})", row.mode)),
            }
            self.count_in_quota(&row);
            self.attributes(ino, &row)?;
            if row.nlink == 0 {
                self.found.orphans += 1;
                if self.source.get(&keys::orphan(ino))?.is_none() {
                    let what = format!("inode {ino} has no name and is not listed as an orphan");
                    self.say_with(what, Remedy::ListOrphan { ino });
                }
            }
            self.step()?;
        }
        if self.inode(Ino::ROOT.get())?.is_none() {
            self.say("there is no root directory".to_owned());
        }
        Ok(())
    }

    fn directory(&mut self, ino: u64, row: &InodeRow) -> Result<(), Stop> {
        let reader = self.reader();
        let (mut entries, mut subdirectories, mut last_cookie) = (0, 0, 0);
        for pair in reader.scan(Table::Dentries.of(ino), Direction::Forward) {
            let (key, value) = pair?;
            let name = keys::name(&key).ok_or_else(|| source::bad_key(&key))?;
            let entry: DentryRow = source::decode(&key, value)?;
            entries += 1;
            last_cookie = last_cookie.max(entry.cookie);
            subdirectories += u32::from(entry.kind == libc::S_IFDIR);
            let by_cookie = CookieRow { name: name.clone(), ino: entry.ino, kind: entry.kind };
            let found: Option<CookieRow> =
                source::row(&mut self.source, &keys::cookie(ino, entry.cookie))?;
            if found.as_ref() != Some(&by_cookie) {
                let shown = name.escape_ascii();
                let what = format!("directory {ino}: listings do not show \"{shown}\" as it is");
                self.say_with(what, Remedy::Cookie { directory: ino, name });
            }
            self.step()?;
        }
        let links = if row.nlink == 0 { 0 } else { subdirectories + 2 };
        let next_cookie = row.next_cookie.max(last_cookie + 1);
        let (stored, found) = (row.entries, entries);
        if stored != found {
            let what = format!("directory {ino} holds {found} names, not {stored}");
            self.say_with(what, Remedy::Entries { ino, stored, found });
        }
        if last_cookie >= row.next_cookie && entries > 0 {
            let what = format!("directory {ino} would give the place {last_cookie} out twice");
            self.say_with(what, Remedy::NextCookie { ino, next_cookie });
        }
        let (stored, found) = (row.nlink, links);
        if stored != found {
            let what = format!("directory {ino} should count {found} links, not {stored}");
            self.say_with(what, Remedy::DirectoryLinks { ino, stored, found });
        }
        if row.nlink != 0 {
            self.rooted(ino, row)?;
        }
        Ok(())
    }

    /// Whether the parents of a directory lead to the root.
    fn rooted(&mut self, ino: u64, row: &InodeRow) -> Result<(), Stop> {
        let mut way = vec![ino];
        let mut parent = row.parent;
        loop {
            if self.rooted.contains(way.last().unwrap_or(&0)) || self.rooted.contains(&parent) {
                break;
            }
            if way.contains(&parent) {
                let what = format!("directory {ino} lies in a loop through {parent}");
                self.say_with(what, Remedy::Loop { ino: parent });
                return Ok(());
            }
            match self.inode(parent)? {
                Some(above) if above.is_directory() => {
                    way.push(parent);
                    parent = above.parent;
                }
                // Its name, if there is one, is a finding of its own and has the remedy.
                _ => {
                    self.say(format!(
                        "directory {ino} cannot be reached: {parent} is no directory"
                    ));
                    return Ok(());
                }
            }
        }
        if self.rooted.len() + way.len() > KNOWN_DIRECTORIES {
            self.rooted = HashSet::from([Ino::ROOT.get()]);
        }
        self.rooted.extend(way);
        Ok(())
    }

    fn attributes(&mut self, ino: u64, row: &InodeRow) -> Result<(), Stop> {
        let reader = self.reader();
        let (mut bytes, mut bits) = (0, 0);
        for pair in reader.scan(Table::Xattrs.of(ino), Direction::Forward) {
            let (key, _) = pair?;
            let name = keys::name(&key).ok_or_else(|| source::bad_key(&key))?;
            bytes += name.len() as u64 + 1;
            bits |= xattr::HAS_ANY | xattr::bit(&name);
        }
        let remedy = Remedy::AttributeList { ino, version: row.version, bytes, bits };
        if bytes != row.xattr_list {
            let what =
                format!("inode {ino} has {bytes} bytes of attribute names, not {}", row.xattr_list);
            self.say_with(what, remedy);
        } else if bits & !row.xattr_bits() != 0 {
            let what = format!("inode {ino} has attributes that it does not know of");
            self.say_with(what, remedy);
        }
        Ok(())
    }

    pub(super) fn counters(&mut self) -> Result<(), Stop> {
        let row: Option<CountersRow> = source::row(&mut self.source, &keys::counters())?;
        let stored = Counters::from(row.unwrap_or_default());
        let found = self.found;
        if stored != found {
            let what = format!("the usage counters say {stored:?}, but there is {found:?}");
            self.say_with(what, Remedy::Counters { stored, found });
        }
        Ok(())
    }
}
