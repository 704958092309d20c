//! Drop: takes chunks of a group out of this node when every home has them.
//!
//! A home confirms a chunk when it lists it as good and out of quarantine, with a stamp as new as the one
//! here; where its stamp is older it is told to stamp its copy, as a client would. So a chunk that somebody
//! is about to commit is protected at the homes before its copy here goes. Whoever puts or touches the
//! copy meanwhile keeps it: an entry is taken out only if it is as it was when the homes were asked.

use std::{collections::HashMap, sync::Arc};

use cairn_proto::{ChunkId, Group, Node};
use futures_util::future::try_join_all;

use super::{Repair, survey::PAGE};
use crate::{
    failpoints::{self, DROP_AFTER_REMOVE, DROP_BEFORE_REMOVE},
    peer::{Peer, PeerError},
    store::{groups::ids_of, list::Listed},
};

/// Which group goes, and who has to have it.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Bits of a group.
    pub pg_bits: u32,
    /// Which group.
    pub group: Group,
    /// Who has to confirm.
    pub homes: Vec<Node>,
    /// Of the map that says so.
    pub map_epoch: u64,
}

/// What went, and what stayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Chunks that went.
    pub chunks: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Chunks that some home did not confirm, or that are in use.
    pub kept: u64,
}

/// Why a group was not dropped, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// A newer map may want the group to be here.
    #[error("the cluster map has changed: this node has epoch {known}, the request is of {asked}")]
    OldMap {
        /// The epoch that the node has.
        known: u64,
        /// The epoch of the request.
        asked: u64,
    },
    /// This node is a home, or there is none.
    #[error("the group's homes must be given, and this node must not be one of them")]
    Home,
    /// A home cannot be asked.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The index cannot be read or written.
    #[error(transparent)]
    Chunk(#[from] cairn_proto::ChunkError),
}

impl Repair {
    /// Drops what all homes confirm.
    ///
    /// # Errors
    /// See [`LeaveError`]; what went before stays gone.
    pub async fn leave(&self, leave: &Leave) -> Result<Left, LeaveError> {
        let own = leave.homes.iter().any(|home| home.id == self.node_id);
        if own || leave.homes.is_empty() {
            return Err(LeaveError::Home);
        }
        self.check_map(leave)?;
        let homes = try_join_all(leave.homes.iter().map(|home| self.peers.connect(home))).await?;
        let (mut after, before) = ids_of(leave.group, leave.pg_bits);
        let mut left = Left::default();
        loop {
            let page = self.store.list(after, before, PAGE as usize).await?;
            let Some(last) = page.last() else { return Ok(left) };
            let (from, to) = (after, last.id);
            after = Some(to);
            let confirmed = confirmed_by_all(&homes, &page, from, to).await?;
            self.check_map(leave)?;
            failpoints::hit(DROP_BEFORE_REMOVE);
            let store = Arc::clone(&self.store);
            let gone = self.store.blocking(move || store.drop_copies(&confirmed)).await?;
            failpoints::hit(DROP_AFTER_REMOVE);
            self.activity.dropped.add_many(gone.chunks, gone.bytes);
            left.chunks += gone.chunks;
            left.bytes += gone.bytes;
            left.kept += (page.len() as u64).saturating_sub(gone.chunks);
        }
    }

    fn check_map(&self, leave: &Leave) -> Result<(), LeaveError> {
        let known = self.map.borrow().as_ref().map_or(0, |map| map.epoch);
        if known > leave.map_epoch {
            return Err(LeaveError::OldMap { known, asked: leave.map_epoch });
        }
        Ok(())
    }
}

/// Those of `page` that every home confirms, each with the stamp that it has here.
async fn confirmed_by_all(
    homes: &[Peer],
    page: &[Listed],
    after: Option<ChunkId>,
    last: ChunkId,
) -> Result<Vec<(ChunkId, u64)>, PeerError> {
    let asked = homes.iter().map(|home| confirmed_by(home, page, after, last));
    let answers = try_join_all(asked).await?;
    let by_all = |n: &usize| answers.iter().all(|answer| answer[*n]);
    Ok((0..page.len()).filter(by_all).map(|n| (page[n].id, page[n].epoch)).collect())
}

async fn confirmed_by(
    home: &Peer,
    page: &[Listed],
    mut after: Option<ChunkId>,
    last: ChunkId,
) -> Result<Vec<bool>, PeerError> {
    let places: HashMap<ChunkId, usize> = page.iter().zip(0..).map(|(c, n)| (c.id, n)).collect();
    let mut confirmed = vec![false; page.len()];
    let mut to_touch = Vec::new();
    loop {
        let (held, end) = home.list(after, None, PAGE).await?;
        for held in &held {
            let Some(&n) = places.get(&held.id).filter(|n| page[**n].len == held.len) else {
                continue;
            };
            confirmed[n] = !held.uncounted && held.epoch >= page[n].epoch;
            if !confirmed[n] {
                to_touch.push(n);
            }
        }
        after = held.last().map(|held| held.id);
        if end || after.is_none_or(|after| after >= last) {
            break;
        }
    }
    if !to_touch.is_empty() {
        let ids: Vec<_> = to_touch.iter().map(|n| page[*n].id).collect();
        let (have, epoch) = home.touch(&ids).await?;
        for (n, have) in to_touch.into_iter().zip(have) {
            confirmed[n] = have && epoch >= page[n].epoch;
        }
    }
    Ok(confirmed)
}
