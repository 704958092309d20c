//! [`Survey`]: what several nodes hold of a range of ids together, window by window.
//!
//! Each window ends where the shortest of the sources' pages ends, so memory is bounded by a page of
//! each, however many chunks there are. A source that fails is left out from then on and named.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use cairn_proto::ChunkId;
use futures_util::future::join_all;

use crate::peer::{Held, Peer, PeerError};

/// Chunks in a page.
pub const PAGE: u32 = 1024;

/// A node that is asked, until it fails.
pub struct Source {
    peer: Peer,
    failed: AtomicBool,
}

impl Source {
    /// It works as far as is known.
    pub fn new(peer: Peer) -> Self {
        Self { peer, failed: AtomicBool::new(false) }
    }

    /// The node, unless it has failed.
    pub fn peer(&self) -> Option<&Peer> {
        (!self.failed.load(Ordering::Acquire)).then_some(&self.peer)
    }

    /// It is not asked any more; whether it was until now.
    pub fn fail(&self) -> bool {
        !self.failed.swap(true, Ordering::AcqRel)
    }
}

/// A chunk that some source holds.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub id: ChunkId,
    /// Length of its data.
    pub len: u32,
    /// The newest epoch that a source has stamped it with.
    pub epoch: u64,
    /// Positions of the sources that hold it.
    pub holders: Vec<usize>,
}

/// See the module.
pub struct Survey {
    after: Option<ChunkId>,
    before: Option<ChunkId>,
    done: bool,
}

impl Survey {
    /// Over the ids between these two.
    pub fn new(after: Option<ChunkId>, before: Option<ChunkId>) -> Self {
        Self { after, before, done: false }
    }

    /// The next window; `None` when the range has been seen. Sources that fail are told in `failed`.
    pub async fn next(
        &mut self,
        sources: &[Source],
        failed: &mut Vec<PeerError>,
    ) -> Option<Vec<Seen>> {
        if self.done {
            return None;
        }
        let pages = sources.iter().map(|source| async {
            match source.peer() {
                Some(peer) => Some(peer.list(self.after, self.before, PAGE).await),
                None => None,
            }
        });
        let pages = join_all(pages).await;
        let mut seen: BTreeMap<ChunkId, Seen> = BTreeMap::new();
        // The least id up to which every source has told what it has.
        let mut horizon = None;
        for (n, page) in pages.into_iter().enumerate() {
            let (held, end) = match page {
                Some(Ok(page)) => page,
                Some(Err(e)) => {
                    failed.push(e);
                    sources[n].fail();
                    continue;
                }
                None => continue,
            };
            if let Some(last) = held.last().filter(|_| !end) {
                horizon = Some(horizon.map_or(last.id, |h: ChunkId| h.min(last.id)));
            }
            for chunk in held.into_iter().filter(|chunk| !chunk.uncounted) {
                note(&mut seen, n, &chunk);
            }
        }
        match horizon {
            None => self.done = true,
            Some(horizon) => {
                seen.retain(|id, _| *id <= horizon);
                self.after = Some(horizon);
            }
        }
        Some(seen.into_values().collect())
    }
}

fn note(seen: &mut BTreeMap<ChunkId, Seen>, source: usize, chunk: &Held) {
    let new = || Seen { id: chunk.id, len: chunk.len, epoch: 0, holders: Vec::new() };
    let entry = seen.entry(chunk.id).or_insert_with(new);
    entry.epoch = entry.epoch.max(chunk.epoch);
    entry.holders.push(source);
}
