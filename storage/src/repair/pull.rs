//! Pull: lists what the sources hold of each group and fetches what is missing here.
//!
//! A fetched chunk is checked and stored as any other, with the stamp that it has at the source: a copy
//! is no use, so it must not look like one to garbage collection. A source that fails is left out; what
//! only it had stays missing and is named. Bounds: a page of each source for each of [`GROUPS`] groups, and
//! room for batches that all pulls share, apart from that of puts, so that a slow source holds up no client.

use bytes::Bytes;
use cairn_proto::{ChunkError, Group, Node, limits::BATCH_BYTES};
use futures_util::{StreamExt, future::join_all, stream};

use super::{
    Repair,
    survey::{Seen, Source, Survey},
    tally::Tally,
};
use crate::{
    failpoints::{self, PULL_AFTER_FETCH},
    segment::writer::Record,
    store::groups::ids_of,
};

/// Groups of one pull that are worked on at once: most have a batch or two each.
const GROUPS: usize = 4;
/// Batches of one group that are fetched at once.
const UNDER_WAY: usize = 2;

/// What is to be made whole, and from where.
#[derive(Clone, Debug)]
pub struct Pull {
    /// Bits of a group.
    pub pg_bits: u32,
    /// Which groups.
    pub groups: Vec<Group>,
    /// Nodes that may have what is missing.
    pub sources: Vec<Node>,
    /// Of all pulls together; 0: no bound.
    pub bytes_per_second: u64,
}

/// Why a pull ended early: nothing more can be stored here.
#[derive(Clone, Copy, Debug)]
struct Stuck(ChunkError);

impl Repair {
    /// Pulls all groups; told in `tally` as it goes. May be dropped at any time.
    pub async fn pull(&self, pull: Pull, tally: &Tally) {
        self.rate.set(pull.bytes_per_second);
        let connect = pull.sources.iter().map(|node| self.peers.connect(node));
        let mut sources = Vec::with_capacity(pull.sources.len());
        for connected in join_all(connect).await {
            match connected {
                Ok(peer) => sources.push(Source::new(peer)),
                Err(e) => tally.failed(e.to_string()),
            }
        }
        let sources = &sources;
        let groups = pull.groups.into_iter().map(|group| async move {
            let result = self.pull_group(group, pull.pg_bits, sources, tally).await;
            tally.group_done(group).await;
            result
        });
        let mut results = stream::iter(groups).buffer_unordered(GROUPS);
        while let Some(result) = results.next().await {
            if let Err(Stuck(why)) = result {
                tally.failed(format!("this node can store nothing more: {why}"));
                return;
            }
        }
    }

    async fn pull_group(
        &self,
        group: Group,
        pg_bits: u32,
        sources: &[Source],
        tally: &Tally,
    ) -> Result<(), Stuck> {
        tally.begin(group);
        let (after, before) = ids_of(group, pg_bits);
        let mut survey = Survey::new(after, before);
        let mut failed = Vec::new();
        while let Some(window) = survey.next(sources, &mut failed).await {
            failed.drain(..).for_each(|e| tally.failed(e.to_string()));
            let missing = self.store.missing(window, |seen| &seen.id).await;
            tally.missing(missing.len());
            let fetches = batches(missing)
                .into_iter()
                .map(|batch| async move { self.fetch(batch, sources, tally).await });
            let mut results = stream::iter(fetches).buffer_unordered(UNDER_WAY);
            while let Some(result) = results.next().await {
                result?;
            }
        }
        Ok(())
    }

    /// Fetches and stores one batch, each chunk from one holder after the other.
    async fn fetch(
        &self,
        mut batch: Vec<Seen>,
        sources: &[Source],
        tally: &Tally,
    ) -> Result<(), Stuck> {
        let bytes: u64 = batch.iter().map(|seen| u64::from(seen.len)).sum();
        self.rate.take(bytes).await;
        let _room = self.room(bytes).await;
        while let Some(source) = batch.iter().find_map(|seen| seen.holders.last().copied()) {
            let mut ask = Vec::new();
            batch.retain_mut(|seen| {
                let holds = seen.holders.iter().position(|h| *h == source);
                if let Some(at) = holds {
                    seen.holders.remove(at);
                    ask.push(seen.clone());
                }
                holds.is_none()
            });
            self.fetch_from(&sources[source], ask, &mut batch, tally).await?;
        }
        for lost in &batch {
            tally.failed(format!("chunk {}: no source gives it", lost.id));
        }
        Ok(())
    }

    /// Fetches and stores what `source` gives; the rest goes back into `left`.
    async fn fetch_from(
        &self,
        source: &Source,
        ask: Vec<Seen>,
        left: &mut Vec<Seen>,
        tally: &Tally,
    ) -> Result<(), Stuck> {
        let Some(peer) = source.peer() else {
            left.extend(ask);
            return Ok(());
        };
        let ids: Vec<_> = ask.iter().map(|seen| seen.id).collect();
        let results = match peer.get(&ids).await {
            Ok(results) => results,
            Err(e) => {
                if source.fail() {
                    tally.failed(e.to_string());
                }
                left.extend(ask);
                return Ok(());
            }
        };
        failpoints::hit(PULL_AFTER_FETCH);
        let (good, bad): (Vec<_>, Vec<_>) =
            ask.into_iter().zip(results).partition(|(_, result)| result.is_ok());
        left.extend(bad.into_iter().map(|(seen, _)| seen));
        let records = good.iter().filter_map(|(seen, data)| record(seen, data.as_ref().ok()?));
        let stored = self.store.put_copies(records.collect()).await;
        for ((seen, data), result) in good.into_iter().zip(stored) {
            let len = data.map_or(0, |data| data.len());
            match result {
                Ok(_) => {
                    self.activity.pulled.add(len);
                    tally.pulled(len);
                }
                Err(ChunkError::Mismatch | ChunkError::BadLength) => {
                    peer.report_damaged(&seen.id).await;
                    tally.failed(format!("chunk {} is damaged on {}", seen.id, peer.name()));
                    left.push(seen);
                }
                Err(why) => return Err(Stuck(why)),
            }
        }
        Ok(())
    }
}

fn record(seen: &Seen, data: &Bytes) -> Option<Record> {
    Some(Record { id: seen.id, data: data.clone(), epoch: seen.epoch })
}

/// Cut so that each fits into one answer; a large chunk travels alone. The holders of each batch's
/// chunks are turned by its number, so that all of them are asked.
fn batches(missing: Vec<Seen>) -> Vec<Vec<Seen>> {
    let mut batches: Vec<Vec<Seen>> = Vec::new();
    let mut bytes = usize::MAX;
    for mut seen in missing {
        let len = seen.len as usize;
        if bytes.saturating_add(len) > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        let turn = batches.len() % seen.holders.len().max(1);
        seen.holders.rotate_left(turn);
        if let Some(batch) = batches.last_mut() {
            batch.push(seen);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use cairn_proto::ChunkId;

    use super::*;

    #[test]
    fn batches_are_small_and_ask_everybody() {
        let seen = |n: u32| Seen {
            id: ChunkId::of(&n.to_le_bytes()),
            len: if n == 3 { 16 << 20 } else { 300 << 10 },
            epoch: 1,
            holders: vec![0, 1],
        };
        let batches = batches((0..20).map(seen).collect());
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 20);
        for batch in &batches {
            let bytes: usize = batch.iter().map(|s| s.len as usize).sum();
            assert!(batch.len() == 1 || bytes <= BATCH_BYTES);
        }
        let first: std::collections::HashSet<_> = batches.iter().map(|b| b[0].holders[1]).collect();
        assert_eq!(first.len(), 2);
    }
}
