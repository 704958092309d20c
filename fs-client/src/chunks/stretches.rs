//! [`Stretches`]: chunks that lie close together in a file, read in one go and past the page cache.
//!
//! Pages of a node's file would be made, filled, copied from and thrown away, for bytes that the kernel keeps
//! once more as pages of the mounted file. So long stretches are read with `O_DIRECT` into a buffer that is used
//! again and again ([`Buffers`]), and each chunk is copied out of it. Where a file system knows no `O_DIRECT` the
//! kernel is told what will be read, and nothing is read here: the caller reads each chunk for itself.
//!
//! What is found may be anything, as in [`super::local_reads`]. Lock order: `free`, last and never during a read.

use std::{
    fs::File,
    io,
    num::NonZeroU64,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use cairn_proto::pb;
use rustix::{
    fs::{Advice, fadvise},
    io::{Errno, pread},
};

/// Offsets, lengths and addresses are multiples of it: no disk has larger blocks (`O_DIRECT` in open(2)).
const ALIGN: u64 = 4096;
/// Bytes read in one go, over all stretches of one call.
const ROOM: usize = 1280 * 1024;
/// Shorter stretches are left to the kernel, whose cache may have them.
const WORTH: u64 = 128 * 1024;
/// What is read for nothing between two chunks at most.
const GAP: u64 = 8 * 1024;

/// A file, opened to be read in the usual way and past the page cache.
pub(super) struct Doors {
    pub(super) usual: File,
    /// `None`: its file system does not have it.
    pub(super) direct: Option<File>,
}

/// Buffers for [`Stretches`], for as many as there were at once.
#[derive(Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Gives the memory back.
    pub(super) fn clear(&self) {
        let free = std::mem::take(&mut *self.lock());
        drop(free);
    }

    fn take(&self) -> Vec<u8> {
        let used = self.lock().pop();
        used.unwrap_or_else(|| vec![0; ROOM + ALIGN as usize])
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Nothing panics while it holds the lock.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one read brought.
struct Stretch {
    file: String,
    /// Bytes of the file.
    bytes: Range<u64>,
    /// Where they are in the buffer.
    at: usize,
}

/// See the head of this file.
pub(super) struct Stretches<'a> {
    buffers: &'a Buffers,
    buffer: Vec<u8>,
    read: Vec<Stretch>,
}

impl<'a> Stretches<'a> {
    /// Reads what of `places` lies close together, each file through what `open` gives. What cannot be read is
    /// left out. Waits for the disk.
    pub(super) fn read(
        buffers: &'a Buffers,
        mut places: Vec<&pb::Place>,
        open: impl Fn(&str) -> io::Result<Arc<Doors>>,
    ) -> Self {
        let mut this = Self { buffers, buffer: Vec::new(), read: Vec::new() };
        // No file is that long; sums of what is shorter do not overflow.
        places.retain(|place| end(place) <= i64::MAX as u64);
        places.sort_unstable_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        let close = |a: &&pb::Place, b: &&pb::Place| a.file == b.file && b.offset <= end(a) + GAP;
        let mut used = 0;
        for row in places.chunk_by(close) {
            let [first, .., last] = row else { continue };
            let bytes = first.offset / ALIGN * ALIGN..end(last).next_multiple_of(ALIGN);
            let Ok(doors) = open(&first.file) else { continue };
            let direct = doors.direct.as_ref().filter(|_| bytes.end - bytes.start >= WORTH);
            match direct.map(|file| this.fill(file, first, &bytes, used)) {
                Some(Ok(room)) => used += room,
                None | Some(Err(_)) => expect(&doors.usual, &bytes),
            }
        }
        this
    }

    /// Reads as much of `bytes` as there is room for behind `used`. Returns the room that it took.
    fn fill(
        &mut self,
        file: &File,
        first: &pb::Place,
        bytes: &Range<u64>,
        used: usize,
    ) -> io::Result<usize> {
        let len = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX).min(ROOM - used);
        if self.buffer.is_empty() {
            self.buffer = self.buffers.take();
        }
        let at = self.buffer.as_ptr().align_offset(ALIGN as usize) + used;
        let room = self.buffer.get_mut(at..at + len).ok_or(io::ErrorKind::OutOfMemory)?;
        let got = loop {
            match pread(file, &mut *room, bytes.start) {
                Err(Errno::INTR) => {}
                got => break got?,
            }
        };
        let bytes = bytes.start..bytes.start + got as u64;
        self.read.push(Stretch { file: first.file.clone(), bytes, at });
        Ok(len)
    }

    /// A copy of what lies at `place`, if it was read.
    pub(super) fn get(&self, place: &pb::Place) -> Option<Bytes> {
        let holds = |s: &&Stretch| {
            s.bytes.start <= place.offset && end(place) <= s.bytes.end && s.file == place.file
        };
        let stretch = self.read.iter().find(holds)?;
        let at = stretch.at + usize::try_from(place.offset - stretch.bytes.start).ok()?;
        self.buffer.get(at..at + place.length as usize).map(Bytes::copy_from_slice)
    }
}

impl Drop for Stretches<'_> {
    fn drop(&mut self) {
        if !self.buffer.is_empty() {
            self.buffers.lock().push(std::mem::take(&mut self.buffer));
        }
    }
}

fn end(place: &pb::Place) -> u64 {
    place.offset.saturating_add(place.length.into())
}

/// Only a hint: the reads themselves meet the error if there is one.
fn expect(file: &File, bytes: &Range<u64>) {
    let _ = fadvise(file, bytes.start, NonZeroU64::new(bytes.end - bytes.start), Advice::WillNeed);
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path};

    use rustix::fs::OFlags;

    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n / 7 + n / 65_536) as u8).collect()
    }

    fn open(path: &str, direct: bool) -> io::Result<Arc<Doors>> {
        let flags = OFlags::DIRECT.bits().cast_signed();
        let direct = direct.then(|| OpenOptions::new().read(true).custom_flags(flags).open(path));
        Ok(Arc::new(Doors { usual: File::open(path)?, direct: direct.transpose()? }))
    }

    fn place(file: &Path, offset: u64, length: u32) -> pb::Place {
        pb::Place { file: file.display().to_string(), offset, length }
    }

    /// Records of 64 KiB after frames of 64 bytes, as a node has them; the file ends anywhere.
    fn records(dir: &Path, count: u64) -> (Vec<u8>, Vec<pb::Place>) {
        let all = content(count as usize * 65_600 + 64);
        let file = dir.join("records");
        std::fs::write(&file, &all).unwrap();
        (all, (0..count).map(|n| place(&file, 64 + n * 65_600 + 64, 65_536)).collect())
    }

    fn part<'a>(all: &'a [u8], place: &pb::Place) -> &'a [u8] {
        &all[place.offset as usize..][..place.length as usize]
    }

    #[test]
    fn neighbours_are_read_together_and_are_what_the_file_has() {
        // Beside the sources: what is meant for scratch files may be in memory and know no O_DIRECT.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (all, places) = records(dir.path(), 40);
        let buffers = Buffers::default();
        for picked in [0..16, 3..7, 30..40] {
            // In whatever order they are asked for.
            let wanted = places[picked.clone()].iter().rev().collect();
            let stretches = Stretches::read(&buffers, wanted, |path| open(path, true));
            assert_eq!(stretches.read.len(), 1, "{picked:?}");
            for place in &places[picked] {
                assert_eq!(stretches.get(place).unwrap(), part(&all, place));
            }
            assert_eq!(stretches.get(&places[20]), None, "it was not asked for");
            let elsewhere = pb::Place { file: "/elsewhere".into(), ..places[3].clone() };
            assert_eq!(stretches.get(&elsewhere), None);
        }
        assert_eq!(buffers.lock().len(), 1, "it is used again");
        buffers.clear();
        assert!(buffers.lock().is_empty());
    }

    #[test]
    fn what_lies_far_apart_is_read_apart_and_what_is_alone_not_here() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (all, places) = records(dir.path(), 40);
        let buffers = Buffers::default();
        let picked = [0, 1, 2, 10, 11, 30];
        let wanted = picked.iter().map(|n| &places[*n]).collect();
        let stretches = Stretches::read(&buffers, wanted, |path| open(path, true));
        assert_eq!(stretches.read.len(), 2);
        for n in picked {
            let found = stretches.get(&places[n]);
            assert_eq!(found.as_deref(), (n != 30).then(|| part(&all, &places[n])), "chunk {n}");
        }
    }

    #[test]
    fn there_is_a_bound_to_what_is_read_and_places_that_cannot_be_are_left_out() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (all, mut places) = records(dir.path(), 40);
        let buffers = Buffers::default();
        let file = Path::new(&places[0].file).to_owned();
        let end = all.len() as u64;
        // Behind the end, beyond any end, and a file that is not there.
        places.extend([place(&file, end, 65_536), place(&file, u64::MAX - 5, u32::MAX)]);
        places.extend([0, 1].map(|n| place(&dir.path().join("none"), n * 65_536, 65_536)));
        let wanted = places.iter().collect();
        let stretches = Stretches::read(&buffers, wanted, |path| open(path, true));
        assert_eq!(stretches.buffer.len(), ROOM + ALIGN as usize);
        let found = places.iter().filter_map(|place| Some((place, stretches.get(place)?)));
        let found: Vec<_> = found.collect();
        assert!((16..=ROOM / 65_536).contains(&found.len()), "{}", found.len());
        found.iter().for_each(|(place, data)| assert_eq!(data, part(&all, place)));
    }

    #[test]
    fn without_direct_reads_the_caller_reads() {
        let dir = tempfile::tempdir().unwrap();
        let (_, places) = records(dir.path(), 16);
        let buffers = Buffers::default();
        let wanted = places.iter().collect();
        let stretches = Stretches::read(&buffers, wanted, |path| open(path, false));
        assert!(places.iter().all(|place| stretches.get(place).is_none()));
        assert!(buffers.lock().is_empty());
    }
}
