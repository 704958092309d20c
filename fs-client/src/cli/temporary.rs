//! Names under which a file is made before it gets its own, on either side of a copy.
//!
//! [`Temporaries`] makes such a name, `.NAME.uploading-HOST-PID`, and sees from a name whether it was
//! left over by a process that is gone. [`LeftOvers`] keeps those that were seen in a directory;
//! [`Staged`] those that exist now, so that an interrupted verb can remove them.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    path::Path,
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_proto::{ChunkId, limits::NAME_MAX};

/// The longest `HOST-PID`.
const IDENTITY_MAX: usize = 8 + 1 + 10;
/// What another machine has not touched for this long is left over.
const ABANDONED: Duration = Duration::from_secs(600);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Temporaries {
    /// `.uploading-` or `.downloading-`
    infix: &'static str,
    host: String,
    pid: u32,
}

impl Temporaries {
    /// `infix` stands between name and identity; it begins with a dot and ends with a dash.
    pub(super) fn new(infix: &'static str) -> Self {
        Self { infix, host: host(), pid: process::id() }
    }

    /// This process's temporary name for `name`.
    pub(super) fn name(&self, name: &[u8]) -> Vec<u8> {
        let identity = format!("{}{}-{}", self.infix, self.host, self.pid);
        [self.stem(name), identity.into_bytes()].concat()
    }

    /// The part of temporary names that all processes share for `name`. One that is too long is cut,
    /// and told from others with the same beginning by its hash.
    pub(super) fn stem(&self, name: &[u8]) -> Vec<u8> {
        let room = NAME_MAX - 1 - self.infix.len() - IDENTITY_MAX;
        if name.len() <= room {
            return [b".", name].concat();
        }
        let hash = &ChunkId::of(name).to_string()[..8];
        [b".", &name[..room - 9], b"~", hash.as_bytes()].concat()
    }

    /// The stem of `name` when it is temporary and its process is gone. `age`: since it was changed.
    pub(super) fn left_over<'a>(&self, name: &'a [u8], age: Duration) -> Option<&'a [u8]> {
        let infix = self.infix.as_bytes();
        let at = name.windows(infix.len()).rposition(|w| w == infix)?;
        let identity = std::str::from_utf8(&name[at + infix.len()..]).ok()?;
        let (host, pid) = identity.split_once('-')?;
        let pid: u32 = pid.parse().ok()?;
        let gone = if host == self.host {
            // A name of our own that we have not made yet is from one who had our number before.
            pid == self.pid || !Path::new(&format!("/proc/{pid}")).exists()
        } else {
            age > ABANDONED
        };
        gone.then_some(&name[..at])
    }
}

/// Eight digits for this boot of this machine and this set of process numbers.
fn host() -> String {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let processes = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let all = [boot, processes.into_os_string().into_encoded_bytes()].concat();
    ChunkId::of(&all).to_string()[..8].to_owned()
}

/// A file name, or its stem.
type Name = Vec<u8>;

/// Left-over names by directory and stem.
#[derive(Debug)]
pub(super) struct LeftOvers<D>(Mutex<HashMap<(D, Name), Vec<Name>>>);

impl<D: Eq + Hash> LeftOvers<D> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    pub(super) fn add(&self, directory: D, stem: &[u8], name: &[u8]) {
        lock(&self.0).entry((directory, stem.to_owned())).or_default().push(name.to_owned());
    }

    /// Those of `stem`; they are the caller's to remove.
    pub(super) fn take(&self, directory: D, stem: Name) -> Vec<Name> {
        lock(&self.0).remove(&(directory, stem)).unwrap_or_default()
    }
}

/// Names that exist, or may.
#[derive(Debug)]
pub(super) struct Staged<N>(Mutex<HashSet<N>>);

impl<N: Eq + Hash> Staged<N> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashSet::new()))
    }

    /// `name` is about to be made.
    pub(super) fn add(&self, name: N) {
        lock(&self.0).insert(name);
    }

    /// `name` exists no longer.
    pub(super) fn remove(&self, name: &N) {
        lock(&self.0).remove(name);
    }

    /// All of them; they are the caller's to remove.
    pub(super) fn take(&self) -> HashSet<N> {
        std::mem::take(&mut lock(&self.0))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn names_are_valid_distinct_and_recognised() {
        let names = Temporaries::new(".uploading-");
        let long = |end: u8| [vec![b'x'; 254], vec![end]].concat();
        for name in [&b"a"[..], b"\xff.uploading-", &long(b'1'), &long(b'2')] {
            let made = names.name(name);
            assert!(made.len() <= NAME_MAX && made[0] == b'.');
            assert_eq!(names.left_over(&made, NOW), Some(&names.stem(name)[..]));
        }
        assert_ne!(names.name(&long(b'1')), names.name(&long(b'2')));
        for other in [&b".a"[..], b".a.uploading-", b".a.uploading-x", b".a.uploading-12-no"] {
            assert_eq!(names.left_over(other, NOW), None);
        }
    }

    #[test]
    fn what_belongs_to_a_living_process_is_not_left_over() {
        let names = Temporaries::new(".uploading-");
        let alive = format!(".a.uploading-{}-1", names.host);
        assert_eq!(names.left_over(alive.as_bytes(), ABANDONED * 2), None);
        let dead = format!(".a.uploading-{}-4294967295", names.host);
        assert_eq!(names.left_over(dead.as_bytes(), NOW), Some(&b".a"[..]));
        let elsewhere = b".a.uploading-0-1";
        assert_eq!(names.left_over(elsewhere, NOW), None);
        assert_eq!(names.left_over(elsewhere, ABANDONED * 2), Some(&b".a"[..]));
    }
}
