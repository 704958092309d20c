//! Depth first through a snapshot, with bounded memory: a page of names for each level.

use bytes::{Bytes, BytesMut};
use cairn_proto::{FileName, FsError, Ino, limits::SEGMENT_REFS, pb};

use crate::{
    namespace::{inodes::FIRST_COOKIE, manifest},
    tables::{
        keys::{self, Table},
        rows::{CookieRow, DentryRow, InodeRow},
        source::{self, Snapshot, Source},
    },
};

/// Names read at once.
const PAGE: usize = 256;
/// References in one entry.
#[expect(clippy::cast_possible_truncation, reason = "2,048")]
const ENTRY_REFS: u32 = 16 * SEGMENT_REFS as u32;

struct Level {
    directory: u64,
    path: Bytes,
    last_cookie: u64,
    names: std::vec::IntoIter<(u64, CookieRow)>,
}

/// A file whose references go on in the next entry.
struct Rest {
    path: Bytes,
    ino: u64,
    row: InodeRow,
    next_index: u64,
}

/// The iterator of [`View::walk`](super::View::walk).
pub struct Walk {
    source: Snapshot,
    chunk_size: u32,
    with_refs: bool,
    first: Option<(Bytes, u64)>,
    levels: Vec<Level>,
    rest: Option<Rest>,
}

impl Walk {
    pub(super) fn begin(
        mut source: Snapshot,
        chunk_size: u32,
        path: &str,
        with_refs: bool,
    ) -> Result<Self, FsError> {
        let mut ino = Ino::ROOT.get();
        let mut at = Bytes::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let name = FileName::try_from(part.as_bytes())?;
            let key = keys::dentry(ino, name.as_bytes());
            let entry: Option<DentryRow> = source::row(&mut source, &key)?;
            ino = entry.ok_or(FsError::NotFound)?.ino;
            at = join(&at, name.as_bytes());
        }
        let first = Some((at, ino));
        Ok(Self { source, chunk_size, with_refs, first, levels: Vec::new(), rest: None })
    }

    fn inode(&mut self, ino: u64) -> Result<InodeRow, FsError> {
        source::row(&mut self.source, &keys::inode(ino))?.ok_or(FsError::Stale)
    }

    fn next_entry(&mut self) -> Result<Option<pb::WalkEntry>, FsError> {
        if let Some(rest) = self.rest.take() {
            return self.refs(rest).map(Some);
        }
        let Some((path, ino)) = self.next_name()? else { return Ok(None) };
        let row = self.inode(ino)?;
        if row.is_directory() {
            self.levels.push(Level {
                directory: ino,
                path: path.clone(),
                last_cookie: 0,
                names: Vec::new().into_iter(),
            });
        }
        if self.with_refs && row.is_regular() {
            return self.refs(Rest { path, ino, row, next_index: 0 }).map(Some);
        }
        Ok(Some(entry(path, row.attr(ino))))
    }

    fn refs(&mut self, from: Rest) -> Result<pb::WalkEntry, FsError> {
        let Rest { path, ino, row, next_index } = from;
        let source = &mut self.source;
        let page = manifest::page(source, ino, &row, self.chunk_size, next_index, ENTRY_REFS)?;
        let entry = pb::WalkEntry {
            runs: page.runs,
            more: !page.end,
            ..entry(path.clone(), row.attr(ino))
        };
        if !page.end {
            self.rest = Some(Rest { path, ino, row, next_index: page.next_index });
        }
        Ok(entry)
    }

    fn next_name(&mut self) -> Result<Option<(Bytes, u64)>, FsError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some(level) = self.levels.last_mut() {
            if let Some((cookie, row)) = level.names.next() {
                level.last_cookie = cookie;
                return Ok(Some((join(&level.path, &row.name), row.ino)));
            }
            let from = level.last_cookie.saturating_add(1).max(FIRST_COOKIE);
            let rows = self.source.page(&Table::Cookies.of_from(level.directory, from), PAGE)?;
            if rows.is_empty() {
                self.levels.pop();
                continue;
            }
            let decode = |(key, value): (Bytes, Bytes)| {
                Ok::<_, FsError>((source::second(&key)?, source::decode(&key, value)?))
            };
            let names: Vec<_> = rows.into_iter().map(decode).collect::<Result<_, _>>()?;
            level.names = names.into_iter();
        }
        Ok(None)
    }
}

impl Iterator for Walk {
    type Item = Result<pb::WalkEntry, FsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_entry().transpose();
        if matches!(next, Some(Err(_))) {
            // Where a row is damaged there is no telling what comes next.
            self.levels.clear();
        }
        next
    }
}

fn join(directory: &Bytes, name: &[u8]) -> Bytes {
    if directory.is_empty() {
        return Bytes::copy_from_slice(name);
    }
    let mut path = BytesMut::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    path.extend_from_slice(b"/");
    path.extend_from_slice(name);
    path.freeze()
}

fn entry(raw_path: Bytes, attr: pb::Attr) -> pb::WalkEntry {
    pb::WalkEntry {
        path: String::from_utf8_lossy(&raw_path).into_owned(),
        raw_path,
        attr: Some(attr),
        runs: Vec::new(),
        more: false,
    }
}
