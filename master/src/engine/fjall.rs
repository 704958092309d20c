//! The embedded engine, on fjall: a log-structured tree behind a journal.
//!
//! - A commit goes to the journal and is flushed to the kernel: it survives `kill -9`.
//! - [`Engine::sync`] calls `fdatasync` on the newest journal through a descriptor of its own, because
//!   fjall's own call holds the lock that commits need. Older journals were synced before the newest
//!   was made.
//! - The newest fencing epoch lies in a key space of its own, written in the commit that raises it.
//! - fjall refuses everything after a failed write, so a full disk is noticed before it is full: below
//!   one reserve [`Engine::has_room`] says no, below a smaller one commits are refused unharmed.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::{Batch, Direction, Engine, EngineError, KeyRange, Pairs, Reader, journal_tail};

/// Bounds of the engine's memory.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of cached blocks.
    pub cache_bytes: u64,
    /// Bytes of one memtable; up to five may exist at once.
    pub memtable_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, memtable_bytes: 16 << 20 }
    }
}

const FENCE_KEY: &[u8] = b"epoch";
/// Bytes of journals that make fjall write memtables out.
const JOURNALS_BYTES: u64 = 256 << 20;
/// Free bytes below which only deletions go on, and below which nothing is written.
const RESERVES: [u64; 2] = [256 << 20, 64 << 20];
/// The same as a fraction of the disk, for small disks.
const RESERVE_FRACTIONS: [u64; 2] = [20, 100];
/// Short, so that nobody else on the disk can fill the last reserve between two looks.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// An engine whose files lie in one directory.
pub struct FjallEngine {
    database: Database,
    rows: Keyspace,
    fence: Keyspace,
    directory: PathBuf,
    newest_epoch: AtomicU64,
    failed: AtomicBool,
    space: Space,
}

/// Syncs every file and directory below `directory`, and itself. What is removed meanwhile, as fjall does
/// in the background with what it has merged, needs no sync.
fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in directory.read_dir()? {
        let path = entry?.path();
        let synced = if path.is_dir() {
            sync_tree(&path)
        } else {
            File::open(&path).and_then(|f| f.sync_all())
        };
        match synced {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    File::open(directory)?.sync_all()
}

impl FjallEngine {
    /// Opens the engine in `directory`, which is made when it does not exist.
    pub fn open(directory: &Path, options: Options) -> Result<Self, EngineError> {
        let open = || {
            Database::builder(directory)
                .cache_size(options.cache_bytes)
                .max_journaling_size(JOURNALS_BYTES)
                .worker_threads(2)
                .open()
        };
        let database = match open() {
            Err(fjall::Error::JournalRecovery(why)) => {
                cut_torn_journal(directory, &why)?;
                open()
            }
            opened => opened,
        }
        .map_err(convert)?;
        let create = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
        let rows = database.keyspace("rows", create).map_err(convert)?;
        let fence = database.keyspace("fence", create).map_err(convert)?;
        // fjall syncs the files of a new keyspace, not every directory above them. On a disk that
        // promises only what POSIX does, a power cut could take the keyspace, and with it all rows.
        sync_tree(directory).map_err(EngineError::Io)?;
        if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent).and_then(|d| d.sync_all()).map_err(EngineError::Io)?;
        }
        let newest_epoch = match fence.get(FENCE_KEY).map_err(convert)? {
            None => 0,
            Some(value) => u64::from_be_bytes(value.as_ref().try_into().map_err(|_| {
                EngineError::Damaged(format!("the epoch has {} bytes", value.len()))
            })?),
        };
        Ok(Self {
            database,
            rows,
            fence,
            directory: directory.to_owned(),
            newest_epoch: AtomicU64::new(newest_epoch),
            failed: AtomicBool::new(false),
            space: Space::of(directory),
        })
    }

    fn fail(&self, error: EngineError) -> EngineError {
        self.failed.store(true, SeqCst);
        error
    }

    fn check_alive(&self) -> Result<(), EngineError> {
        if self.failed.load(SeqCst) {
            return Err(EngineError::Io(io::Error::other("an earlier write failed")));
        }
        Ok(())
    }

    fn sync_journal(&self) -> io::Result<()> {
        loop {
            let Some(path) = newest_journal(&self.directory)? else {
                return Err(io::Error::other("the metadata directory has no journal"));
            };
            match File::open(&path) {
                Ok(file) => return file.sync_data(),
                // Replaced between the listing and the opening; what it held is on disk.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn newest_journal(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(n, _)| *n < number)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

fn cut_torn_journal(directory: &Path, why: &dyn std::fmt::Display) -> Result<(), EngineError> {
    let Some(journal) = newest_journal(directory).map_err(EngineError::Io)? else { return Ok(()) };
    let aside = directory.parent().unwrap_or(directory);
    if let Some(copy) = journal_tail::cut(&journal, aside).map_err(EngineError::Io)? {
        tracing::warn!(
            journal = %journal.display(), copy = %copy.display(), %why,
            "cut what a power loss tore off the end of the journal; the copy is as it was"
        );
    }
    Ok(())
}

impl Reader for FjallEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.rows.get(key).map_err(convert)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Pairs<'_> {
        // Without a snapshot a scan would see later commits.
        let snapshot = self.database.snapshot();
        pairs(snapshot.range(&self.rows, (range.from, range.to)), direction)
    }
}

impl Engine for FjallEngine {
    fn snapshot(&self) -> Result<Arc<dyn Reader>, EngineError> {
        Ok(Arc::new(FjallSnapshot { snapshot: self.database.snapshot(), rows: self.rows.clone() }))
    }

    fn commit(&self, batch: Batch, epoch: u64) -> Result<(), EngineError> {
        self.check_alive()?;
        let newest = self.newest_epoch.load(SeqCst);
        if epoch < newest {
            return Err(EngineError::Fenced { own: epoch, newest });
        }
        if self.space.level() == Level::Full {
            return Err(EngineError::NoSpace);
        }
        let mut writes = self.database.batch().durability(Some(PersistMode::Buffer));
        if epoch > newest {
            writes.insert(&self.fence, FENCE_KEY, epoch.to_be_bytes());
        }
        for (key, value) in batch.writes {
            match value {
                Some(value) => writes.insert(&self.rows, key.as_ref(), value.as_ref()),
                None => writes.remove(&self.rows, key.as_ref()),
            }
        }
        writes.commit().map_err(|error| self.fail(convert(error)))?;
        self.newest_epoch.store(epoch, SeqCst);
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.check_alive()?;
        self.sync_journal().map_err(|error| self.fail(EngineError::Io(error)))
    }

    fn has_room(&self) -> bool {
        self.space.level() == Level::Room
    }
}

struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    rows: Keyspace,
}

impl Reader for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.snapshot.get(&self.rows, key).map_err(convert)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Pairs<'_> {
        pairs(self.snapshot.range(&self.rows, (range.from, range.to)), direction)
    }
}

fn pairs(iter: fjall::Iter, direction: Direction) -> Pairs<'static> {
    let pair = |guard: fjall::Guard| {
        let (key, value) = guard.into_inner().map_err(convert)?;
        Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
    };
    match direction {
        Direction::Forward => Box::new(iter.map(pair)),
        Direction::Backward => Box::new(iter.rev().map(pair)),
    }
}

fn convert(error: fjall::Error) -> EngineError {
    match error {
        fjall::Error::Locked => EngineError::Locked,
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            EngineError::Io(error)
        }
        fjall::Error::Poisoned => EngineError::Io(io::Error::other("an earlier write failed")),
        other => EngineError::Damaged(other.to_string()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Room,
    DeletionsOnly,
    Full,
}

/// What is left on the disk, asked once in a while.
struct Space {
    directory: PathBuf,
    started: Instant,
    checked_ms: AtomicU64,
    level: AtomicU64,
}

impl Space {
    fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            started: Instant::now(),
            checked_ms: AtomicU64::new(u64::MAX),
            level: AtomicU64::new(0),
        }
    }

    fn level(&self) -> Level {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let checked = self.checked_ms.load(SeqCst);
        let fresh = u128::from(now.saturating_sub(checked)) < SPACE_CHECK_INTERVAL.as_millis();
        if checked == u64::MAX || !fresh {
            self.checked_ms.store(now, SeqCst);
            self.level.store(self.measure(), SeqCst);
        }
        match self.level.load(SeqCst) {
            0 => Level::Room,
            1 => Level::DeletionsOnly,
            _ => Level::Full,
        }
    }

    fn measure(&self) -> u64 {
        // A disk that cannot be asked is taken to have room: the write itself will tell.
        let Ok(disk) = rustix::fs::statvfs(&self.directory) else { return 0 };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let below = |i: usize| free < RESERVES[i].min(total / RESERVE_FRACTIONS[i]);
        if below(1) {
            2
        } else if below(0) {
            1
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::conformance::{self, Reopen},
        *,
    };

    fn open(directory: &Path) -> Arc<dyn Engine> {
        Arc::new(FjallEngine::open(directory, Options::default()).unwrap())
    }

    #[test]
    fn conforms() {
        let root = tempfile::tempdir().unwrap();
        let mut made = 0;
        conformance::run(&mut || {
            made += 1;
            let directory = root.path().join(made.to_string());
            let reopen: Reopen = Box::new({
                let directory = directory.clone();
                move || open(&directory)
            });
            (open(&directory), Some(reopen))
        });
    }

    #[test]
    fn a_second_opener_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("meta");
        let _first = open(&path);
        assert!(matches!(
            FjallEngine::open(&path, Options::default()),
            Err(EngineError::Locked | EngineError::Io(_))
        ));
    }

    #[test]
    fn sync_follows_the_journal_when_it_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let options = Options { memtable_bytes: 1 << 20, ..Options::default() };
        let engine = FjallEngine::open(&root.path().join("meta"), options).unwrap();
        for i in 0..200u64 {
            let key = Bytes::copy_from_slice(&i.to_be_bytes());
            let value = Bytes::from(vec![i as u8; 64 * 1024]);
            engine.commit(Batch { writes: [(key, Some(value))].into() }, 1).unwrap();
            engine.sync().unwrap();
        }
    }

    /// The files as a power loss leaves them, with one page of the newest journal never written.
    fn copy_torn(from: &Path, to: &Path, lost_page: u64) {
        use std::os::unix::fs::FileExt;
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                std::fs::create_dir_all(&target).unwrap();
                copy_torn(&entry.path(), &target, lost_page);
            } else {
                std::fs::copy(entry.path(), &target).unwrap();
                if target.extension().is_some_and(|extension| extension == "jnl") {
                    let file = std::fs::OpenOptions::new().write(true).open(&target).unwrap();
                    file.write_all_at(&[0; 4096], lost_page * 4096).unwrap();
                }
            }
        }
    }

    #[test]
    fn files_that_the_engine_removes_meanwhile_do_not_keep_it_from_opening() {
        let root = tempfile::tempdir().unwrap();
        let tables = root.path().join("tables");
        std::fs::create_dir(&tables).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let paths: Vec<_> = (0..50).map(|n| tables.join(format!("{n}"))).collect();
                    paths.iter().for_each(|path| drop(File::create(path).unwrap()));
                    paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
                }
            });
            let synced: Vec<_> = (0..100).map(|_| sync_tree(root.path())).collect();
            done.store(true, SeqCst);
            assert!(synced.iter().all(Result::is_ok), "{synced:?}");
        });
    }

    #[test]
    fn a_page_that_a_power_loss_swallowed_leaves_a_prefix() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("meta");
        let engine = FjallEngine::open(&path, Options::default()).unwrap();
        for i in 0..200u64 {
            let writes = (0..3u64).map(|j| {
                let key = [i.to_be_bytes(), j.to_be_bytes()].concat();
                (Bytes::from(key), Some(Bytes::from(vec![i as u8 + 1; 9000])))
            });
            engine.commit(Batch { writes: writes.collect() }, 1).unwrap();
        }
        let mut cut = 0;
        for lost_page in [0, 1, 17, 50, 101, 200] {
            let torn = root.path().join(format!("torn{lost_page}/meta"));
            std::fs::create_dir_all(&torn).unwrap();
            copy_torn(&path, &torn, lost_page);
            let engine = FjallEngine::open(&torn, Options::default()).unwrap();
            let range =
                KeyRange { from: std::ops::Bound::Unbounded, to: std::ops::Bound::Unbounded };
            let rows: Vec<_> = engine.scan(range, Direction::Forward).map(Result::unwrap).collect();
            assert_eq!(rows.len() % 3, 0, "whole batches");
            assert!(rows.len() as u64 * 9000 <= lost_page * 4096, "nothing behind the gap");
            assert!(rows.len() as u64 * 9100 + 30_000 >= lost_page * 4096, "all before it");
            for (n, (key, _)) in rows.iter().enumerate() {
                assert_eq!(key[..8], (n as u64 / 3).to_be_bytes());
            }
            let copy = torn.parent().unwrap().join("torn-0.jnl");
            cut += u32::from(copy.exists());
            let writes = [(Bytes::from_static(b"x"), Some(Bytes::new()))].into();
            engine.commit(Batch { writes }, 1).unwrap();
            drop(engine);
            let engine = FjallEngine::open(&torn, Options::default()).unwrap();
            assert!(engine.get(b"x").unwrap().is_some());
        }
        assert!(cut > 0, "fjall alone would have refused to start");
    }
}
