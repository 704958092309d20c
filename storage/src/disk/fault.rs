//! [`FaultDisk`]: a disk in memory that breaks as told, for tests.
//!
//! It keeps what was synced apart from what was only written. [`FaultDisk::power_cut`] ends it and
//! gives the disk that is found after the power is back: of every unsynced write each sector is
//! there or not, as a seed decides; names that were not synced may be lost.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile, Space};

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

/// A kind of call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`DiskFile::read_at`]
    Read,
    /// [`DiskFile::write_at`]
    Write,
    /// [`DiskFile::sync`]
    Sync,
    /// [`DiskFile::allocate`]
    Allocate,
    /// [`DiskFile::punch`]
    Punch,
}

#[derive(Default)]
struct Content {
    synced: Vec<u8>,
    now: Vec<u8>,
    /// Ranges of `now` that `synced` may lack.
    dirty: Vec<(usize, usize)>,
    /// Blocks of `now` that take no room.
    holes: BTreeSet<usize>,
}

struct State {
    files: HashMap<u64, Content>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    next_file: u64,
    capacity: u64,
    used_elsewhere: u64,
    /// Call kind -> (calls until it fails, errno, whether it fails from then on).
    faults: HashMap<Call, (u64, i32, bool)>,
    short_transfers: Option<Random>,
    off: bool,
}

/// A small seeded generator (splitmix64): the same seed gives the same faults.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

/// See the module. Clones are the same disk.
#[derive(Clone)]
pub struct FaultDisk(Arc<Mutex<State>>);

impl FaultDisk {
    /// An empty disk of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: HashMap::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            next_file: 1,
            capacity,
            used_elsewhere: 0,
            faults: HashMap::new(),
            short_transfers: None,
            off: false,
        })))
    }

    /// The `nth` next call of this kind (1: the next) fails with `errno`, once.
    pub fn fail_nth(&self, call: Call, nth: u64, errno: i32) {
        self.state().faults.insert(call, (nth, errno, false));
    }

    /// Every call of this kind fails with `errno` until [`FaultDisk::heal`].
    pub fn fail_always(&self, call: Call, errno: i32) {
        self.state().faults.insert(call, (1, errno, true));
    }

    /// Ends all faults that were asked for.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.short_transfers = None;
    }

    /// Reads and writes transfer only a part, of random length.
    pub fn shorten_transfers(&self, seed: u64) {
        self.state().short_transfers = Some(Random::new(seed));
    }

    /// Something else takes this many bytes of the capacity.
    pub fn use_elsewhere(&self, bytes: u64) {
        self.state().used_elsewhere = bytes;
    }

    /// Flips one bit of a file, as a decaying medium does.
    pub fn flip_bit(&self, name: &str, offset: usize) {
        let mut state = self.state();
        let id = state.names[name];
        let content = state.files.get_mut(&id).expect("a name leads to a file");
        content.now[offset] ^= 1;
        if let Some(byte) = content.synced.get_mut(offset) {
            *byte ^= 1;
        }
    }

    /// Takes the power away: every later call here fails, the returned disk is what is found
    /// afterwards.
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut state = self.state();
        state.off = true;
        let mut names = state.synced_names.clone();
        for (name, id) in &state.names {
            if names.get(name) != Some(id) && random.below(2) == 0 {
                names.retain(|_, other| other != id);
                names.insert(name.clone(), *id);
            }
        }
        let mut files = HashMap::new();
        for id in names.values() {
            let image = state.files[id].after_power_cut(&mut random);
            files.insert(*id, Content { synced: image.clone(), now: image, ..Content::default() });
        }
        let after = Self::new(state.capacity);
        {
            let mut new = after.state();
            new.synced_names = names.clone();
            new.names = names;
            new.files = files;
            new.next_file = state.next_file;
            new.used_elsewhere = state.used_elsewhere;
        }
        after
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, call: Option<Call>) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.off {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if let Some(call) = call
            && let Some((left, errno, always)) = state.faults.get_mut(&call)
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let errno = *errno;
                if !*always {
                    state.faults.remove(&call);
                }
                return Err(io::Error::from_raw_os_error(errno));
            }
        }
        Ok(state)
    }

    fn handle(&self, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(FaultFile { disk: self.clone(), id })
    }
}

impl Content {
    fn taken(&self) -> u64 {
        (self.now.len() as u64).saturating_sub((self.holes.len() * BLOCK) as u64)
    }

    /// Bytes are written to this range.
    fn fill(&mut self, start: usize, end: usize) {
        for block in start / BLOCK..end.div_ceil(BLOCK) {
            self.holes.remove(&block);
        }
    }

    fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let mut image = self.synced.clone();
        // A change of length that was not synced may or may not have happened.
        if self.now.len() != image.len() && random.below(2) == 0 {
            image.resize(self.now.len(), 0);
        }
        for &(start, end) in &self.dirty {
            let mut at = start;
            while at < end {
                let stop = ((at / SECTOR + 1) * SECTOR).min(end);
                if random.below(3) != 0 && stop <= image.len() && stop <= self.now.len() {
                    image[at..stop].copy_from_slice(&self.now[at..stop]);
                }
                at = stop;
            }
        }
        image
    }
}

impl State {
    fn content(&mut self, id: u64) -> &mut Content {
        self.files.entry(id).or_default()
    }

    fn shorten(&mut self, len: usize) -> usize {
        match &mut self.short_transfers {
            Some(random) if len > 1 => 1 + usize::try_from(random.below(len as u64)).unwrap_or(0),
            Some(_) | None => len,
        }
    }

    fn used(&self) -> u64 {
        self.used_elsewhere + self.names.values().map(|id| self.files[id].taken()).sum::<u64>()
    }
}

impl Disk for FaultDisk {
    /// Of no file that others could open.
    fn path(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.enter(None)?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(id))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.enter(None)?;
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, Content::default());
        state.names.insert(name.to_owned(), id);
        Ok(self.handle(id))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.enter(None)?.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.enter(None)?;
        let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.enter(None)?;
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.enter(Some(Call::Sync))?;
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.enter(None)?;
        Ok(Space { capacity: state.capacity, free: state.capacity.saturating_sub(state.used()) })
    }
}

struct FaultFile {
    disk: FaultDisk,
    id: u64,
}

impl DiskFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.enter(None)?.content(self.id).now.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.enter(Some(Call::Read))?;
        let want = state.shorten(buf.len());
        let content = &state.content(self.id).now;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let n = want.min(content.len() - start);
        buf[..n].copy_from_slice(&content[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.enter(Some(Call::Write))?;
        let total = bufs.iter().map(|b| b.len()).sum();
        let n = state.shorten(total);
        let start = usize::try_from(offset).expect("test files are small");
        let content = state.content(self.id);
        if content.now.len() < start + n {
            content.now.resize(start + n, 0);
        }
        let all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).take(n).collect();
        content.now[start..start + n].copy_from_slice(&all);
        content.dirty.push((start, start + n));
        content.fill(start, start + n);
        Ok(n)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.enter(Some(Call::Sync))?;
        let content = state.content(self.id);
        content.synced.resize(content.now.len(), 0);
        for (start, end) in std::mem::take(&mut content.dirty) {
            let end = end.min(content.now.len());
            if start < end {
                content.synced[start..end].copy_from_slice(&content.now[start..end]);
            }
        }
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) {}

    fn expect_read(&self, _offset: u64, _len: u64) {}

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.enter(Some(Call::Allocate))?;
        let old = state.content(self.id).now.len() as u64;
        if state.used() + len.saturating_sub(old) > state.capacity {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        if len > old {
            let len = usize::try_from(len).expect("test files are small");
            state.content(self.id).now.resize(len, 0);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        let mut state = self.disk.enter(Some(Call::Punch))?;
        let content = state.content(self.id);
        let place = |at: u64| usize::try_from(at).expect("test files are small");
        let (start, end) = (place(offset), place(offset + len).min(content.now.len()));
        assert!(start.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK as u64));
        content.now[start..end].fill(0);
        content.dirty.push((start, end));
        content.holes.extend(start / BLOCK..end / BLOCK);
        Ok(true)
    }

    fn taken(&self) -> io::Result<u64> {
        Ok(self.disk.enter(None)?.content(self.id).taken())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.enter(None)?;
        let content = state.content(self.id);
        content.holes.retain(|block| ((block + 1) * BLOCK) as u64 <= len);
        let (len, old) = (usize::try_from(len).expect("test files are small"), content.now.len());
        content.now.resize(len, 0);
        if len < old {
            // What lay beyond must not come back when the file grows again before a sync.
            content.dirty.push((len, old));
        }
        Ok(())
    }
}
