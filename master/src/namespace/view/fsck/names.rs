//! Names: where they lie, where they lead, how many lead to each inode, and listings.

use cairn_proto::Ino;

use super::{BATCH, Check, Stop};
use crate::{
    engine::Direction,
    namespace::Remedy,
    tables::{
        keys::{self, Table},
        rows::{CookieRow, DentryRow, InodeRow},
        source,
    },
};

/// An inode whose names are counted.
struct Counted {
    ino: u64,
    wanted: u32,
    version: u64,
    is_directory: bool,
}

impl Check<'_> {
    /// Every name: in a directory, and leading to an inode of its kind.
    pub(super) fn names(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        // The directory of the last name, and whether it is one.
        let mut place = (0, false);
        for pair in reader.scan(Table::Dentries.all(), Direction::Forward) {
            let (key, value) = pair?;
            let directory = source::owner(&key)?;
            let entry: DentryRow = source::decode(&key, value)?;
            let name = keys::name(&key).unwrap_or_default();
            let shown = name.escape_ascii().to_string();
            let ino = entry.ino;
            self.progress.dentries += 1;
            if directory != place.0 {
                place = (directory, self.inode(directory)?.is_some_and(|row| row.is_directory()));
            }
            if !place.1 {
                let what = format!("\"{shown}\" lies in {directory}, which is no directory");
                self.say_with(what, Remedy::NameOfNothing { directory, name });
                self.step()?;
                continue;
            }
            match self.inode(ino)? {
                None => {
                    let what = format!(
                        "\"{shown}\" in directory {directory} leads to inode {ino}, \
                         which does not exist"
                    );
                    self.say_with(what, Remedy::NameOfNothing { directory, name });
                }
                Some(row) if row.mode & libc::S_IFMT != entry.kind => {
                    let what = format!(
                        "\"{shown}\" in directory {directory} has another type than its inode {ino}"
                    );
                    self.say_with(what, Remedy::NameKind { directory, name });
                }
                Some(row) if row.is_directory() && row.parent != directory => {
                    let what = format!(
                        "directory {ino} lies in {directory} but names {} as its parent",
                        row.parent
                    );
                    self.say_with(what, Remedy::Parent { directory, name });
                }
                Some(_) => {}
            }
            self.step()?;
        }
        Ok(())
    }

    /// How many names lead to each inode, for a batch of inodes in each pass.
    pub(super) fn name_counts(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        let mut inodes = reader.scan(Table::Inodes.all(), Direction::Forward);
        loop {
            let mut batch: Vec<Counted> = Vec::new();
            for pair in inodes.by_ref().take(BATCH) {
                let (key, value) = pair?;
                let ino = source::owner(&key)?;
                let row: InodeRow = source::decode(&key, value)?;
                let is_directory = row.is_directory();
                let wanted = match is_directory {
                    true => u32::from(row.nlink != 0 && ino != Ino::ROOT.get()),
                    false => row.nlink,
                };
                batch.push(Counted { ino, wanted, version: row.version, is_directory });
            }
            if batch.is_empty() {
                return Ok(());
            }
            let mut found = vec![0u32; batch.len()];
            for pair in reader.scan(Table::Dentries.all(), Direction::Forward) {
                let (key, value) = pair?;
                let entry: DentryRow = source::decode(&key, value)?;
                if let Ok(at) = batch.binary_search_by_key(&entry.ino, |counted| counted.ino) {
                    found[at] += 1;
                }
            }
            for (counted, names) in batch.into_iter().zip(found) {
                if counted.wanted != names {
                    self.wrong_count(&counted, names);
                }
                self.step()?;
            }
        }
    }

    fn wrong_count(&mut self, counted: &Counted, names: u32) {
        let &Counted { ino, wanted, version, is_directory } = counted;
        let what = format!("inode {ino} has {names} names, should have {wanted}");
        match names {
            0 => self.say_with(what, Remedy::Reattach { ino, version }),
            // Which name of a directory is one too many, the check of its parent says.
            2.. if is_directory => self.say(what),
            _ => self.say_with(what, Remedy::Links { ino, version, names }),
        }
    }

    /// Every cookie stands for a name.
    pub(super) fn cookies(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Cookies.all(), Direction::Forward) {
            let (key, value) = pair?;
            let (directory, cookie) = (source::owner(&key)?, source::second(&key)?);
            let row: CookieRow = source::decode(&key, value)?;
            let dentry: Option<DentryRow> =
                source::row(&mut self.source, &keys::dentry(directory, &row.name))?;
            if dentry.is_none_or(|dentry| dentry.cookie != cookie) {
                let name = row.name.escape_ascii();
                let what = format!("directory {directory} lists \"{name}\", which is not there");
                self.say_with(what, Remedy::CookieOfNothing { directory, cookie });
            }
            self.step()?;
        }
        Ok(())
    }
}
