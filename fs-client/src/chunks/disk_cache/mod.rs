//! [`DiskCache`]: verified chunks on a local disk. They outlive the mount, never decide anything, and cost
//! nothing to lose.
//!
//! - What a node has sent, and what was stored, is handed to one thread (`keeper`) through a queue that is
//!   bounded in chunks and bytes. Who finds it full goes on: that chunk is not kept.
//! - What is read is verified against its id, every time. What is wrong is forgotten, and comes from the
//!   nodes. A disk that is late gets company: the nodes are asked, too, and the first answer counts.
//! - Any fault of the disk but a lack of room ends the cache until the next mount, with one line in the
//!   log. A full disk gets no more than it holds by then.
//!
//! `directory`: whose the place is; `slots`: the files; `index`: which chunk is where, and how long ago it
//! was used. One lock, that of the index, held for a lookup and never while the disk works. Disk work is on
//! the keeper's thread or on at most [`READERS`] blocking ones.

mod directory;
mod index;
mod keeper;
mod patience;
mod slots;
#[cfg(test)]
mod tests;

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use cairn_daemon::io_error::plain;
use cairn_proto::{ChunkError, ChunkId};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tracing::{debug, warn};
use uuid::Uuid;

pub use self::directory::CacheRefused;
use self::{
    index::{Index, Place},
    keeper::{Site, Task},
    patience::Patience,
    slots::Slots,
};
use super::budget::Budget;
use crate::config::DiskCacheConfig;

/// Chunks that are read at the same time.
const READERS: usize = 4;
/// Chunks and bytes that may wait to be written.
const QUEUE: usize = 1024;
const QUEUE_BYTES: usize = 16 << 20;
/// How long a mount waits for its cache to be there.
const OPENING: Duration = Duration::from_secs(5);
/// How long it waits for the order of use to be written at its end.
const CLOSING: Duration = Duration::from_secs(5);
/// When the nodes have failed, a disk that was late is waited for so long.
const LAST_HOPE: Duration = Duration::from_secs(5);

type Fetched = Result<Bytes, ChunkError>;

/// What a disk cache has done and what it takes. Counts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCacheFigures {
    /// Chunks that were not in memory and were found on the disk.
    pub hits: u64,
    /// Chunks that were neither here nor there.
    pub misses: u64,
    /// Bytes of the hits.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Chunks that were not kept since the disk did not keep up.
    pub skipped: u64,
    /// Chunks that were not what their id says.
    pub damaged: u64,
    /// Bytes on the disk now.
    pub used: u64,
    /// Bytes on the disk at most; 0 without a cache, or when it has been given up.
    pub limit: u64,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    skipped: AtomicU64,
    damaged: AtomicU64,
}

/// A cache that has been opened and read.
#[derive(Debug)]
struct Live {
    slots: Slots,
    index: Mutex<Index>,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Index> {
        // Nothing panics while it holds the lock.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the keeper, readers and the handle share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    live: OnceLock<Live>,
    /// Given up, or closed.
    off: AtomicBool,
    /// Another mount has the directory.
    waits: AtomicBool,
    counters: Counters,
}

impl Shared {
    fn live(&self) -> Option<&Live> {
        if self.off.load(Relaxed) { None } else { self.live.get() }
    }

    /// Gives the cache up.
    fn fail(&self, doing: &str, error: &io::Error) {
        if !self.off.swap(true, Relaxed) {
            let (dir, why) = (self.dir.display(), plain(error));
            warn!(
                "cannot {doing} the cache in {dir}: {why}; going on without it until the next mount"
            );
        }
    }

    /// What is at `place`, if it is `id`.
    fn read(&self, id: &ChunkId, place: &Place) -> Option<Bytes> {
        let live = self.live()?;
        let mut data = vec![0; place.len as usize];
        match live.slots.read(place.slot, &mut data) {
            Ok(()) if id.verify(&data) => {
                self.counters.hits.fetch_add(1, Relaxed);
                self.counters.read_bytes.fetch_add(u64::from(place.len), Relaxed);
                return Some(data.into());
            }
            Ok(()) => {}
            // Never written, though a record says so.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => {
                self.fail("read", &error);
                return None;
            }
        }
        // Otherwise another chunk has taken its place meanwhile.
        if live.lock().remove(place) {
            if self.counters.damaged.fetch_add(1, Relaxed) == 0 {
                warn!(chunk = %id, "damaged in the cache in {}: fetching it again", self.dir.display());
            } else {
                debug!(chunk = %id, "damaged in the cache");
            }
            match live.slots.clear(place.slot) {
                Ok(()) => live.lock().release(place.slot, place.len),
                Err(error) => self.fail("write to", &error),
            }
        }
        None
    }
}

/// See the head of this file.
pub(super) struct DiskCache {
    shared: Arc<Shared>,
    tasks: mpsc::Sender<Task>,
    queued: Budget,
    readers: Arc<Semaphore>,
    patience: Patience,
}

impl DiskCache {
    /// The cache that `config` names, for the chunks of file system `fs`. A disk that does not do it makes
    /// one that holds nothing.
    ///
    /// # Errors
    /// What the user has to decide.
    pub(super) async fn start(
        config: &DiskCacheConfig,
        fs: Uuid,
        chunk_size: u32,
    ) -> Result<Self, CacheRefused> {
        let shared = Arc::new(Shared {
            dir: config.dir.clone(),
            live: OnceLock::new(),
            off: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            counters: Counters::default(),
        });
        let site = Site { fs: fs.to_string(), chunk_size, limit: config.bytes };
        let (tasks, queue) = mpsc::channel(QUEUE);
        let (opened, answer) = oneshot::channel();
        let keeper = Arc::clone(&shared);
        let thread = thread::Builder::new().name("disk-cache".to_owned());
        if let Err(error) = thread.spawn(move || keeper::run(&keeper, &site, opened, queue)) {
            shared.fail("start", &error);
        }
        match timeout(OPENING, answer).await {
            Ok(Ok(Err(refused))) => return Err(refused),
            // Open, or given up.
            Ok(Ok(Ok(())) | Err(_)) => {}
            Err(_) if shared.waits.load(Relaxed) => {
                return Err(CacheRefused::InUse(config.dir.clone()));
            }
            Err(_) => {
                warn!(
                    "the cache in {} takes long to open: it is used when it is",
                    config.dir.display()
                );
            }
        }
        Ok(Self {
            shared,
            tasks,
            queued: Budget::new(QUEUE_BYTES),
            readers: Arc::new(Semaphore::new(READERS)),
            patience: Patience::default(),
        })
    }

    /// `id` from the disk, or what `nodes` bring. When the disk is late, whoever has it first.
    pub(super) async fn get_or(
        &self,
        id: ChunkId,
        nodes: impl Future<Output = Fetched>,
    ) -> Fetched {
        let place = self.shared.live().and_then(|live| live.lock().find(&id));
        let Some(place) = place else {
            self.missed();
            return nodes.await;
        };
        let mut disk = pin!(self.read(id, place));
        tokio::select! {
            biased;
            found = &mut disk => return match found {
                Some(data) => Ok(data),
                None => nodes.await,
            },
            () = self.patience.ends(&self.shared.dir) => {}
        }
        let mut nodes = pin!(nodes);
        tokio::select! {
            found = &mut disk => match found {
                Some(data) => Ok(data),
                None => nodes.await,
            },
            fetched = &mut nodes => match fetched {
                Ok(data) => Ok(data),
                Err(error) => match timeout(LAST_HOPE, disk).await {
                    Ok(Some(data)) => Ok(data),
                    Ok(None) | Err(_) => Err(error),
                },
            },
        }
    }

    async fn read(&self, id: ChunkId, place: Place) -> Option<Bytes> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.ok()?;
        let shared = Arc::clone(&self.shared);
        let job = spawn_blocking(move || {
            let found = shared.read(&id, &place);
            drop(permit);
            found
        });
        let found = job.await.ok().flatten();
        if found.is_none() {
            self.missed();
        }
        found
    }

    fn missed(&self) {
        self.shared.counters.misses.fetch_add(1, Relaxed);
    }

    /// Has `data`, which `id` names, written, if the disk keeps up. Never waits.
    pub(super) fn keep(&self, id: ChunkId, data: &Bytes) {
        let Some(live) = self.shared.live() else { return };
        if live.lock().find(&id).is_some() {
            return;
        }
        let room = self.queued.try_take(data.len());
        let task = room.map(|room| Task::Keep { id, data: data.clone(), _room: room });
        if task.is_none_or(|task| self.tasks.try_send(task).is_err()) {
            self.shared.counters.skipped.fetch_add(1, Relaxed);
        }
    }

    /// Writes what waits and the order of use, and leaves the directory to others.
    pub(super) async fn close(&self) {
        let closed = async {
            let (done, closed) = oneshot::channel();
            // Without a keeper there is nothing to close.
            if self.tasks.send(Task::Close(done)).await.is_ok() {
                let _ = closed.await;
            }
        };
        if timeout(CLOSING, closed).await.is_err() {
            debug!("the cache in {} takes long to close", self.shared.dir.display());
        }
    }

    pub(super) fn figures(&self) -> DiskCacheFigures {
        let Counters { hits, misses, read_bytes, written_bytes, skipped, damaged } =
            &self.shared.counters;
        let (used, limit) = self.shared.live().map_or((0, 0), |live| live.lock().size());
        DiskCacheFigures {
            hits: hits.load(Relaxed),
            misses: misses.load(Relaxed),
            read_bytes: read_bytes.load(Relaxed),
            written_bytes: written_bytes.load(Relaxed),
            skipped: skipped.load(Relaxed),
            damaged: damaged.load(Relaxed),
            used,
            limit,
        }
    }
}
