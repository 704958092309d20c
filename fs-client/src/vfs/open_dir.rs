//! [`OpenDir`]: a listing with a stable position.
//!
//! A position is what telldir(3) gives: 0 is the start, 1 comes after `.`, 2 after `..`, and from
//! there on it is the master's cookie plus 2. Cookies stay valid while entries come and go, so
//! nothing but the page that is being read is kept.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use cairn_proto::{Attr, FileKind, FsError, Ino, pb};
use tokio::sync::Mutex;

use super::answers;

/// Positions of the master's cookies begin here.
const FIRST: u64 = 2;

/// One entry.
#[derive(Clone, Debug)]
pub struct DirItem {
    /// Its name; `.` and `..` are among them.
    pub name: Bytes,
    /// Inode.
    pub ino: Ino,
    /// Type.
    pub kind: FileKind,
    /// The position after it.
    pub position: u64,
    /// Attributes when they were asked for; never for `.` and `..`.
    pub attr: Option<Attr>,
}

/// Entries that follow one another, beginning at the position asked for. Empty: the end.
#[derive(Clone, Debug)]
pub struct DirSlice {
    page: Arc<Page>,
    from: usize,
}

impl DirSlice {
    /// The entries.
    pub fn items(&self) -> &[DirItem] {
        &self.page.items[self.from..]
    }

    /// When the master was asked.
    pub fn asked_at(&self) -> Instant {
        self.page.asked.at
    }
}

#[derive(Debug)]
pub(super) struct Page {
    /// Position of the first item.
    start: u64,
    items: Vec<DirItem>,
    /// Nothing follows.
    end: bool,
    pub(super) asked: Asked,
}

/// How the master was asked for a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) at: Instant,
    /// How often this mount had changed the directory before.
    pub(super) changes: u64,
    pub(super) with_attrs: bool,
}

impl Page {
    /// Entries of `dir` from `start` on, as the master sent them.
    pub(super) fn new(
        dir: Ino,
        start: u64,
        page: pb::DirPage,
        asked: Asked,
    ) -> Result<Self, FsError> {
        let parent = Ino::new(page.parent_ino).unwrap_or(dir);
        let dots = [(&b"."[..], dir, 1), (&b".."[..], parent, FIRST)];
        let mut items: Vec<DirItem> = dots
            .into_iter()
            .filter(|(_, _, position)| *position > start)
            .map(|(name, ino, position)| DirItem {
                name: Bytes::from_static(name),
                ino,
                kind: FileKind::Directory,
                position,
                attr: None,
            })
            .collect();
        items.reserve(page.entries.len());
        for entry in page.entries {
            items.push(DirItem {
                ino: entry.ino.try_into().map_err(answers::nonsense)?,
                kind: FileKind::from_mode(entry.mode).ok_or(FsError::Protocol)?,
                position: entry
                    .cookie
                    .checked_add(FIRST)
                    .filter(|p| i64::try_from(*p).is_ok())
                    .ok_or(FsError::Protocol)?,
                attr: entry.attr.map(Attr::try_from).transpose().map_err(answers::nonsense)?,
                name: entry.name,
            });
        }
        Ok(Self { start, end: page.end || items.is_empty(), items, asked })
    }

    /// What follows `position`, when this page knows it.
    pub(super) fn slice(self: &Arc<Self>, position: u64) -> Option<DirSlice> {
        let from = if position == self.start {
            0
        } else {
            self.items.iter().position(|item| item.position == position)? + 1
        };
        (from < self.items.len() || self.end).then(|| DirSlice { page: Arc::clone(self), from })
    }
}

/// The master's cookie for `position`.
pub(super) const fn cookie(position: u64) -> u64 {
    position.saturating_sub(FIRST)
}

/// An open directory.
#[derive(Debug)]
pub struct OpenDir {
    pub(super) ino: Ino,
    pub(super) page: Mutex<Option<Arc<Page>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked { at: Instant::now(), changes: 0, with_attrs: false }
    }

    fn page(start: u64, cookies: std::ops::Range<u64>, end: bool) -> Arc<Page> {
        let entries = cookies
            .map(|cookie| pb::DirEntry {
                name: format!("f{cookie}").into(),
                ino: 100 + cookie,
                cookie,
                mode: libc::S_IFREG,
                attr: None,
            })
            .collect();
        let page = pb::DirPage { entries, end, parent_ino: 7 };
        Arc::new(Page::new(Ino::ROOT, start, page, asked()).unwrap())
    }

    fn names(slice: &DirSlice) -> Vec<String> {
        slice.items().iter().map(|i| String::from_utf8(i.name.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_listing_goes_on_where_it_was_left() {
        let first = page(0, 1..3, false);
        assert_eq!(names(&first.slice(0).unwrap()), [".", "..", "f1", "f2"]);
        assert_eq!(names(&first.slice(1).unwrap()), ["..", "f1", "f2"]);
        let after_f1 = first.slice(0).unwrap().items()[2].position;
        assert_eq!(names(&first.slice(after_f1).unwrap()), ["f2"]);
        let after_f2 = first.slice(0).unwrap().items()[3].position;
        assert!(first.slice(after_f2).is_none(), "the next page has to be fetched");
        assert_eq!(cookie(after_f2), 2);
        let last = page(after_f2, 3..4, true);
        assert_eq!(names(&last.slice(after_f2).unwrap()), ["f3"]);
        let after_f3 = last.slice(after_f2).unwrap().items()[0].position;
        assert!(last.slice(after_f3).unwrap().items().is_empty(), "the end");
    }

    #[test]
    fn dots_name_the_directory_and_its_parent() {
        let slice = page(0, 1..1, true).slice(0).unwrap();
        let inos: Vec<u64> = slice.items().iter().map(|i| i.ino.get()).collect();
        assert_eq!(inos, [1, 7]);
    }

    #[test]
    fn cookies_that_no_position_can_hold_are_refused() {
        let entry = pb::DirEntry {
            name: "f".into(),
            ino: 5,
            cookie: u64::MAX,
            mode: libc::S_IFREG,
            attr: None,
        };
        let page = pb::DirPage { entries: vec![entry], end: true, parent_ino: 1 };
        assert!(Page::new(Ino::ROOT, 0, page, asked()).is_err());
    }
}
