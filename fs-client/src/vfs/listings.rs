//! [`Listings`]: which directories are open for reading, and how often this mount has changed names in
//! each of them since.
//!
//! A page of a listing is kept for a moment. The kernel believes what a listing with attributes says
//! about a name, so a page from before a change of this mount would bring a removed name back, or hide
//! a new inode behind an old name. Changes of other mounts may be a second old anyway.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cairn_proto::Ino;

#[derive(Debug, Default)]
struct Listing {
    open: u64,
    changes: u64,
}

/// See the module's head. Bounded by the number of open directories.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<HashMap<Ino, Listing>>);

impl Listings {
    /// A handle of `directory` was opened.
    pub(super) fn opened(&self, directory: Ino) {
        self.lock().entry(directory).or_default().open += 1;
    }

    /// A handle of `directory` was closed.
    pub(super) fn closed(&self, directory: Ino) {
        let mut all = self.lock();
        if let Some(listing) = all.get_mut(&directory) {
            listing.open -= 1;
            if listing.open == 0 {
                all.remove(&directory);
            }
        }
    }

    /// To be held while a name in `directory` is made, moved or removed. The change counts when it is
    /// dropped, also when nobody waits for the answer any more: it may have happened.
    pub(super) const fn changing(&self, directory: Ino) -> Change<'_> {
        Change { listings: self, directory }
    }

    fn changed(&self, directory: Ino) {
        if let Some(listing) = self.lock().get_mut(&directory) {
            listing.changes += 1;
        }
    }

    /// How often that happened; grows while the directory is open.
    pub(super) fn changes(&self, directory: Ino) -> u64 {
        self.lock().get(&directory).map_or(0, |listing| listing.changes)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Listing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change that is under way.
pub(super) struct Change<'a> {
    listings: &'a Listings,
    directory: Ino,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.listings.changed(self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_while_a_directory_is_open() {
        let listings = Listings::default();
        listings.changed(Ino::ROOT);
        assert_eq!(listings.changes(Ino::ROOT), 0);
        listings.opened(Ino::ROOT);
        listings.opened(Ino::ROOT);
        drop(listings.changing(Ino::ROOT));
        listings.closed(Ino::ROOT);
        listings.changed(Ino::ROOT);
        assert_eq!(listings.changes(Ino::ROOT), 2);
        listings.closed(Ino::ROOT);
        assert!(listings.lock().is_empty());
    }
}
