//! opendir, readdir(plus), fsyncdir, releasedir.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::{Attr, FsError, Ino, pb, pb::op::Kind};
use tokio::sync::Mutex;

use super::{
    Caller, Fh, Vfs, answers,
    open_dir::{Asked, DirSlice, OpenDir, Page, cookie},
};

/// Entries asked for at once.
const PAGE_ENTRIES: u32 = 1024;
/// Entries asked for at once while the directory is being changed.
const CHANGING_ENTRIES: u32 = 256;
/// A page older than this is fetched again.
const PAGE_TRUST: Duration = Duration::from_secs(1);

impl Vfs {
    /// Opens a directory for reading.
    ///
    /// # Errors
    /// None today; a directory that is gone or is none is found out by the first read.
    pub async fn opendir(&self, ino: Ino) -> Result<Fh, FsError> {
        self.listings.opened(ino);
        Ok(self.handles.add_dir(Arc::new(OpenDir { ino, page: Mutex::new(None) })))
    }

    /// The entries after `position` (0: from the start). At least one, unless that was the end.
    ///
    /// # Errors
    /// `BadHandle`, `NotDirectory`, `NotFound`.
    pub async fn readdir(
        &self,
        caller: Caller,
        fh: Fh,
        position: u64,
        with_attrs: bool,
    ) -> Result<DirSlice, FsError> {
        let dir = self.handles.dir(fh)?;
        let mut kept = dir.page.lock().await;
        let changes = self.listings.changes(dir.ino);
        let changed = kept.as_ref().is_some_and(|page| page.asked.changes != changes);
        // Reading from the start again wants to see the directory as it is now.
        if position != 0
            && !changed
            && let Some(page) = kept.as_ref()
            && page.asked.at.elapsed() < PAGE_TRUST
            && (page.asked.with_attrs || !with_attrs)
            && let Some(slice) = page.slice(position)
        {
            return Ok(slice);
        }
        if position == 0 {
            self.other_was_read(dir.ino);
        }
        let asked_at = Instant::now();
        let op = pb::ReadDir {
            ino: dir.ino.get(),
            cookie: cookie(position),
            // Who removes what he lists needs no more than the kernel takes at once.
            max_entries: if changed { CHANGING_ENTRIES } else { PAGE_ENTRIES },
            with_attrs,
        };
        let answer = match self.ask(caller, Kind::ReadDir(op)).await? {
            pb::reply::Kind::DirPage(page) => page,
            other => return Err(answers::unexpected(&other)),
        };
        let asked = Asked { at: asked_at, changes, with_attrs };
        let page = Arc::new(Page::new(dir.ino, position, answer, asked)?);
        *kept = Some(Arc::clone(&page));
        page.slice(position).ok_or(FsError::Protocol)
    }

    /// `attr` with what this mount has written and not committed yet, and has read.
    pub fn merged(&self, attr: Attr) -> Attr {
        self.atimes.shown(self.files.merged(attr))
    }

    /// Waits until everything this client did to names is power-safe.
    ///
    /// # Errors
    /// `TimedOut` when the master does not answer.
    pub async fn fsyncdir(&self) -> Result<(), FsError> {
        self.session.sync().await
    }

    /// Closes a directory.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn releasedir(&self, fh: Fh) -> Result<(), FsError> {
        let dir = self.handles.remove_dir(fh)?;
        self.listings.closed(dir.ino);
        Ok(())
    }
}
