//! Flushing: everything dirty takes off, and everything that took off is committed. Uploading: a
//! chunk in flight is cut and put to the nodes.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkRef, FsError};
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{
    File,
    cut::{cut, is_zero, needs_base},
    extents::Extents,
    flight::Landed,
    state::State,
};
use crate::{
    chunks::{Order, Turn},
    rpc::Caller,
};

/// Pause, times the number of tries, before chunks are put again whose stamps were too old again.
const LAGGING: Duration = Duration::from_millis(20);
const LAGGING_MAX: u32 = 10;

/// Where the upload of a chunk stands among others.
#[derive(Clone, Copy)]
pub(super) struct Place {
    order: Order,
    /// For what there is already.
    turn: Turn,
}

/// How far a flush has come.
enum Flushed {
    Done,
    Failed(FsError),
    Waiting,
}

impl File {
    /// Commits everything written before this call. Takes as long as it makes progress; what a single
    /// chunk or commit may take is bounded by the deadline.
    ///
    /// # Errors
    /// Why bytes were lost. Handles tell of it too.
    pub async fn flush(self: &Arc<Self>) -> Result<(), FsError> {
        self.flush_as(false).await
    }

    /// As [`File::flush`]. True when the master has also said that everything before the end of this call
    /// is power-safe; otherwise it has to be asked.
    ///
    /// # Errors
    /// As for [`File::flush`].
    pub async fn flush_durably(self: &Arc<Self>) -> Result<bool, FsError> {
        let last = self.lock().durable.last();
        self.flush_as(true).await?;
        Ok(self.lock().durable.since(last))
    }

    async fn flush_as(self: &Arc<Self>, durable: bool) -> Result<(), FsError> {
        let appending = {
            let mut state = self.lock();
            let appending = state.append_from.is_some();
            state.durable_append |= durable && appending;
            appending
        };
        if appending {
            return self.flush_appended().await;
        }
        let (mark, errors) = {
            let mut state = self.lock();
            if !state.has_uncommitted() {
                return Ok(());
            }
            state.dirty_since = Some(Instant::now());
            (state.dirty.mark(), state.errors.count())
        };
        let mut target = None;
        loop {
            let mut progress = pin!(self.progress.notified());
            progress.as_mut().enable();
            match self.flush_step(mark, errors, durable, &mut target) {
                Flushed::Done => return Ok(()),
                Flushed::Failed(error) => return Err(error),
                Flushed::Waiting => progress.await,
            }
        }
    }

    fn flush_step(
        self: &Arc<Self>,
        mark: u64,
        errors: u64,
        durable: bool,
        target: &mut Option<u64>,
    ) -> Flushed {
        let mut state = self.lock();
        if let Some(error) = state.errors.since(errors) {
            return Flushed::Failed(error);
        }
        if state.append_from.is_some() {
            // Appending began, and that only happens when everything before is committed.
            return Flushed::Done;
        }
        let waiting = state.dirty.before(mark);
        let count = waiting.len();
        let gone: Vec<_> =
            waiting.into_iter().filter_map(|index| Some((state.take_off(index)?, index))).collect();
        let left = count - gone.len();
        self.spawn_uploads(&gone);
        if left == 0 && target.is_none() {
            *target = Some(state.flights.next_seq());
            if durable {
                state.durable_below = state.flights.next_seq();
            }
        }
        state.flush_below = state.flush_below.max(state.flights.next_seq());
        let in_flight = state.flights.first_seq();
        if target.is_some_and(|t| in_flight.is_none_or(|first| first >= t)) {
            return Flushed::Done;
        }
        self.commit_if_ready(&mut state);
        Flushed::Waiting
    }

    /// Starts a flush that nobody waits for, unless one is under way.
    pub fn flush_in_background(self: &Arc<Self>) {
        let mut state = self.lock();
        self.spawn_flush(&mut state);
    }

    pub(super) fn spawn_flush(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.flushing, true) {
            return;
        }
        let file = Arc::clone(self);
        self.context.runtime.spawn(async move {
            // Handles tell of an error by the file's count.
            let _outcome = file.flush().await;
            file.lock().flushing = false;
        });
    }

    /// Puts flight `seq`, a version of chunk `index`.
    pub(super) fn spawn_upload(self: &Arc<Self>, seq: u64, index: u64) {
        self.spawn_uploads(&[(seq, index)]);
    }

    /// Puts these flights, the chunks in order. Those of a run are one task, so that the nodes are asked for what
    /// they lack, and given what they have become, in one go.
    pub(super) fn spawn_uploads(self: &Arc<Self>, flights: &[(u64, u64)]) {
        let turn = |index| Turn::of(self.ino, index);
        for run in flights.chunk_by(|(_, a), (_, b)| turn(*a).shares_run(turn(*b))) {
            let uploads = run.iter().map(|&(seq, index)| {
                let mut place = self.place(index);
                if run.len() > 1 {
                    place.turn = place.turn.in_row(place.order);
                }
                Arc::clone(self).upload(seq, place)
            });
            self.context.runtime.spawn(join_all(uploads.collect::<Vec<_>>()));
        }
    }

    /// The next one, for chunk `index`.
    pub(super) fn place(&self, index: u64) -> Place {
        Place { order: self.context.chunks().order(index), turn: Turn::of(self.ino, index) }
    }

    async fn upload(self: Arc<Self>, seq: u64, place: Place) {
        let outcome = self.upload_flight(seq, place).await;
        let mut state = self.lock();
        match outcome {
            Ok(landed) => {
                // It may be gone: dropped after an error.
                if let Some(flight) = state.flights.get_mut(seq) {
                    flight.landed = landed;
                }
                self.commit_if_ready(&mut state);
            }
            // Whoever failed first has dropped everything: that is one error, not one for each chunk.
            Err(_) if state.flights.get_mut(seq).is_none() => {}
            Err(error) => self.give_up(&mut state, error),
        }
    }

    async fn upload_flight(&self, seq: u64, place: Place) -> Result<Option<Landed>, FsError> {
        let _slot = self.context.uploads.acquire().await.map_err(|_| FsError::Io)?;
        let (index, ours, caller, tries) = {
            let mut state = self.lock();
            let caller = state.origin.caller;
            let Some(flight) = state.flights.get_mut(seq) else { return Ok(None) };
            (flight.index, flight.ours.clone(), caller, flight.tries)
        };
        self.store(caller, place, index, &ours, tries).await.map(Some)
    }

    /// Makes the new version of chunk `index` from `ours` and what is there, and puts it to the nodes
    /// unless it is a hole. `tries`: how often it was put before; then the nodes are asked first.
    pub(super) async fn store(
        &self,
        caller: Caller,
        Place { order, turn }: Place,
        index: u64,
        ours: &Extents<Bytes>,
        tries: u32,
    ) -> Result<Landed, FsError> {
        let (expected, base) = self.base(caller, turn, index, ours).await?;
        let content = cut(ours, &base);
        drop(base);
        let stored = match (is_zero(&content), tries) {
            (true, _) => None,
            (false, 0) => Some(self.context.chunks().put(order, content).await?),
            (false, _) => {
                // A node that has not heard of the newest epoch yet hears of it within moments.
                sleep(LAGGING * (tries - 1).min(LAGGING_MAX)).await;
                Some(self.context.chunks().put_again(order, content).await?)
            }
        };
        Ok(Landed { expected, stored })
    }

    /// What the manifest has for chunk `index`, and its content when bytes of it are needed.
    async fn base(
        &self,
        caller: Caller,
        turn: Turn,
        index: u64,
        ours: &Extents<Bytes>,
    ) -> Result<(Option<ChunkRef>, Bytes), FsError> {
        let mut again = true;
        loop {
            let expected = self.resolve(caller, index).await?;
            let Some(chunk) = expected.filter(|c| needs_base(ours, c.logical_len)) else {
                return Ok((expected, Bytes::new()));
            };
            match self.context.chunks().get(&chunk, turn).await {
                Ok(stored) => return Ok((expected, stored.slice(..chunk.logical_len as usize))),
                Err(ChunkError::NotFound | ChunkError::Damaged) if again => {
                    again = false;
                    self.distrust_manifest();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Drops what is not committed. Everybody who waits hears of it, and every handle tells of it.
    pub(super) fn give_up(&self, state: &mut State, error: FsError) {
        tracing::error!(ino = %self.ino, %error, "written bytes are lost");
        state.give_up(error, &self.context.manifests);
        self.context.unregister_dirty(self.ino, state);
        self.progress.notify_waiters();
    }
}
