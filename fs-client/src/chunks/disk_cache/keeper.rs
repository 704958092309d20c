//! The keeper: the thread that opens a disk cache, writes to it, and writes the order of use at its end.
//!
//! It alone gives out slots, so that nobody else writes to one.

use std::{
    io,
    sync::{Mutex, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use cairn_daemon::io_error::plain;
use cairn_proto::ChunkId;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{debug, info, warn};

use super::{
    Live, Shared,
    directory::{CacheRefused, Directory, NoCache},
    index::Index,
    slots::{Slots, is_full},
};

/// What there is to do.
pub(super) enum Task {
    /// Write a chunk.
    Keep {
        /// What it is called.
        id: ChunkId,
        /// What it is.
        data: Bytes,
        /// Its share of the queue.
        _room: OwnedSemaphorePermit,
    },
    /// End, and tell.
    Close(oneshot::Sender<()>),
}

/// What the cache is for.
pub(super) struct Site {
    pub(super) fs: String,
    pub(super) chunk_size: u32,
    pub(super) limit: u64,
}

/// The keeper's life. `opened` learns whether there is a cache, or why the user has to decide.
pub(super) fn run(
    shared: &Shared,
    site: &Site,
    opened: oneshot::Sender<Result<(), CacheRefused>>,
    mut tasks: mpsc::Receiver<Task>,
) {
    let (directory, next_stamp) = match open(shared, site) {
        Ok(open) => open,
        Err(NoCache::Failed(error)) => {
            shared.fail("use", &error);
            let _ = opened.send(Ok(()));
            return;
        }
        Err(NoCache::Refused(refused)) => {
            shared.off.store(true, Relaxed);
            if let Err(Err(refused)) = opened.send(Err(refused)) {
                warn!("{refused}");
            }
            return;
        }
    };
    let _ = opened.send(Ok(()));
    let Some(live) = shared.live.get() else { return };
    let mut keeper = Keeper { shared, live, stamp: next_stamp, full_said: false };
    let closing = keeper.serve(&mut tasks);
    drop(directory);
    if let Some(closing) = closing {
        let _ = closing.send(());
    }
}

/// Takes the directory and finds out what is in it.
fn open(shared: &Shared, site: &Site) -> Result<(Directory, u64), NoCache> {
    let waiting = || shared.waits.store(true, Relaxed);
    let directory = Directory::open(&shared.dir, &site.fs, site.chunk_size, waiting)?;
    let slots = Slots::open(&shared.dir, site.limit, site.chunk_size)?;
    let contents = slots.load()?;
    let chunks = contents.left.len();
    let (index, dropped) = Index::restore(slots.bounds(), contents.slots, contents.left);
    for slot in &dropped {
        slots.clear(*slot)?;
    }
    let lengths: Vec<u32> = index.lengths().collect();
    slots.trim(lengths.iter().copied())?;
    let (used, limit) = index.size();
    let (dir, chunks) = (shared.dir.display(), chunks - dropped.len());
    info!(%dir, chunks, used, limit, "disk cache");
    let live = shared.live.set(Live { slots, index: Mutex::new(index) });
    live.expect("there is one keeper, which comes here once");
    Ok((directory, contents.next_stamp))
}

struct Keeper<'a> {
    shared: &'a Shared,
    live: &'a Live,
    /// For the next chunk.
    stamp: u64,
    full_said: bool,
}

impl Keeper<'_> {
    /// Works until the cache is closed or the disk fails; who waits for the end.
    fn serve(&mut self, tasks: &mut mpsc::Receiver<Task>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        while let Some(task) = tasks.blocking_recv() {
            match task {
                Task::Keep { id, data, _room } => {
                    if let Err(error) = self.keep(&id, &data) {
                        self.shared.fail("write to", &error);
                    }
                }
                Task::Close(done) => {
                    closing = Some(done);
                    break;
                }
            }
            if self.shared.off.load(Relaxed) {
                return None;
            }
        }
        self.shared.off.store(true, Relaxed);
        let ranks = self.live.lock().ranks();
        if let Err(error) = self.live.slots.renumber(&ranks) {
            // The order in which the chunks came is there in any case.
            debug!("cannot write the order of use: {error}");
        }
        closing
    }

    fn keep(&mut self, id: &ChunkId, data: &Bytes) -> io::Result<()> {
        // No chunk is as long as that.
        let Ok(len) = u32::try_from(data.len()) else { return Ok(()) };
        let room = {
            let mut index = self.live.lock();
            if len == 0 || index.find(id).is_some() {
                return Ok(());
            }
            index.room(len)
        };
        for slot in room.evicted {
            self.live.slots.clear(slot)?;
            self.live.lock().give_back(slot);
        }
        let Some((slot, before)) = room.slot else { return Ok(()) };
        match self.live.slots.write(slot, (id, self.stamp), data, before) {
            Ok(()) => {
                self.stamp += 1;
                self.live.lock().fill(slot, id, len);
                self.shared.counters.written_bytes.fetch_add(u64::from(len), Relaxed);
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.live.slots.clear(slot)?;
                let mut index = self.live.lock();
                index.release(slot, len);
                index.shrink();
                let limit = index.size().1;
                drop(index);
                if !self.full_said {
                    self.full_said = true;
                    let (dir, why) = (self.shared.dir.display(), plain(&error));
                    warn!(limit, "the cache in {dir} gets no larger until the next mount: {why}");
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
