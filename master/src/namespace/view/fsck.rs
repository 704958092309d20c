//! Checks a snapshot: names against inodes, link counts, parents, cookies, references, segments and
//! their users, orphans, counters. Every finding is a sentence.
//!
//! Memory is bounded: what has to be counted across the whole store (names of an inode, users of a
//! segment) is counted for a batch of them in each pass.

use std::collections::HashSet;

use cairn_proto::{
    FileKind, Ino,
    limits::SEGMENT_REFS,
    pb,
    range::{chunk_count, len_within},
};

use crate::{
    engine::{Direction, EngineError, Reader},
    namespace::{Counters, segments::read_segment},
    tables::{
        keys::{self, Table},
        rows::{
            CookieRow, CountersRow, DentryRow, INLINE_REFS, InodeRow, LIST_SEGMENTS, ListRow,
            ReclaimRow, ShareRow, Slots, slots, stored_bytes,
        },
        source::{self, Snapshot, Source},
    },
};

/// Inodes or segments counted in one pass.
const BATCH: usize = 1 << 20;
/// Rows between two reports.
const REPORT_EVERY: u64 = 10_000;
/// Directories known to lead to the root.
const KNOWN_DIRECTORIES: usize = 1 << 18;
/// Findings in one report; a store that is damaged everywhere gives many reports.
const FINDINGS: usize = 1_000;

/// The caller wants no more.
enum Stop {
    Asked,
    Engine(EngineError),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

struct Check<'a> {
    source: Snapshot,
    chunk_size: u32,
    report: &'a mut dyn FnMut(pb::FsckProgress) -> bool,
    progress: pb::FsckProgress,
    rows: u64,
    found: Counters,
    rooted: HashSet<u64>,
}

pub(super) fn run(
    source: Snapshot,
    chunk_size: u32,
    report: &mut dyn FnMut(pb::FsckProgress) -> bool,
) -> Result<(), EngineError> {
    let mut check = Check {
        source,
        chunk_size,
        report,
        progress: pb::FsckProgress::default(),
        rows: 0,
        found: Counters::default(),
        rooted: HashSet::from([Ino::ROOT.get()]),
    };
    match check.all() {
        Ok(()) => {
            check.progress.done = true;
            (check.report)(check.progress);
            Ok(())
        }
        Err(Stop::Asked) => Ok(()),
        Err(Stop::Engine(error)) => Err(error),
    }
}

impl Check<'_> {
    fn all(&mut self) -> Result<(), Stop> {
        self.inodes()?;
        self.counters()?;
        self.names()?;
        self.name_counts()?;
        self.cookies()?;
        self.orphans()?;
        self.lists()?;
        self.segments()?;
        self.shares()
    }

    fn say(&mut self, what: String) {
        self.progress.findings.push(pb::FsckFinding { what });
    }

    fn step(&mut self) -> Result<(), Stop> {
        self.rows += 1;
        if self.rows.is_multiple_of(REPORT_EVERY) || self.progress.findings.len() >= FINDINGS {
            let report = self.progress.clone();
            self.progress.findings.clear();
            if !(self.report)(report) {
                return Err(Stop::Asked);
            }
        }
        Ok(())
    }

    /// The snapshot, so that it can be scanned while findings are noted.
    fn reader(&self) -> std::sync::Arc<dyn Reader> {
        std::sync::Arc::clone(&self.source.0)
    }

    fn inode(&mut self, ino: u64) -> Result<Option<InodeRow>, EngineError> {
        source::row(&mut self.source, &keys::inode(ino))
    }

    fn inodes(&mut self) -> Result<(), Stop> {
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
                Some(_) => self.found.other += 1,
                None => self.say(format!("inode {ino} has no type (mode {:o})", row.mode)),
            }
            self.attributes(ino, &row)?;
            if row.nlink == 0 {
                self.found.orphans += 1;
                if self.source.get(&keys::orphan(ino))?.is_none() {
                    self.say(format!("inode {ino} has no name and is not listed as an orphan"));
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
            let name = name.escape_ascii().to_string();
            if found.as_ref() != Some(&by_cookie) {
                self.say(format!("directory {ino}: listings do not show {name:?} as it is"));
            }
            self.step()?;
        }
        if row.entries != entries {
            self.say(format!("directory {ino} holds {entries} names, not {}", row.entries));
        }
        if last_cookie >= row.next_cookie && entries > 0 {
            self.say(format!("directory {ino} would give the place {last_cookie} out twice"));
        }
        let links = if row.nlink == 0 { 0 } else { subdirectories + 2 };
        if row.nlink != links {
            self.say(format!("directory {ino} should count {links} links, not {}", row.nlink));
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
                self.say(format!("directory {ino} lies in a loop through {parent}"));
                return Ok(());
            }
            match self.inode(parent)? {
                Some(above) if above.is_directory() => {
                    way.push(parent);
                    parent = above.parent;
                }
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
        let mut bytes = 0;
        for pair in reader.scan(Table::Xattrs.of(ino), Direction::Forward) {
            let (key, _) = pair?;
            bytes += keys::name(&key).map_or(0, |name| name.len() as u64 + 1);
        }
        if bytes != row.xattr_list {
            self.say(format!(
                "inode {ino} has {bytes} bytes of attribute names, not {}",
                row.xattr_list
            ));
        }
        Ok(())
    }

    /// References of a file: whole, before its end, adding up.
    fn file(&mut self, ino: u64, row: &InodeRow) -> Result<(), Stop> {
        let refs = slots(&row.refs, INLINE_REFS, "an inode")?;
        let mut allocated = stored_bytes(&refs);
        self.references(ino, row, 0, &refs);
        let reader = self.reader();
        for pair in reader.scan(Table::Lists.of(ino), Direction::Forward) {
            let (key, value) = pair?;
            let list: ListRow = source::decode(&key, value)?;
            let base = source::second(&key)? * LIST_SEGMENTS;
            for entry in list.entries {
                let number = base + u64::from(entry.slot);
                let refs = match read_segment(&mut self.source, entry.segment) {
                    Ok(refs) => refs,
                    Err(EngineError::Damaged(why)) => {
                        self.say(format!("inode {ino}: {why}"));
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let stored = stored_bytes(&refs);
                if stored != entry.stored || stored == 0 {
                    let segment = entry.segment;
                    self.say(format!(
                        "inode {ino} counts {} bytes in segment {segment}, which has {stored}",
                        entry.stored
                    ));
                }
                if number == 0 && refs.iter().zip(0..INLINE_REFS).any(|(r, _)| r.is_some()) {
                    self.say(format!(
                        "inode {ino}: its first segment holds the inode's own chunks"
                    ));
                }
                allocated += stored;
                self.references(ino, row, number * SEGMENT_REFS, &refs);
                self.step()?;
            }
        }
        if allocated != row.allocated {
            self.say(format!("inode {ino} refers to {allocated} bytes, not {}", row.allocated));
        }
        Ok(())
    }

    fn references(&mut self, ino: u64, row: &InodeRow, base: u64, refs: &Slots) {
        let end = chunk_count(row.size, self.chunk_size);
        for (index, chunk) in (base..).zip(refs) {
            let Some(chunk) = chunk else { continue };
            self.progress.references += 1;
            if index >= end || chunk.logical_len > len_within(index, row.size, self.chunk_size) {
                self.say(format!("inode {ino}: chunk {index} reaches beyond its end"));
            }
            if chunk.stored_len == 0 || chunk.logical_len == 0 {
                self.say(format!("inode {ino}: chunk {index} is empty"));
            }
        }
    }

    fn counters(&mut self) -> Result<(), Stop> {
        let row: Option<CountersRow> = source::row(&mut self.source, &keys::counters())?;
        let stored = Counters::from(row.unwrap_or_default());
        if stored != self.found {
            let found = self.found;
            self.say(format!("the usage counters say {stored:?}, but there is {found:?}"));
        }
        Ok(())
    }

    /// Every name: in a directory, and leading to an inode of its kind.
    fn names(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        let mut last_directory = 0;
        for pair in reader.scan(Table::Dentries.all(), Direction::Forward) {
            let (key, value) = pair?;
            let directory = source::owner(&key)?;
            let entry: DentryRow = source::decode(&key, value)?;
            let name = keys::name(&key).unwrap_or_default().escape_ascii().to_string();
            self.progress.dentries += 1;
            if directory != last_directory {
                last_directory = directory;
                if !self.inode(directory)?.is_some_and(|row| row.is_directory()) {
                    self.say(format!("names lie in {directory}, which is no directory"));
                }
            }
            match self.inode(entry.ino)? {
                None => self.say(format!(
                    "{name:?} in directory {directory} leads to inode {}, which does not exist",
                    entry.ino
                )),
                Some(row) if row.mode & libc::S_IFMT != entry.kind => self.say(format!(
                    "{name:?} in directory {directory} has another type than its inode {}",
                    entry.ino
                )),
                Some(row) if row.is_directory() && row.parent != directory => self.say(format!(
                    "directory {} lies in {directory} but names {} as its parent",
                    entry.ino, row.parent
                )),
                Some(_) => {}
            }
            self.step()?;
        }
        Ok(())
    }

    /// How many names lead to each inode, for a batch of inodes in each pass.
    fn name_counts(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        let mut inodes = reader.scan(Table::Inodes.all(), Direction::Forward);
        loop {
            let mut batch: Vec<(u64, u32)> = Vec::new();
            for pair in inodes.by_ref().take(BATCH) {
                let (key, value) = pair?;
                let ino = source::owner(&key)?;
                let row: InodeRow = source::decode(&key, value)?;
                let wanted = match row.is_directory() {
                    true => u32::from(row.nlink != 0 && ino != Ino::ROOT.get()),
                    false => row.nlink,
                };
                batch.push((ino, wanted));
            }
            if batch.is_empty() {
                return Ok(());
            }
            let mut found = vec![0u32; batch.len()];
            for pair in reader.scan(Table::Dentries.all(), Direction::Forward) {
                let (key, value) = pair?;
                let entry: DentryRow = source::decode(&key, value)?;
                if let Ok(at) = batch.binary_search_by_key(&entry.ino, |(ino, _)| *ino) {
                    found[at] += 1;
                }
            }
            for ((ino, wanted), found) in batch.into_iter().zip(found) {
                if wanted != found {
                    self.say(format!("inode {ino} has {found} names, should have {wanted}"));
                }
                self.step()?;
            }
        }
    }

    /// Every cookie stands for a name.
    fn cookies(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Cookies.all(), Direction::Forward) {
            let (key, value) = pair?;
            let (directory, cookie) = (source::owner(&key)?, source::second(&key)?);
            let row: CookieRow = source::decode(&key, value)?;
            let dentry: Option<DentryRow> =
                source::row(&mut self.source, &keys::dentry(directory, &row.name))?;
            if dentry.is_none_or(|dentry| dentry.cookie != cookie) {
                let name = row.name.escape_ascii();
                self.say(format!("directory {directory} lists \"{name}\", which is not there"));
            }
            self.step()?;
        }
        Ok(())
    }

    fn orphans(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Orphans.all(), Direction::Forward) {
            let ino = source::owner(&pair?.0)?;
            if self.inode(ino)?.is_none_or(|row| row.nlink != 0) {
                self.say(format!("inode {ino} is listed as an orphan and is none"));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Every list belongs to a file, or to one that is being freed.
    fn lists(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Lists.all(), Direction::Forward) {
            let ino = source::owner(&pair?.0)?;
            let is_file = self.inode(ino)?.is_some_and(|row| row.is_regular());
            if !is_file && self.source.get(&keys::dead(ino))?.is_none() {
                self.say(format!("references of inode {ino} are left, but it is no file"));
            }
            self.step()?;
        }
        Ok(())
    }

    /// How many lists name each segment, for a batch of segments in each pass.
    fn segments(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        let mut segments = reader.scan(Table::Segments.all(), Direction::Forward);
        loop {
            let mut batch: Vec<(u64, u64)> = Vec::new();
            for pair in segments.by_ref().take(BATCH) {
                let id = source::owner(&pair?.0)?;
                let share: Option<ShareRow> = source::row(&mut self.source, &keys::share(id))?;
                self.progress.segments += 1;
                batch.push((id, share.map_or(1, |row| row.users)));
            }
            if batch.is_empty() {
                return Ok(());
            }
            let mut found = vec![0u64; batch.len()];
            let mut count = |id: u64| {
                if let Ok(at) = batch.binary_search_by_key(&id, |(id, _)| *id) {
                    found[at] += 1;
                }
            };
            for pair in reader.scan(Table::Lists.all(), Direction::Forward) {
                let (key, value) = pair?;
                let row: ListRow = source::decode(&key, value)?;
                row.entries.iter().for_each(|entry| count(entry.segment));
            }
            for pair in reader.scan(Table::Reclaims.all(), Direction::Forward) {
                let (key, value) = pair?;
                let row: ReclaimRow = source::decode(&key, value)?;
                row.segments.into_iter().for_each(&mut count);
            }
            for ((id, users), found) in batch.into_iter().zip(found) {
                if users != found {
                    self.say(format!("segment {id} has {found} users, should have {users}"));
                }
                self.step()?;
            }
        }
    }

    fn shares(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        for pair in reader.scan(Table::Shares.all(), Direction::Forward) {
            let (key, value) = pair?;
            let id = source::owner(&key)?;
            let row: ShareRow = source::decode(&key, value)?;
            if row.users < 2 || self.source.get(&keys::segment(id))?.is_none() {
                self.say(format!("segment {id} is said to have {} users", row.users));
            }
            self.step()?;
        }
        Ok(())
    }
}
