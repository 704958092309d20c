//! [`Stretches`]: chunks that lie close together in a file, read in one go and past the page cache.
//!
//! Pages of a node's file would be made, filled, copied from and thrown away, for bytes that the kernel keeps
//! once more as pages of the mounted file. So long stretches are read with `O_DIRECT` into a buffer that is used
//! again and again ([`LargePage`]), and each chunk is copied out of it. Where a file system knows no `O_DIRECT` the
//! kernel is told what will be read, and nothing is read here: the caller reads each chunk for itself.
//!
//! What is found may be anything, as in [`super::local_reads`].

use std::{
    fs::{File, Metadata},
    io,
    num::NonZeroU64,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use cairn_daemon::large_page::{ALIGN, LARGE, LargePage, LargePages};
use cairn_proto::pb;
use rustix::{
    fs::{Advice, OFlags, fadvise},
    io::{Errno, pread},
};

/// What is read begins and ends at multiples of it.
const BLOCK: u64 = ALIGN as u64;
/// Shorter stretches are left to the kernel, whose cache may have them.
const WORTH: u64 = 128 * 1024;
/// What is read for nothing between two chunks at most.
const GAP: u64 = 8 * 1024;

/// A file, opened to be read in the usual way and, once somebody wants that, past the page cache.
pub(super) struct Doors {
    pub(super) usual: File,
    /// `None`: its file system does not have it, or refuses it.
    direct: OnceLock<Option<File>>,
    refused: AtomicBool,
}

impl Doors {
    /// Of an open file.
    pub(super) fn new(usual: File) -> Self {
        Self { usual, direct: OnceLock::new(), refused: AtomicBool::new(false) }
    }

    /// The same file, opened by `open` with these further flags.
    fn direct(&self, open: impl FnOnce(OFlags) -> io::Result<File>) -> Option<&File> {
        let again = || {
            let (file, usual) = (open(OFlags::DIRECT).ok()?, self.usual.metadata().ok()?);
            // The name may stand for another one by now.
            let same = |other: &Metadata| (other.dev(), other.ino()) == (usual.dev(), usual.ino());
            file.metadata().is_ok_and(|metadata| same(&metadata)).then_some(file)
        };
        let direct = self.direct.get_or_init(again).as_ref();
        direct.filter(|_| !self.refused.load(Relaxed))
    }
}

/// Opens files.
pub(super) trait Open {
    /// To be read in the usual way.
    fn usual(&self, path: &str) -> io::Result<Arc<Doors>>;

    /// With these further flags.
    fn with(&self, path: &str, flags: OFlags) -> io::Result<File>;
}

/// What one read brought.
struct Stretch {
    file: String,
    /// Bytes of the file.
    bytes: Range<u64>,
    /// Where they are in the page.
    at: usize,
}

/// See the head of this file.
pub(super) struct Stretches<'a> {
    pages: &'a LargePages,
    page: Option<LargePage>,
    read: Vec<Stretch>,
}

impl<'a> Stretches<'a> {
    /// Reads what of `places` lies close together. What cannot be read so is left out. Waits for the disk.
    pub(super) fn read(
        pages: &'a LargePages,
        mut places: Vec<&pb::Place>,
        open: &impl Open,
    ) -> Self {
        let mut this = Self { pages, page: None, read: Vec::new() };
        // No file is that long; sums of what is shorter do not overflow.
        places.retain(|place| end(place) <= i64::MAX as u64);
        places.sort_unstable_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        let close = |a: &&pb::Place, b: &&pb::Place| a.file == b.file && b.offset <= end(a) + GAP;
        let mut stretches = Vec::new();
        let mut used = 0;
        for row in places.chunk_by(close) {
            let Some((first, last)) = row.first().zip(row.last()) else { continue };
            let Ok(doors) = open.usual(&first.file) else { continue };
            let mut bytes = blocks_of(first, last);
            // What there is room for, in whole chunks.
            let fits = |last: &&&pb::Place| {
                let bytes = blocks_of(first, last);
                bytes.end - bytes.start <= (LARGE - used) as u64
            };
            let direct = row.iter().rev().find(fits).map(|last| blocks_of(first, last));
            let direct = direct.filter(|direct| {
                row.len() > 1
                    && direct.end - direct.start >= WORTH
                    && doors.direct(|flags| open.with(&first.file, flags)).is_some()
            });
            if let Some(direct) = direct {
                let len = usize::try_from(direct.end - direct.start).unwrap_or(LARGE);
                bytes.start = direct.end;
                stretches.push((doors.clone(), first.file.as_str(), direct, used));
                used += len;
            }
            if places.len() > 1 && bytes.start < bytes.end {
                // The disk begins with these while we wait for the others.
                expect(&doors.usual, &bytes);
            }
        }
        for (doors, name, bytes, at) in stretches {
            if let Err(error) = this.fill(&doors, name, &bytes, at) {
                // Larger blocks, say.
                doors.refused.fetch_or(error.kind() == io::ErrorKind::InvalidInput, Relaxed);
                expect(&doors.usual, &bytes);
            }
        }
        this
    }

    /// Reads `bytes` to `at` in the page.
    fn fill(&mut self, doors: &Doors, name: &str, bytes: &Range<u64>, at: usize) -> io::Result<()> {
        let file = doors.direct.get().and_then(Option::as_ref).ok_or(io::ErrorKind::Unsupported)?;
        let len =
            usize::try_from(bytes.end - bytes.start).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let page = match &mut self.page {
            Some(page) => page,
            none => none.insert(self.pages.take()?),
        };
        let room = page.get_mut(at..at + len).ok_or(io::ErrorKind::OutOfMemory)?;
        let got = loop {
            match pread(file, &mut *room, bytes.start) {
                Err(Errno::INTR) => {}
                got => break got?,
            }
        };
        let bytes = bytes.start..bytes.start + got as u64;
        self.read.push(Stretch { file: name.to_owned(), bytes, at });
        Ok(())
    }

    /// Whether nothing was read.
    pub(super) fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// A copy of what lies at `place`, if it was read.
    pub(super) fn get(&self, place: &pb::Place) -> Option<Bytes> {
        let holds = |s: &&Stretch| {
            s.bytes.start <= place.offset && end(place) <= s.bytes.end && s.file == place.file
        };
        let stretch = self.read.iter().find(holds)?;
        let at = stretch.at + usize::try_from(place.offset - stretch.bytes.start).ok()?;
        let found = self.page.as_ref()?.get(at..at + place.length as usize);
        found.map(Bytes::copy_from_slice)
    }
}

/// The whole blocks that hold both and what is between.
fn blocks_of(first: &pb::Place, last: &pb::Place) -> Range<u64> {
    first.offset / BLOCK * BLOCK..end(last).next_multiple_of(BLOCK)
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

    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n / 7 + n / 65_536) as u8).collect()
    }

    /// Opens any file; past the page cache only if that is so.
    struct Direct(bool);

    impl Open for Direct {
        fn usual(&self, path: &str) -> io::Result<Arc<Doors>> {
            Ok(Arc::new(Doors::new(File::open(path)?)))
        }

        fn with(&self, path: &str, flags: OFlags) -> io::Result<File> {
            if !self.0 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
        }
    }

    /// Beside this program: what is meant for scratch files may be in memory and know no `O_DIRECT`.
    fn scratch() -> tempfile::TempDir {
        let program = std::env::current_exe().unwrap();
        tempfile::tempdir_in(program.parent().unwrap()).unwrap()
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
        let dir = scratch();
        let (all, places) = records(dir.path(), 40);
        let pages = LargePages::default();
        for picked in [0..16, 3..7, 30..40] {
            // In whatever order they are asked for.
            let wanted = places[picked.clone()].iter().rev().collect();
            let stretches = Stretches::read(&pages, wanted, &Direct(true));
            assert_eq!(stretches.read.len(), 1, "{picked:?}");
            for place in &places[picked] {
                assert_eq!(stretches.get(place).unwrap(), part(&all, place));
            }
            assert_eq!(stretches.get(&places[20]), None, "it was not asked for");
            let elsewhere = pb::Place { file: "/elsewhere".into(), ..places[3].clone() };
            assert_eq!(stretches.get(&elsewhere), None);
        }
        assert_eq!(pages.free(), 1, "it is used again");
    }

    #[test]
    fn what_lies_far_apart_is_read_apart_and_what_is_alone_not_here() {
        let dir = scratch();
        let (all, places) = records(dir.path(), 40);
        let pages = LargePages::default();
        let picked = [0, 1, 2, 10, 11, 30];
        let wanted = picked.iter().map(|n| &places[*n]).collect();
        let stretches = Stretches::read(&pages, wanted, &Direct(true));
        assert_eq!(stretches.read.len(), 2);
        for n in picked {
            let found = stretches.get(&places[n]);
            assert_eq!(found.as_deref(), (n != 30).then(|| part(&all, &places[n])), "chunk {n}");
        }
    }

    #[test]
    fn there_is_a_bound_to_what_is_read_and_places_that_cannot_be_are_left_out() {
        let dir = scratch();
        let (all, mut places) = records(dir.path(), 40);
        let pages = LargePages::default();
        let file = Path::new(&places[0].file).to_owned();
        let end = all.len() as u64;
        // Behind the end, beyond any end, and a file that is not there.
        places.extend([place(&file, end, 65_536), place(&file, u64::MAX - 5, u32::MAX)]);
        places.extend([0, 1].map(|n| place(&dir.path().join("none"), n * 65_536, 65_536)));
        let wanted = places.iter().collect();
        let stretches = Stretches::read(&pages, wanted, &Direct(true));
        let found = places.iter().filter_map(|place| Some((place, stretches.get(place)?)));
        let found: Vec<_> = found.collect();
        assert!((16..=LARGE / 65_536).contains(&found.len()), "{}", found.len());
        found.iter().for_each(|(place, data)| assert_eq!(data, part(&all, place)));
    }

    #[test]
    fn without_direct_reads_the_caller_reads() {
        let dir = tempfile::tempdir().unwrap();
        let (_, places) = records(dir.path(), 16);
        let pages = LargePages::default();
        let wanted = places.iter().collect();
        let stretches = Stretches::read(&pages, wanted, &Direct(false));
        assert!(places.iter().all(|place| stretches.get(place).is_none()));
        assert_eq!(pages.free(), 0);
    }
}
