//! [`Direct`]: large writes to one file, past the page cache.
//!
//! The kernel would make pages for them, write these back at the sync that follows and let go of them again: for two
//! nodes 0.7 s of processor time per GiB that a mount writes. So whole blocks of what is long are copied into a large page
//! and written with `O_DIRECT`; what is left before and behind them goes the usual way. The blocks of the two ways never
//! overlap within a call, and the kernel keeps them coherent over calls. A sync is needed after either.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cairn_daemon::large_page::{ALIGN, LARGE, LargePages};
use rustix::{
    fs::OFlags,
    io::{Errno, pwrite, pwritev},
    param::page_size,
};

/// Shorter writes go the usual way.
const WORTH: usize = 256 * 1024;

/// The file, opened once more.
enum Door {
    /// Not tried yet, or given back.
    Closed,
    /// With the length of its blocks, or of pages where those are longer: the two ways must not share one.
    Open(Arc<File>, usize),
    /// Its file system does not have it, or refuses it.
    Refused,
}

/// See the head of this file. Lock order: `door`, last and never during a write.
pub(super) struct Direct {
    door: Mutex<Door>,
    pages: LargePages,
}

impl Direct {
    /// Copies through one of `pages`.
    pub(super) fn new(pages: LargePages) -> Self {
        Self { door: Mutex::new(Door::Closed), pages }
    }

    /// Lets go of the second descriptor and of the pages; the next large write has them again.
    pub(super) fn close(&self) {
        let mut door = self.lock();
        if let Door::Open(..) = *door {
            *door = Door::Closed;
            drop(door);
            self.pages.clear();
        }
    }

    /// Writes some bytes of `bufs`; how many. `None`: they are to be written in the usual way.
    pub(super) fn write_at(
        &self,
        file: &File,
        bufs: &[IoSlice<'_>],
        offset: u64,
    ) -> io::Result<Option<usize>> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        if len < WORTH {
            return Ok(None);
        }
        let Some((direct, block)) = self.open(file) else { return Ok(None) };
        // Up to the next whole block.
        let past = usize::try_from(offset % block as u64).unwrap_or(0);
        if past > 0 {
            return Ok(Some(pwritev(file, &first(bufs, block - past), offset)?));
        }
        let Ok(mut page) = self.pages.take() else { return Ok(None) };
        let whole = len.min(LARGE) / block * block;
        gather(bufs, &mut page[..whole]);
        match pwrite(&*direct, &page[..whole], offset) {
            Ok(written) => Ok(Some(written)),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                *self.lock() = Door::Refused;
                Ok(None)
            }
            // The kernel's, for naming the page to the disk.
            Err(Errno::NOMEM | Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, file: &File) -> Option<(Arc<File>, usize)> {
        let mut door = self.lock();
        match &*door {
            Door::Open(file, block) => Some((file.clone(), *block)),
            Door::Refused => None,
            Door::Closed => {
                let opened = open_direct(file);
                *door = match &opened {
                    Some((file, block)) => Door::Open(file.clone(), *block),
                    None => Door::Refused,
                };
                opened
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Door> {
        // Nothing panics while it holds the lock.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_direct(file: &File) -> Option<(Arc<File>, usize)> {
    let blocks = usize::try_from(file.metadata().ok()?.blksize()).ok()?;
    let block = ALIGN.max(page_size()).max(blocks);
    // Its name may have changed since it was opened; that of the descriptor has not.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let direct = OFlags::DIRECT.bits().cast_signed();
    let direct = OpenOptions::new().write(true).custom_flags(direct).open(path).ok()?;
    (WORTH >= 2 * block && LARGE.is_multiple_of(block)).then(|| (Arc::new(direct), block))
}

/// The first `len` bytes of `bufs`, which has more.
fn first<'a>(bufs: &'a [IoSlice<'_>], mut len: usize) -> Vec<IoSlice<'a>> {
    let mut some = Vec::new();
    for buf in bufs {
        let part = len.min(buf.len());
        some.push(IoSlice::new(&buf[..part]));
        len -= part;
        if len == 0 {
            break;
        }
    }
    some
}

/// Fills `room` with the first bytes of `bufs`, which has as many.
fn gather(bufs: &[IoSlice<'_>], mut room: &mut [u8]) {
    for buf in bufs {
        let part = room.len().min(buf.len());
        let (now, later) = room.split_at_mut(part);
        now.copy_from_slice(&buf[..part]);
        room = later;
        if room.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk as _, DiskFile, RealDisk, fault::Random, write_full};

    /// Beside this program: what is meant for scratch files may be in memory and know no `O_DIRECT`.
    fn scratch() -> tempfile::TempDir {
        let program = std::env::current_exe().unwrap();
        tempfile::tempdir_in(program.parent().unwrap()).unwrap()
    }

    fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
        let seed = random.draw();
        (0..len).map(|n| (seed >> (n % 57)) as u8 ^ n as u8).collect()
    }

    #[test]
    fn what_is_written_in_pieces_of_any_length_is_there() {
        let dir = scratch();
        let disk = RealDisk::new(dir.path());
        let mut random = Random::new(7);
        let file: Arc<dyn DiskFile> = disk.create("before").unwrap();
        disk.rename("before", "after").unwrap();
        let mut expected = Vec::new();
        for round in 0..60 {
            let len = 1 + random.below(if round % 3 == 0 { 5 << 20 } else { 600 << 10 }) as usize;
            let data = bytes(&mut random, len);
            let cut = random.below(len as u64) as usize;
            let mut bufs =
                [IoSlice::new(&data[..cut]), IoSlice::new(&[]), IoSlice::new(&data[cut..])];
            // Mostly at the end, now and then over what is there.
            let offset = match round % 7 {
                6 => random.below(expected.len() as u64) as usize,
                _ => expected.len(),
            };
            if round % 5 == 0 {
                file.allocate((offset + len) as u64 + 10_000).unwrap();
            }
            write_full(&*file, &mut bufs, offset as u64).unwrap();
            expected.resize(expected.len().max(offset + len), 0);
            expected[offset..offset + len].copy_from_slice(&data);
            // Through the page cache meanwhile.
            let mut end = vec![0; 5000.min(expected.len())];
            let at = expected.len() - end.len();
            crate::disk::read_full(&*file, &mut end, at as u64).unwrap();
            assert_eq!(end, expected[at..], "round {round}");
            if round % 11 == 0 {
                file.sync().unwrap();
                file.truncate(expected.len() as u64).unwrap();
            }
        }
        file.truncate(expected.len() as u64).unwrap();
        assert!(std::fs::read(dir.path().join("after")).unwrap() == expected);
    }

    #[test]
    fn large_writes_go_past_the_page_cache_and_small_ones_do_not() {
        let dir = scratch();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        let direct = Direct::new(LargePages::default());
        let data = vec![1; LARGE + WORTH];
        // As a new segment is while it is written to.
        std::fs::rename(&path, dir.path().join("other")).unwrap();
        let write =
            |offset, len| direct.write_at(&file, &[IoSlice::new(&data[..len])], offset).unwrap();
        assert_eq!(write(0, WORTH - 1), None);
        assert_eq!(write(64, WORTH), Some(ALIGN - 64), "up to the next block");
        assert_eq!(write(ALIGN as u64, WORTH + 5), Some(WORTH), "whole blocks");
        assert_eq!(write(0, LARGE + WORTH), Some(LARGE), "a page at most");
        assert!(matches!(*direct.lock(), Door::Open(..)));
        direct.close();
        assert!(matches!(*direct.lock(), Door::Closed));
        *direct.lock() = Door::Refused;
        assert_eq!(write(0, LARGE), None);
    }
}
