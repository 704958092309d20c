//! [`Names`]: the directories twice, as programs see them and as a power cut would leave them.
//!
//! A change of names (create, unlink, rename) is atomic and waits in `pending` until a sync makes it
//! durable. [`SyncedBy`] says which syncs do. A cut keeps a part of what is pending that some real
//! file system might have kept: a prefix, or any set in which no directory's earlier change is missing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
};

use crate::rng::Rng;

/// What makes a name durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncedBy {
    /// Any fsync of any file or directory, in the order of the changes: ext4's journal.
    AnyFsync,
    /// Only an fsync of the directory itself: what POSIX promises and no more.
    ItsDirectory,
}

/// What happens to one name: it comes to mean an inode, or nothing.
type Change = (u64, OsString, Option<u64>);
type Directory = BTreeMap<OsString, u64>;

/// All directories of a disk.
#[derive(Debug)]
pub(crate) struct Names {
    synced_by: SyncedBy,
    current: HashMap<u64, Directory>,
    durable: HashMap<u64, Directory>,
    pending: Vec<Vec<Change>>,
}

impl Names {
    pub(crate) fn new(root: u64, synced_by: SyncedBy) -> Self {
        let empty = HashMap::from([(root, Directory::new())]);
        Self { synced_by, current: empty.clone(), durable: empty, pending: Vec::new() }
    }

    pub(crate) fn get(&self, dir: u64, name: &OsStr) -> Option<u64> {
        self.current.get(&dir)?.get(name).copied()
    }

    pub(crate) fn list(&self, dir: u64) -> Option<&Directory> {
        self.current.get(&dir)
    }

    pub(crate) fn is_directory(&self, ino: u64) -> bool {
        self.current.contains_key(&ino)
    }

    pub(crate) fn add_directory(&mut self, ino: u64) {
        self.current.insert(ino, Directory::new());
        self.durable.insert(ino, Directory::new());
    }

    /// Carries out one atomic change of names.
    pub(crate) fn change(&mut self, changes: Vec<Change>) {
        apply(&mut self.current, &changes);
        self.pending.push(changes);
    }

    /// An fsync of the file or directory `ino`.
    pub(crate) fn sync(&mut self, ino: u64) {
        let wanted: Vec<bool> = match self.synced_by {
            SyncedBy::AnyFsync => vec![true; self.pending.len()],
            SyncedBy::ItsDirectory => {
                self.closure(|_, changes| changes.iter().any(|(dir, ..)| *dir == ino))
            }
        };
        self.settle(&wanted);
    }

    /// The power goes; afterwards both images are what the disk has.
    pub(crate) fn cut(&mut self, rng: &mut Rng) {
        let wanted = match self.synced_by {
            SyncedBy::AnyFsync => {
                let kept = rng.index(self.pending.len() + 1);
                (0..self.pending.len()).map(|at| at < kept).collect()
            }
            SyncedBy::ItsDirectory => {
                let chosen: Vec<bool> = self.pending.iter().map(|_| rng.one_in(2)).collect();
                self.closure(|at, _| chosen[at])
            }
        };
        self.settle(&wanted);
        self.pending.clear();
        self.current.clone_from(&self.durable);
    }

    /// The pending changes that are wanted, and the earlier ones of every directory they touch.
    fn closure(&self, wanted: impl Fn(usize, &[Change]) -> bool) -> Vec<bool> {
        let mut touched = BTreeSet::new();
        let mut keep = vec![false; self.pending.len()];
        for (at, changes) in self.pending.iter().enumerate().rev() {
            if wanted(at, changes) || changes.iter().any(|(dir, ..)| touched.contains(dir)) {
                keep[at] = true;
                touched.extend(changes.iter().map(|(dir, ..)| *dir));
            }
        }
        keep
    }

    fn settle(&mut self, keep: &[bool]) {
        let mut at = 0;
        let durable = &mut self.durable;
        self.pending.retain(|changes| {
            at += 1;
            if keep[at - 1] {
                apply(durable, changes);
            }
            !keep[at - 1]
        });
    }

    /// Every inode that a name of either image, or of a pending change, leads to.
    pub(crate) fn referenced(&self) -> BTreeSet<u64> {
        let named = self.current.values().chain(self.durable.values());
        let pending = self.pending.iter().flatten().filter_map(|(_, _, child)| *child);
        named.flat_map(|dir| dir.values().copied()).chain(pending).collect()
    }

    /// Forgets directories that nothing refers to any more.
    pub(crate) fn forget(&mut self, ino: u64) {
        self.current.remove(&ino);
        self.durable.remove(&ino);
    }
}

fn apply(image: &mut HashMap<u64, Directory>, changes: &[Change]) {
    for (dir, name, child) in changes {
        if let Some(entries) = image.get_mut(dir) {
            match child {
                Some(child) => entries.insert(name.clone(), *child),
                None => entries.remove(name),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> OsString {
        format!("f{n}").into()
    }

    #[test]
    fn with_a_journal_a_cut_leaves_a_prefix() {
        let mut lengths = BTreeSet::new();
        for seed in 0..100 {
            let mut names = Names::new(1, SyncedBy::AnyFsync);
            for n in 0..4 {
                names.change(vec![(1, name(n), Some(10 + n))]);
            }
            names.sync(11);
            for n in 4..8 {
                names.change(vec![(1, name(n), Some(10 + n))]);
            }
            names.cut(&mut Rng::new(seed));
            let left: Vec<u64> = names.list(1).unwrap().values().copied().collect();
            assert!(left.len() >= 4);
            assert_eq!(left, (10..10 + left.len() as u64).collect::<Vec<_>>());
            lengths.insert(left.len());
        }
        assert_eq!(lengths.len(), 5);
    }

    #[test]
    fn without_one_only_the_directory_counts() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut names = Names::new(1, SyncedBy::ItsDirectory);
            names.add_directory(2);
            names.change(vec![(1, name(0), Some(2))]);
            names.sync(1);
            names.change(vec![(2, name(1), Some(3))]);
            names.sync(3);
            names.change(vec![(1, name(2), Some(4))]);
            names.sync(1);
            names.cut(&mut Rng::new(seed));
            assert_eq!(names.list(1).unwrap().len(), 2);
            lost += usize::from(names.list(2).unwrap().is_empty());
        }
        assert!(lost > 20, "{lost}");
    }

    #[test]
    fn a_rename_is_atomic_and_comes_after_the_create() {
        for seed in 0..100 {
            let mut names = Names::new(1, SyncedBy::ItsDirectory);
            names.add_directory(2);
            names.change(vec![(1, name(9), Some(2))]);
            names.sync(1);
            names.change(vec![(1, name(0), Some(5))]);
            names.change(vec![(1, name(0), None), (2, name(0), Some(5))]);
            if seed % 2 == 0 {
                names.sync(2);
            }
            names.cut(&mut Rng::new(seed));
            let (a, b) = (names.get(1, &name(0)), names.get(2, &name(0)));
            assert!(a.is_none() || b.is_none());
            assert!(seed % 2 == 1 || b == Some(5));
        }
    }
}
