//! [`Record`]: what must outlive a daemon, in memory that it shares with its supervisor.
//!
//! A memory file of fixed size, mapped by the daemon; pages that nobody touched take no room. Words are
//! written one by one, so a daemon that dies half-way leaves an entry that is free or whole: a number
//! of zero means free, and it is written last. One daemon at a time has it; the supervisor only keeps it
//! alive.
//!
//! It holds: the kernel's first request and what was answered; the session with the master; open
//! handles with inode, flags and owner; inodes with bytes that are not committed. What finds no room is
//! not recorded: such a handle is stale after the daemon's death.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    mm::{MapFlags, ProtFlags, mmap},
};

/// Says what it is, and its version. Another version is refused.
const MAGIC: u64 = u64::from_le_bytes(*b"cairnR01");
const AT_MAGIC: usize = 0;
/// How many daemons there have been.
const AT_GENERATION: usize = 1;
const AT_SESSION: usize = 2;
const AT_REQUEST: usize = 8;
const AT_REPLY: usize = AT_REQUEST + MESSAGE;
/// Words for a message: its length, then its bytes.
const MESSAGE: usize = 65;
const AT_HANDLES: usize = 256;
const HANDLES: usize = 65_536;
/// Words of a handle: number, inode, flags, owner.
const HANDLE: usize = 4;
const AT_DIRTY: usize = AT_HANDLES + HANDLES * HANDLE;
const DIRTY: usize = 65_536;
const WORDS: usize = AT_DIRTY + DIRTY;
const BYTES: usize = WORDS * 8;

/// An open file or directory, as the record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHandle {
    /// The number that the kernel knows.
    pub fh: u64,
    /// Its inode.
    pub ino: u64,
    /// What it is for; see [`crate::vfs`].
    pub flags: u64,
    /// Who opened it.
    pub uid: u32,
    /// With which group.
    pub gid: u32,
}

/// Where things are that this daemon has entered.
#[derive(Debug)]
struct Places {
    handles: HashMap<u64, usize>,
    free_handles: Vec<usize>,
    dirty: HashMap<u64, usize>,
    free_dirty: Vec<usize>,
}

/// See the module's head.
pub struct Record {
    words: NonNull<AtomicU64>,
    places: Mutex<Places>,
}

// SAFETY: the mapping is never unmapped and is only reached through atomics.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record(generation {})", self.generation())
    }
}

/// An empty one, for [`Record::open`].
///
/// # Errors
/// When the system has no memory left.
pub fn create() -> io::Result<OwnedFd> {
    let file = File::from(memfd_create("cairn-record", MemfdFlags::CLOEXEC)?);
    file.set_len(BYTES as u64)?;
    Ok(file.into())
}

impl Record {
    /// Maps the record behind `file`.
    ///
    /// # Errors
    /// When it is none, or one of another release.
    pub fn open(file: impl AsFd) -> io::Result<Self> {
        let strange = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        if rustix::fs::fstat(&file)?.st_size != i64::try_from(BYTES).unwrap_or(0) {
            return Err(strange("the record of open files is one of another release"));
        }
        // SAFETY: a fresh mapping of a file of this size; nobody else has an address in it.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let words = NonNull::new(at.cast()).ok_or_else(|| strange("no address for the record"))?;
        let places = Places {
            handles: HashMap::new(),
            free_handles: Vec::new(),
            dirty: HashMap::new(),
            free_dirty: Vec::new(),
        };
        let record = Self { words, places: Mutex::new(places) };
        match record.get(AT_MAGIC) {
            0 => record.set(AT_MAGIC, MAGIC),
            MAGIC => {}
            _ => return Err(strange("the record of open files is one of another release")),
        }
        record.find_places();
        Ok(record)
    }

    /// A further daemon begins.
    pub fn begin(&self) {
        self.set(AT_GENERATION, self.generation() + 1);
    }

    fn find_places(&self) {
        let mut places = self.lock();
        for slot in (0..HANDLES).rev() {
            match self.get(AT_HANDLES + slot * HANDLE) {
                0 => places.free_handles.push(slot),
                fh => drop(places.handles.insert(fh, slot)),
            }
        }
        for slot in (0..DIRTY).rev() {
            match self.get(AT_DIRTY + slot) {
                0 => places.free_dirty.push(slot),
                ino => drop(places.dirty.insert(ino, slot)),
            }
        }
    }

    /// Which daemon of the mount this is; 1 for the first.
    pub fn generation(&self) -> u64 {
        self.get(AT_GENERATION)
    }

    /// The last session with the master; 0: none.
    pub fn session(&self) -> u64 {
        self.get(AT_SESSION)
    }

    /// There is another session.
    pub fn set_session(&self, id: u64) {
        self.set(AT_SESSION, id);
    }

    /// The kernel's first request, when there was one.
    pub fn first_request(&self) -> Option<Vec<u8>> {
        self.message(AT_REQUEST)
    }

    /// Keeps the kernel's first request.
    pub fn set_first_request(&self, bytes: &[u8]) {
        self.set_message(AT_REQUEST, bytes);
    }

    /// What was answered to the first request.
    pub fn first_reply(&self) -> Option<Vec<u8>> {
        self.message(AT_REPLY)
    }

    /// Keeps what was answered to the first request.
    pub fn set_first_reply(&self, bytes: &[u8]) {
        self.set_message(AT_REPLY, bytes);
    }

    /// A handle was opened.
    pub fn opened(&self, handle: OpenHandle) {
        let mut places = self.lock();
        let Some(slot) = places.free_handles.pop() else { return };
        places.handles.insert(handle.fh, slot);
        let at = AT_HANDLES + slot * HANDLE;
        self.set(at + 1, handle.ino);
        self.set(at + 2, handle.flags);
        self.set(at + 3, u64::from(handle.uid) << 32 | u64::from(handle.gid));
        self.set(at, handle.fh);
    }

    /// Something more is true of a handle.
    pub fn add_flags(&self, fh: u64, flags: u64) {
        let places = self.lock();
        if let Some(slot) = places.handles.get(&fh) {
            let at = AT_HANDLES + slot * HANDLE + 2;
            self.set(at, self.get(at) | flags);
        }
    }

    /// A handle is gone.
    pub fn closed(&self, fh: u64) {
        let mut places = self.lock();
        if let Some(slot) = places.handles.remove(&fh) {
            self.set(AT_HANDLES + slot * HANDLE, 0);
            places.free_handles.push(slot);
        }
    }

    /// All handles that are open.
    pub fn handles(&self) -> Vec<OpenHandle> {
        let places = self.lock();
        let handle = |(fh, slot): (&u64, &usize)| {
            let at = AT_HANDLES + slot * HANDLE;
            let owner = self.get(at + 3);
            let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
            OpenHandle {
                fh: *fh,
                ino: self.get(at + 1),
                flags: self.get(at + 2),
                uid: low(owner >> 32),
                gid: low(owner),
            }
        };
        places.handles.iter().map(handle).collect()
    }

    /// The inode has bytes that are not committed.
    pub fn dirty(&self, ino: u64) {
        let mut places = self.lock();
        if !places.dirty.contains_key(&ino)
            && let Some(slot) = places.free_dirty.pop()
        {
            places.dirty.insert(ino, slot);
            self.set(AT_DIRTY + slot, ino);
        }
    }

    /// It has none any longer.
    pub fn clean(&self, ino: u64) {
        let mut places = self.lock();
        if let Some(slot) = places.dirty.remove(&ino) {
            self.set(AT_DIRTY + slot, 0);
            places.free_dirty.push(slot);
        }
    }

    /// All inodes that have bytes which are not committed.
    pub fn dirty_inodes(&self) -> Vec<u64> {
        self.lock().dirty.keys().copied().collect()
    }

    fn message(&self, at: usize) -> Option<Vec<u8>> {
        let len =
            usize::try_from(self.get(at)).ok().filter(|len| (1..MESSAGE * 8).contains(len))?;
        let words = (at + 1..at + MESSAGE).map(|at| self.get(at).to_ne_bytes());
        Some(words.flatten().take(len).collect())
    }

    fn set_message(&self, at: usize, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min((MESSAGE - 1) * 8)];
        for (word, part) in bytes.chunks(8).enumerate() {
            let mut whole = [0; 8];
            whole[..part.len()].copy_from_slice(part);
            self.set(at + 1 + word, u64::from_ne_bytes(whole));
        }
        self.set(at, bytes.len() as u64);
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < WORDS, "the record has no word {at}");
        // SAFETY: within the mapping, which is as long as the record lives; any bits are a number.
        unsafe { self.words.add(at).as_ref() }
    }

    fn get(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    fn set(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_daemon_finds_what_the_last_one_left() {
        let file = create().unwrap();
        let handle = |fh| OpenHandle { fh, ino: 70 + fh, flags: 3, uid: u32::MAX, gid: 5 };
        {
            let first = Record::open(&file).unwrap();
            first.begin();
            assert_eq!((first.generation(), first.session()), (1, 0));
            assert!(first.first_request().is_none());
            first.set_first_request(b"what the kernel says");
            first.set_session(9);
            (1..=3).for_each(|fh| first.opened(handle(fh)));
            first.closed(2);
            first.add_flags(3, 8);
            first.dirty(71);
            first.dirty(72);
            first.clean(72);
        }
        let second = Record::open(&file).unwrap();
        second.begin();
        assert_eq!((second.generation(), second.session()), (2, 9));
        assert_eq!(second.first_request().unwrap(), b"what the kernel says");
        let mut open = second.handles();
        open.sort_by_key(|h| h.fh);
        assert_eq!(open, [handle(1), OpenHandle { flags: 11, ..handle(3) }]);
        assert_eq!(second.dirty_inodes(), [71]);
        second.clean(71);
        second.closed(1);
        second.closed(3);
        let third = Record::open(&file).unwrap();
        assert!(third.handles().is_empty() && third.dirty_inodes().is_empty());
    }

    #[test]
    fn more_than_there_is_room_for_is_left_out() {
        let record = Record::open(create().unwrap()).unwrap();
        for fh in 1..=HANDLES as u64 + 5 {
            record.opened(OpenHandle { fh, ino: 1, flags: 0, uid: 0, gid: 0 });
        }
        assert_eq!(record.handles().len(), HANDLES);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(Record::open(&file).is_err());
    }
}
