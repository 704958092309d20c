//! [`LocalReads`]: chunks read from the files of a node on this machine.
//!
//! The node says where a chunk lies, we read it there: no copy through a socket, no work for the node. What is
//! read may be anything, since the node moves and erases chunks meanwhile; the caller verifies it, as what comes
//! over the network, and has the node send what is not right.
//!
//! A node whose files we cannot read, or that are not what it says (in another container, say), is asked for no
//! places for a minute; one whose disk hangs is not while reads of it hang. Files are kept open for a few seconds after
//! their last use and no longer: the room of a file that the node has removed is free only then. At most
//! [`OPEN_MAX`] are open, each at most twice. Lock order: `files`, `under_way` or `refused`, each last and never during a
//! read.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_daemon::large_page::LargePages;
use cairn_proto::pb;
use rustix::{
    buffer::spare_capacity,
    fs::OFlags,
    io::{Errno, ReadWriteFlags, pread, preadv2},
};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{
    jobs::Jobs,
    reads::Reads,
    stretches::{self, Doors, Stretches},
};

/// Files that are open at once.
const OPEN_MAX: usize = 64;
/// Threads for what is read in stretches. Measured: more only get into each other's way.
const STRETCHES: usize = 2;
/// Threads for lone chunks, each of which waits for the disk.
const LONE: usize = 8;
/// Nothing is read with so much to read for so long: the disk hangs.
const HANGS: Duration = Duration::from_secs(1);
/// After so many chunks in a row that were not as the node said, its files are not ours to read...
const WRONG: usize = 32;
/// ... for so long.
const REFUSED: Duration = Duration::from_secs(60);
/// A file that was not used for so long, and at most twice that, is closed.
const IDLE: Duration = Duration::from_secs(3);

struct Open {
    doors: Arc<Doors>,
    used: bool,
}

impl Open {
    fn again(&mut self) -> Arc<Doors> {
        self.used = true;
        self.doors.clone()
    }
}

/// See the head of this file.
pub(super) struct LocalReads {
    node: String,
    reads: Arc<Reads>,
    files: Mutex<HashMap<String, Open>>,
    pages: LargePages,
    stretches: Arc<Jobs>,
    lone: Arc<Jobs>,
    under_way: Mutex<UnderWay>,
    /// Chunks in a row that could not be read, or were others.
    wrong: AtomicUsize,
    /// When it was asked for no more places.
    refused: Mutex<Option<Instant>>,
}

struct UnderWay {
    jobs: usize,
    bytes: usize,
    /// When the disk last answered, or the first began.
    heard: Instant,
}

impl LocalReads {
    /// Of the node that messages call `node`; counted in `reads`.
    pub(super) fn new(node: String, reads: Arc<Reads>) -> Arc<Self> {
        Arc::new(Self {
            node,
            reads,
            files: Mutex::default(),
            pages: LargePages::default(),
            stretches: Jobs::new(STRETCHES, 1),
            lone: Jobs::new(LONE, 1),
            under_way: Mutex::new(UnderWay { jobs: 0, bytes: 0, heard: Instant::now() }),
            wrong: AtomicUsize::new(0),
            refused: Mutex::default(),
        })
    }

    /// Whether the node shall be asked for places.
    pub(super) fn wanted(&self) -> bool {
        (self.wrong.load(Relaxed) < WRONG || self.may_try_again()) && self.silence() < HANGS
    }

    fn may_try_again(&self) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let due = refused.is_some_and(|at| at.elapsed() >= REFUSED);
        if due {
            self.wrong.store(0, Relaxed);
        }
        due
    }

    /// Bytes that are to be read and were not yet.
    pub(super) fn load(&self) -> usize {
        self.under_way().bytes
    }

    /// How long there has been something to read and nothing was.
    pub(super) fn silence(&self) -> Duration {
        let under_way = self.under_way();
        if under_way.jobs == 0 { Duration::ZERO } else { under_way.heard.elapsed() }
    }

    /// What was read was a chunk of `bytes` bytes, or (`None`) was not the chunk.
    pub(super) fn note(&self, bytes: Option<usize>) {
        if let Some(bytes) = bytes {
            self.reads.local(bytes);
            self.wrong.store(0, Relaxed);
        } else if self.wrong.fetch_add(1, Relaxed) + 1 == WRONG {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            *refused = Some(Instant::now());
            drop(refused);
            info!(node = self.node, "its files cannot be read here: it sends what is asked for");
        }
    }

    /// Runs `read`, which reads and verifies `chunks` chunks of `bytes` bytes together, on a thread that may block,
    /// then `tell` with the result.
    pub(super) fn submit<T: Send + 'static>(
        self: &Arc<Self>,
        chunks: usize,
        bytes: usize,
        read: impl FnOnce() -> T + Send + 'static,
        tell: impl FnOnce(T) + Send + 'static,
    ) {
        self.began(bytes);
        let done = Done(self.clone(), bytes);
        let read = move || {
            let result = read();
            drop(done);
            result
        };
        let jobs = if chunks == 1 { &self.lone } else { &self.stretches };
        jobs.submit(read, tell);
    }

    /// What lies at `place`. Waits for the disk. Must be called within a runtime.
    ///
    /// # Errors
    /// When the file cannot be opened or read, or ends before.
    pub(super) fn read(self: &Arc<Self>, place: &pb::Place) -> io::Result<Bytes> {
        let doors = self.open(&place.file)?;
        let len = place.length as usize;
        let mut data = Vec::with_capacity(len);
        while data.len() < len {
            let at = place.offset.saturating_add(data.len() as u64);
            match pread(&doors.usual, spare_capacity(&mut data), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        data.truncate(len);
        self.heard();
        Ok(data.into())
    }

    /// As [`LocalReads::read`], of what the kernel has in memory: waits for no disk. `None`: read it the long way.
    pub(super) fn read_now(self: &Arc<Self>, place: &pb::Place) -> Option<Bytes> {
        let doors = self.lock().get_mut(&place.file).map(Open::again)?;
        let mut data = vec![0; place.length as usize];
        let mut bufs = [io::IoSliceMut::new(&mut data)];
        let read = preadv2(&doors.usual, &mut bufs, place.offset, ReadWriteFlags::NOWAIT).ok()?;
        (read == data.len()).then(|| data.into())
    }

    /// Reads what lies close together of `places` in one go. Waits for the disk. Must be called within a runtime.
    pub(super) fn read_together(self: &Arc<Self>, places: Vec<&pb::Place>) -> Stretches<'_> {
        let read = Stretches::read(&self.pages, places, self);
        // Nothing to read is no answer of the disk.
        if !read.is_empty() {
            self.heard();
        }
        read
    }

    fn open(self: &Arc<Self>, path: &str) -> io::Result<Arc<Doors>> {
        if let Some(doors) = self.lock().get_mut(path).map(Open::again) {
            return Ok(doors);
        }
        let usual = open(path, OFlags::empty())?;
        if !usual.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let doors = Arc::new(Doors::new(usual));
        let mut files = self.lock();
        // Otherwise there is somebody who closes them.
        let first = files.is_empty();
        if files.len() >= OPEN_MAX {
            files.retain(|_, open| std::mem::take(&mut open.used));
        }
        if files.len() < OPEN_MAX {
            files.insert(path.to_owned(), Open { doors: doors.clone(), used: true });
        }
        drop(files);
        if first {
            tokio::spawn(self.clone().close_idle());
        }
        Ok(doors)
    }

    /// Until none is open.
    async fn close_idle(self: Arc<Self>) {
        loop {
            sleep(IDLE).await;
            let mut files = self.lock();
            files.retain(|_, open| std::mem::take(&mut open.used));
            if files.is_empty() {
                drop(files);
                return self.pages.clear();
            }
        }
    }

    fn began(&self, bytes: usize) {
        let mut under_way = self.under_way();
        if under_way.jobs == 0 {
            under_way.heard = Instant::now();
        }
        under_way.jobs += 1;
        under_way.bytes += bytes;
    }

    fn ended(&self, bytes: usize) {
        let mut under_way = self.under_way();
        under_way.jobs -= 1;
        under_way.bytes -= bytes;
        under_way.heard = Instant::now();
    }

    /// The disk has answered.
    fn heard(&self) {
        self.under_way().heard = Instant::now();
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        // Nothing panics while it holds the lock.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl stretches::Open for Arc<LocalReads> {
    fn usual(&self, path: &str) -> io::Result<Arc<Doors>> {
        self.open(path)
    }

    fn with(&self, path: &str, flags: OFlags) -> io::Result<File> {
        open(path, flags)
    }
}

/// Neither a link nor something to wait for is a node's file.
fn open(path: &str, flags: OFlags) -> io::Result<File> {
    if !Path::new(path).is_absolute() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | flags;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// A read that waits or runs; dropped with it, however it ends.
struct Done(Arc<LocalReads>, usize);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, sync::mpsc};

    use super::*;

    fn place(file: &Path, offset: u64, length: u32) -> pb::Place {
        pb::Place { file: file.display().to_string(), offset, length }
    }

    #[tokio::test]
    async fn reads_regular_files_as_far_as_they_go() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, b"0123456789").unwrap();
        symlink(&file, &link).unwrap();
        let local = LocalReads::new("node".into(), Arc::default());
        assert!(local.read_now(&place(&file, 0, 1)).is_none(), "it is not open yet");
        assert_eq!(local.read(&place(&file, 2, 3)).unwrap(), "234");
        assert_eq!(local.read_now(&place(&file, 5, 5)).unwrap(), "56789");
        assert!(local.read_now(&place(&file, 5, 6)).is_none());
        let error = local.read(&place(&file, 5, 6)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        for other in [&link, &dir.path().to_owned(), &dir.path().join("none")] {
            assert!(local.read(&place(other, 0, 1)).is_err(), "{}", other.display());
        }
        assert_eq!(local.lock().len(), 1);
    }

    #[tokio::test]
    async fn keeps_few_files_open() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalReads::new("node".into(), Arc::default());
        for n in 0..3 * OPEN_MAX {
            let file = dir.path().join(n.to_string());
            fs::write(&file, b"x").unwrap();
            assert_eq!(local.read(&place(&file, 0, 1)).unwrap(), "x");
            assert!(local.lock().len() <= OPEN_MAX);
        }
    }

    #[tokio::test]
    async fn files_that_are_not_what_the_node_says_are_given_up() {
        let local = LocalReads::new("node".into(), Arc::default());
        for _ in 0..WRONG - 1 {
            local.note(None);
        }
        local.note(Some(1));
        for _ in 0..WRONG {
            assert!(local.wanted(), "a few may have been moved meanwhile");
            local.note(None);
        }
        assert!(!local.wanted());
        *local.refused.lock().unwrap() = Instant::now().checked_sub(REFUSED);
        assert!(local.wanted(), "a minute later");
    }

    #[tokio::test]
    async fn while_the_disk_hangs_the_node_is_asked_for_no_places() {
        let local = LocalReads::new("node".into(), Arc::default());
        let (release, hangs) = mpsc::channel::<()>();
        let (told, result) = mpsc::channel();
        local.submit(1, 7, move || _ = hangs.recv(), move |()| told.send(()).unwrap());
        assert!(local.wanted() && local.load() == 7, "it has only begun");
        local.under_way().heard -= HANGS;
        assert!(!local.wanted() && local.silence() >= HANGS);
        // What the node sends meanwhile does not say that the disk answers.
        assert!(local.read_together(Vec::new()).is_empty());
        assert!(!local.wanted() && local.silence() >= HANGS);
        drop(release);
        result.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(local.wanted() && local.silence() == Duration::ZERO && local.load() == 0);
    }
}
