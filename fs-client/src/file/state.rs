//! [`State`]: everything about one file that its lock protects. Pure.

use std::time::Instant;

use cairn_proto::{Attr, FsError, Timestamp, range::chunk_start};

use super::{
    Origin,
    dirty::DirtyMap,
    errors::WriteBackErrors,
    flight::{Flight, Flights},
    manifests::ManifestCache,
    read::FailedRead,
};

/// See the module's head.
#[derive(Debug)]
pub struct State {
    chunk_size: u32,
    /// The newest attributes that the master has sent.
    attr: Option<Attr>,
    /// Written, not in flight.
    pub dirty: DirtyMap,
    /// In flight.
    pub flights: Flights,
    /// One past the last uncommitted byte; 0 when there is none.
    pub local_end: u64,
    /// When the last uncommitted byte was written.
    pub local_mtime: Timestamp,
    /// When the oldest uncommitted byte was written, or the last flush began.
    pub dirty_since: Option<Instant>,
    /// All dirty bytes are appended ones and begin here. Nothing is in flight then.
    pub append_from: Option<u64>,
    /// Flights with smaller numbers are to be committed without waiting for a full batch.
    pub flush_below: u64,
    /// The commit of the last of them is wanted power-safe; so is what is appended.
    pub durable_below: u64,
    /// See there.
    pub durable_append: bool,
    /// Commits that were to be answered when they are power-safe.
    pub durable: DurableCommits,
    /// A commit is under way.
    pub committing: bool,
    /// When the master first said, since the last commit that was applied, that chunks have to be
    /// verified again.
    pub verifying_since: Option<Instant>,
    /// When another client's change was first in the way of a commit, since the last one that went through.
    pub conflicting_since: Option<Instant>,
    /// A flush in the background is under way.
    pub flushing: bool,
    /// Who wrote last.
    pub origin: Origin,
    /// A commit that clears set-user-id and set-group-id is under way.
    pub killing: bool,
    /// Write-back errors.
    pub errors: WriteBackErrors,
    /// The last read that failed.
    pub failed_read: FailedRead,
    /// The version of the data that the cached manifest describes.
    pub manifest_version: u64,
    /// The epoch of the cached manifest's pages.
    pub manifest_epoch: u64,
    /// The version of the data that the kernel's pages show; 0: unknown.
    pub pages_version: u64,
    /// Bytes are written under a lock of the session of this generation. In another one they are lost.
    pub fence: Option<u64>,
}

/// Counts commits of one file that are answered when they are power-safe, with everything before them.
#[derive(Debug, Default)]
pub struct DurableCommits {
    sent: u64,
    applied: u64,
}

impl DurableCommits {
    /// One is sent: its number, for [`DurableCommits::applied`].
    pub fn send(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// The commit with this number was applied.
    pub fn applied(&mut self, number: u64) {
        self.applied = self.applied.max(number);
    }

    /// The number of the last one that was sent.
    pub fn last(&self) -> u64 {
        self.sent
    }

    /// Whether one was applied that was sent after the one with this number.
    pub fn since(&self, number: u64) -> bool {
        self.applied > number
    }
}

/// A mode after a write by somebody without rights: without set-user-id, and without set-group-id where
/// the group may execute.
const fn without_set_ids(mode: u32) -> u32 {
    let cleared = if mode & libc::S_IXGRP != 0 { libc::S_ISGID } else { 0 };
    mode & !(libc::S_ISUID | cleared)
}

impl State {
    /// The state of a file that nothing is known about.
    pub fn new(chunk_size: u32, manifest_epoch: u64) -> Self {
        Self {
            chunk_size,
            attr: None,
            dirty: DirtyMap::new(chunk_size),
            flights: Flights::default(),
            local_end: 0,
            local_mtime: Timestamp::default(),
            dirty_since: None,
            append_from: None,
            flush_below: 0,
            durable_below: 0,
            durable_append: false,
            durable: DurableCommits::default(),
            committing: false,
            verifying_since: None,
            conflicting_since: None,
            flushing: false,
            origin: Origin::default(),
            killing: false,
            errors: WriteBackErrors::default(),
            failed_read: FailedRead::default(),
            manifest_version: 0,
            manifest_epoch,
            pages_version: 0,
            fence: None,
        }
    }

    /// The length that the master knows.
    pub fn committed_size(&self) -> u64 {
        self.attr.map_or(0, |attr| attr.size)
    }

    /// The length, uncommitted bytes included.
    pub fn size(&self) -> u64 {
        self.committed_size().max(self.local_end)
    }

    /// Whether bytes wait to be committed.
    pub fn has_uncommitted(&self) -> bool {
        !self.dirty.is_empty() || !self.flights.is_empty()
    }

    /// Forgets that there were uncommitted bytes when there are none any longer. Whether that is so.
    pub fn settle(&mut self) -> bool {
        let clean = !self.has_uncommitted();
        if clean {
            self.local_end = 0;
            self.dirty_since = None;
            self.append_from = None;
            self.durable_append = false;
        }
        clean
    }

    /// `attr`, or the newer ones that are known, with what is not committed yet.
    pub fn merged(&self, attr: Attr) -> Attr {
        let mut attr = match self.attr {
            Some(known) if known.version > attr.version => known,
            Some(_) | None => attr,
        };
        if self.has_uncommitted() {
            attr.size = attr.size.max(self.local_end);
            // Programs take a file without blocks for one hole: what is about to get some counts.
            let chunks = (self.dirty.len() + self.flights.len()) as u64;
            let local = chunks.saturating_mul(u64::from(self.chunk_size));
            attr.allocated =
                attr.allocated.saturating_add(local).min(attr.size.max(attr.allocated));
            attr.mtime = self.local_mtime;
        }
        if self.loses_set_ids() {
            attr.mode = without_set_ids(attr.mode);
        }
        attr
    }

    /// What was written and is not committed yet clears set-user-id and set-group-id.
    pub const fn loses_set_ids(&self) -> bool {
        self.killing || self.origin.kill_suid_sgid
    }

    /// See [`File::was_read`](super::File::was_read).
    pub fn was_read(&mut self, noted: impl FnOnce(&Attr) -> Option<Timestamp>) {
        if let Some(attr) = self.attr
            && let Some(atime) = noted(&self.merged(attr))
        {
            self.attr = Some(Attr { atime, ..attr });
        }
    }

    /// Takes note of newer attributes. When the data has changed, somebody else has changed it.
    pub fn absorb(&mut self, attr: &Attr, manifests: &ManifestCache) {
        if self.attr.is_some_and(|known| known.version >= attr.version) {
            return;
        }
        if attr.data_version != self.manifest_version {
            if self.committing {
                // Most likely our own commit, whose answer says exactly what has changed.
                return;
            }
            self.forget_manifest(attr.data_version, manifests);
        }
        self.attr = Some(*attr);
    }

    /// Takes note of the attributes after a commit of our own: the cached manifest stays true (the
    /// caller enters the changes) unless somebody else has changed the data in between.
    pub fn absorb_own(&mut self, attr: &Attr, manifests: &ManifestCache) {
        if attr.data_version == self.manifest_version + 1 {
            self.follow_pages(attr.data_version);
            self.manifest_version = attr.data_version;
        } else if attr.data_version != self.manifest_version {
            self.forget_manifest(attr.data_version, manifests);
        }
        self.take_attr(attr);
    }

    /// Takes note of the attributes after an operation of our own that changed references.
    pub fn replaced(&mut self, attr: &Attr, manifests: &ManifestCache) {
        if attr.data_version == self.manifest_version + 1 {
            self.follow_pages(attr.data_version);
        }
        self.forget_manifest(attr.data_version, manifests);
        self.take_attr(attr);
    }

    /// The cached manifest is no longer true; the one of `version` is to be fetched.
    pub fn forget_manifest(&mut self, version: u64, manifests: &ManifestCache) {
        self.manifest_version = version;
        self.manifest_epoch = manifests.new_epoch();
    }

    /// Drops all that is not committed because of `error`, which every handle shall hear of.
    pub fn give_up(&mut self, error: FsError, manifests: &ManifestCache) {
        self.errors.record(error);
        self.dirty.drain();
        self.flights.clear();
        self.settle();
        self.fence = None;
        self.verifying_since = None;
        self.conflicting_since = None;
        self.pages_version = 0;
        let version = self.manifest_version;
        self.forget_manifest(version, manifests);
    }

    /// Moves a dirty chunk into flight, unless an older version of it is there. Answers its number.
    pub fn take_off(&mut self, index: u64) -> Option<u64> {
        if self.flights.of_index(index).is_some() {
            return None;
        }
        let (ours, permit) = self.dirty.take(index)?.into_parts();
        Some(self.flights.add(Flight { index, ours, landed: None, tries: 0, permit }))
    }

    /// One past the last byte of ours in chunk `index` when `end` is the end of its dirty bytes.
    pub fn end_in_file(&self, index: u64, end: u32) -> u64 {
        chunk_start(index, self.chunk_size) + u64::from(end)
    }

    fn follow_pages(&mut self, version: u64) {
        if self.pages_version == self.manifest_version {
            self.pages_version = version;
        }
    }

    fn take_attr(&mut self, attr: &Attr) {
        if self.attr.is_none_or(|known| known.version <= attr.version) {
            self.attr = Some(*attr);
        }
    }
}
