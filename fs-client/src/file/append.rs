//! Appending: bytes whose place is the end of the file at the moment of their commit.
//!
//! Appended bytes wait, in order, in the dirty map from `append_from` on: the length that the master
//! knew when the first of them came. They are committed together, by compare-and-swap on that length.
//! If it has changed, another client appended first; then all of them move to the new end and it is
//! tried again. So appends of two mounts never overlap, and each stays in one piece.
//!
//! While they wait nothing else of the file is uncommitted; any other write flushes first.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use cairn_proto::{Attr, FsError, limits::FILE_SIZE_MAX, pb, pb::commit::Size};
use futures_util::future::try_join_all;

use super::{
    File, Origin,
    commit::{Change, Outcome, ask, commit},
    dirty::{DirtyChunk, Permit, cost_at_most},
    extents::Extents,
    state::State,
};

/// Appended bytes that wait at most; more are committed at once.
const WAITING_MAX: u64 = 4 << 20;

/// What is to be committed together.
struct Appended {
    origin: Origin,
    from: u64,
    end: u64,
    chunks: Vec<(u64, Extents<Bytes>)>,
}

impl File {
    /// Appends `data` in one piece.
    ///
    /// # Errors
    /// `TooBig`; `TimedOut` when the byte budget stays used up; a write-back error.
    pub async fn append(self: &Arc<Self>, origin: Origin, data: &[u8]) -> Result<(), FsError> {
        for piece in data.chunks(1 << 20) {
            self.append_piece(origin, piece).await?;
        }
        Ok(())
    }

    async fn append_piece(self: &Arc<Self>, origin: Origin, data: &[u8]) -> Result<(), FsError> {
        let cost = cost_at_most(data.len(), self.context.chunk_size);
        loop {
            let permit = self.context.take(cost).await?;
            let waiting = {
                let _one = self.appending.lock().await;
                let mut state = self.lock();
                if state.append_from.is_some() || !state.has_uncommitted() {
                    Some(self.enter_appended(&mut state, origin, data, permit)?)
                } else {
                    None
                }
            };
            match waiting {
                Some(waiting) if waiting < WAITING_MAX => return Ok(()),
                Some(_) => return self.flush_appended().await,
                None => self.flush().await?,
            }
        }
    }

    fn enter_appended(
        self: &Arc<Self>,
        state: &mut State,
        origin: Origin,
        data: &[u8],
        permit: Permit,
    ) -> Result<u64, FsError> {
        let at = state.size();
        let end = at.checked_add(data.len() as u64).filter(|end| *end <= FILE_SIZE_MAX);
        let end = end.ok_or(FsError::TooBig)?;
        self.enter(state, origin, at, data, permit);
        let from = *state.append_from.get_or_insert(at);
        Ok(end - from)
    }

    /// Commits what was appended.
    ///
    /// # Errors
    /// Why bytes were lost. Handles tell of it too.
    pub(super) async fn flush_appended(self: &Arc<Self>) -> Result<(), FsError> {
        // In a task of its own: whoever waits may go away, the commit may not be left half-way.
        let file = Arc::clone(self);
        let task = self.context.runtime.spawn(async move { file.commit_appended().await });
        task.await.unwrap_or(Err(FsError::Io))
    }

    async fn commit_appended(self: Arc<Self>) -> Result<(), FsError> {
        let _one = self.appending.lock().await;
        let started = Instant::now();
        let mut tries = 0;
        loop {
            let Some(appended) = self.lock().appended() else { return Ok(()) };
            match self.try_append(&appended, tries).await {
                Ok(outcome) if outcome.applied => {
                    self.appended(&outcome.attr);
                    return Ok(());
                }
                Ok(_) if started.elapsed() > self.context.deadline => {
                    return Err(self.lose(FsError::TimedOut));
                }
                Ok(outcome) if outcome.verify_again != 0 => tries += 1,
                Ok(outcome) => self.move_appended(&outcome.attr),
                Err(FsError::Stale) if self.fenced_off(&self.lock()) => {
                    return Err(self.lose(FsError::Io));
                }
                Err(error) => return Err(self.lose(error)),
            }
        }
    }

    /// `tries`: how often the chunks were put before, each time too long ago for the master.
    async fn try_append(&self, appended: &Appended, tries: u32) -> Result<Outcome, FsError> {
        let caller = appended.origin.caller;
        let stores = appended.chunks.iter().map(async |(index, ours)| {
            let landed = self.store(caller, self.place(*index), *index, ours, tries).await?;
            Ok::<_, FsError>(Change { index: *index, landed })
        });
        let changes = try_join_all(stores).await?;
        let size = pb::AppendAt { expected_size: appended.from, new_size: appended.end };
        let (mtime, fence, durable) = {
            let mut state = self.lock();
            let durable = if state.durable_append { state.durable.send() } else { 0 };
            (state.local_mtime, state.fence, durable)
        };
        let kill = appended.origin.kill_suid_sgid;
        let mut op = commit(self.ino, &changes, Size::AppendAt(size), mtime, kill);
        op.durable = durable != 0;
        let outcome = ask(self.context.session(), fence, caller, op).await?;
        if outcome.applied {
            let mut state = self.lock();
            state.durable.applied(durable);
            state.absorb_own(&outcome.attr, &self.context.manifests);
            for change in &changes {
                let (index, chunk) = (change.index, change.chunk());
                self.context.manifests.set(self.ino, state.manifest_epoch, index, chunk);
            }
        }
        Ok(outcome)
    }

    fn appended(&self, attr: &Attr) {
        let mut state = self.lock();
        state.absorb_own(attr, &self.context.manifests);
        state.dirty.drain();
        state.origin.kill_suid_sgid = false;
        state.settle();
        self.context.unregister_dirty(self.ino, &state);
        self.progress.notify_waiters();
    }

    /// Somebody else changed the length: what waits moves to the new end.
    fn move_appended(&self, attr: &Attr) {
        let mut state = self.lock();
        state.replaced(attr, &self.context.manifests);
        state.pages_version = 0;
        let old = state.dirty.drain();
        let (bytes, mut permit) = join(old, self.context.chunk_size);
        let at = state.committed_size();
        // They may lie in one chunk more than before; for the moment of this commit the budget is
        // exceeded by what that takes rather than waited for.
        state.dirty.write(at, &bytes, |cost| {
            permit.as_mut().and_then(|p| p.split(cost.min(p.num_permits())))
        });
        state.append_from = Some(at);
        state.local_end = at + bytes.len() as u64;
    }

    fn lose(&self, error: FsError) -> FsError {
        self.give_up(&mut self.lock(), error);
        error
    }
}

impl State {
    fn appended(&self) -> Option<Appended> {
        let from = self.append_from?;
        let chunks: Vec<_> = self
            .dirty
            .iter()
            .map(|(index, chunk)| (index, chunk.ours().part(0, u32::MAX)))
            .collect();
        let end = self.local_end;
        (!chunks.is_empty()).then_some(Appended { origin: self.origin, from, end, chunks })
    }
}

/// The bytes of chunks that follow one another, and their permits as one.
fn join(chunks: BTreeMap<u64, DirtyChunk>, chunk_size: u32) -> (BytesMut, Option<Permit>) {
    let mut bytes = BytesMut::with_capacity(chunks.len() * chunk_size as usize);
    let mut permits: Option<Permit> = None;
    for chunk in chunks.into_values() {
        let (ours, permit) = chunk.into_parts();
        for (_, appended) in ours.iter() {
            bytes.extend_from_slice(appended);
        }
        match (&mut permits, permit) {
            (Some(all), Some(permit)) => all.merge(permit),
            (all @ None, permit) => *all = permit,
            (Some(_), None) => {}
        }
    }
    (bytes, permits)
}
