//! [`LargePage`]: memory that a disk reads into and is written from past the page cache, in one piece.
//!
//! Measured: a disk takes or gives 1 MiB two to three times as fast when it lies in one large page as when it lies in
//! 256 small ones, which are anywhere in memory and have to be named to it one by one.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memmap2::{Advice, MmapMut};

/// Bytes of one; it begins at a multiple of them.
pub const LARGE: usize = 2 << 20;
/// Offsets, lengths and addresses of direct transfers are multiples of it: few disks have larger blocks (`O_DIRECT` in
/// open(2)). Where one has, the transfer is refused.
pub const ALIGN: usize = 4096;

struct Memory {
    /// Twice the room, so that an aligned page is in it; what is not used takes no memory.
    map: MmapMut,
    start: usize,
}

impl Memory {
    fn new() -> io::Result<Self> {
        let map = MmapMut::map_anon(2 * LARGE)?;
        // Without it is slower, and no less right.
        let _ = map.advise(Advice::HugePage);
        let start = map.as_ptr().align_offset(LARGE);
        Ok(Self { map, start })
    }
}

/// As many as were used at once: who is done with one leaves it to the next.
#[derive(Clone, Default)]
pub struct LargePages {
    free: Arc<Mutex<Vec<Memory>>>,
}

impl LargePages {
    /// One of them. What is in it is what was in it last.
    ///
    /// # Errors
    /// When there is no more memory.
    pub fn take(&self) -> io::Result<LargePage> {
        let used = self.lock().pop();
        let memory = used.map_or_else(Memory::new, Ok)?;
        Ok(LargePage { memory: Some(memory), pages: self.clone() })
    }

    /// Gives the memory of those that are not in use back.
    pub fn clear(&self) {
        let free = std::mem::take(&mut *self.lock());
        drop(free);
    }

    /// How many are there and not in use.
    pub fn free(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Memory>> {
        // Nothing panics while it holds the lock.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`LARGE`] bytes; see the head of this file.
pub struct LargePage {
    /// `None` while it is dropped.
    memory: Option<Memory>,
    pages: LargePages,
}

impl Deref for LargePage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| &memory.map[memory.start..][..LARGE])
    }
}

impl DerefMut for LargePage {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], |memory| &mut memory.map[memory.start..][..LARGE])
    }
}

impl Drop for LargePage {
    fn drop(&mut self) {
        self.pages.lock().extend(self.memory.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_and_used_again() {
        let pages = LargePages::default();
        let (mut first, second) = (pages.take().unwrap(), pages.take().unwrap());
        for page in [&first, &second] {
            assert_eq!((page.len(), page.as_ptr().align_offset(LARGE)), (LARGE, 0));
        }
        first[LARGE - 1] = 7;
        let at = first.as_ptr();
        drop(second);
        drop(first);
        assert_eq!(pages.free(), 2);
        let again = pages.take().unwrap();
        assert_eq!((again.as_ptr(), again[LARGE - 1], pages.free()), (at, 7, 1));
        pages.clear();
        assert_eq!(pages.free(), 0);
        drop(again);
        assert_eq!(pages.free(), 1);
    }
}
