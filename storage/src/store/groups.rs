//! [`Groups`]: what a node holds of each placement group: number, bytes and XOR of the ids.
//!
//! Two nodes with the same digest of a group hold the same chunks of it. A chunk counts once, on however
//! many disks it lies, and only while some disk that works has a copy that is not known to be damaged.
//!
//! In memory only. At the start, and after a disk has failed or come back, nothing is known: [`Groups::count`] reads
//! the indexes, a range at a time. From then on every change of an index is told here ([`Counts`]).
//! Groups are kept by [`BITS`] bits, the most there can be, and folded into the size that is asked for.
//!
//! Lock order: an index's `writing`, then `buckets`. `buckets` is held over an index's commit and over
//! each range that is counted, so nothing is counted twice or missed.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use cairn_proto::{ChunkError, ChunkId, Group, limits::PG_BITS_MAX};

const BITS: u32 = PG_BITS_MAX;
const BUCKETS: u32 = 1 << BITS;
/// About so many chunks are counted while changes wait.
const CHUNKS_AT_ONCE: u64 = 4096;

/// A disk, as counting needs it. Nothing here may take a lock of [`Groups`].
pub trait Holder: Send + Sync {
    /// Whether a copy of the chunk lies here that counts.
    fn counts(&self, id: &ChunkId) -> bool;
    /// Number of chunks, roughly.
    fn chunks(&self) -> u64;
    /// Tells of every copy that counts, with its length: ids from the first on, below the second.
    ///
    /// # Errors
    /// `DiskFailed` when the index cannot be read.
    fn each(
        &self,
        from: Option<ChunkId>,
        before: Option<ChunkId>,
        tell: &mut dyn FnMut(ChunkId, u32),
    ) -> Result<(), ChunkError>;
}

/// Number, bytes and XOR of the ids of a set of chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many.
    pub chunks: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// XOR of their ids.
    pub xor: [u8; 32],
}

impl Digest {
    fn toggle(&mut self, id: &ChunkId) {
        for (x, b) in self.xor.iter_mut().zip(id.as_bytes()) {
            *x ^= b;
        }
    }

    fn add(&mut self, id: &ChunkId, len: u32) {
        self.toggle(id);
        self.chunks += 1;
        self.bytes += u64::from(len);
    }

    fn remove(&mut self, id: &ChunkId, len: u32) {
        self.toggle(id);
        self.chunks = self.chunks.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(len));
    }

    fn merge(&mut self, other: &Self) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        for (x, b) in self.xor.iter_mut().zip(other.xor) {
            *x ^= b;
        }
    }
}

/// See the module.
pub struct Groups {
    /// `None`: to be counted.
    buckets: Mutex<Vec<Option<Digest>>>,
    version: AtomicU64,
    holders: OnceLock<Vec<Weak<dyn Holder>>>,
}

impl Default for Groups {
    fn default() -> Self {
        // Begins at another number after each start: nobody takes it for one of an earlier run.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let version = u64::try_from(now.as_micros()).unwrap_or(1);
        Self {
            buckets: Mutex::new(vec![None; BUCKETS as usize]),
            version: AtomicU64::new(version),
            holders: OnceLock::new(),
        }
    }
}

impl Groups {
    /// Says which disks there are, once, in the order of their numbers.
    pub fn watch(&self, holders: Vec<Weak<dyn Holder>>) {
        // A second list would be of the same disks.
        let _ = self.holders.set(holders);
    }

    /// Changes with every change of any group.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// To be held by disk `volume` over the commit that changes which of its copies count.
    pub fn change(&self, volume: usize) -> Counts<'_> {
        Counts { groups: self, volume, buckets: self.lock() }
    }

    /// A disk's copies count no more: everything is counted again.
    pub fn forget(&self) {
        self.forget_while(|| ());
    }

    /// As [`Groups::forget`], while `change` makes a disk's copies be looked up elsewhere, or not at all.
    pub fn forget_while(&self, change: impl FnOnce()) {
        let mut buckets = self.lock();
        change();
        buckets.fill(None);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts what is not known. Blocks for as long as reading the indexes takes.
    ///
    /// # Errors
    /// `DiskFailed` when an index cannot be read.
    pub fn count(&self) -> Result<(), ChunkError> {
        while self.count_some()? {}
        Ok(())
    }

    /// The digest of every group that has chunks, and the version that they are of.
    ///
    /// # Errors
    /// As for [`Groups::count`], which this begins with.
    pub fn digests(&self, pg_bits: u32) -> Result<(Vec<(Group, Digest)>, u64), ChunkError> {
        loop {
            self.count()?;
            let buckets = self.lock();
            // A disk may have failed since.
            let Some(known) = buckets.iter().copied().collect::<Option<Vec<Digest>>>() else {
                continue;
            };
            let version = self.version();
            drop(buckets);
            let mut groups: BTreeMap<u32, Digest> = BTreeMap::new();
            for (bucket, digest) in (0u32..).zip(&known).filter(|(_, d)| d.chunks > 0) {
                groups.entry(bucket >> (BITS - pg_bits.min(BITS))).or_default().merge(digest);
            }
            return Ok((groups.into_iter().map(|(g, d)| (Group(g), d)).collect(), version));
        }
    }

    /// Counts one range; whether there was one.
    fn count_some(&self) -> Result<bool, ChunkError> {
        let holders: Vec<_> = self.holders().iter().filter_map(Weak::upgrade).collect();
        let chunks: u64 = holders.iter().map(|h| h.chunks()).sum();
        let wide = u64::from(BUCKETS) * CHUNKS_AT_ONCE / chunks.max(1);
        let wide = u32::try_from(wide).unwrap_or(BUCKETS).clamp(1, BUCKETS);
        let mut buckets = self.lock();
        let Some(first) = buckets.iter().position(Option::is_none) else { return Ok(false) };
        let from = u32::try_from(first).expect("there are 2^16 buckets");
        let range = from..(from + wide).min(BUCKETS);
        let mut found: BTreeMap<ChunkId, u32> = BTreeMap::new();
        for holder in &holders {
            holder.each(first_id(range.start), first_id(range.end), &mut |id, len| {
                found.insert(id, len);
            })?;
        }
        buckets[span(&range)].fill(Some(Digest::default()));
        for (id, len) in &found {
            if let Some(digest) = &mut buckets[bucket_of(id)] {
                digest.add(id, *len);
            }
        }
        Ok(true)
    }

    fn holders(&self) -> &[Weak<dyn Holder>] {
        self.holders.get().map_or(&[], Vec::as_slice)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Digest>>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of one disk's index on its way; others wait. See [`Groups::change`].
pub struct Counts<'a> {
    groups: &'a Groups,
    volume: usize,
    buckets: MutexGuard<'a, Vec<Option<Digest>>>,
}

impl Counts<'_> {
    /// A copy on this disk counts from now on, and did not before.
    pub fn add(&mut self, id: &ChunkId, len: u32) {
        self.apply(id, |digest| digest.add(id, len));
    }

    /// A copy on this disk counts no more, and did before.
    pub fn remove(&mut self, id: &ChunkId, len: u32) {
        self.apply(id, |digest| digest.remove(id, len));
    }

    fn apply(&mut self, id: &ChunkId, change: impl FnOnce(&mut Digest)) {
        let elsewhere = self.elsewhere(id);
        if !elsewhere && let Some(digest) = &mut self.buckets[bucket_of(id)] {
            change(digest);
        }
        self.groups.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether another disk has a copy that counts: then this one makes no difference.
    fn elsewhere(&self, id: &ChunkId) -> bool {
        let others = (0..).zip(self.groups.holders()).filter(|(n, _)| *n != self.volume);
        others.filter_map(|(_, other)| other.upgrade()).any(|other| other.counts(id))
    }
}

/// The ids of a group: greater than the first, less than the second.
pub fn ids_of(group: Group, pg_bits: u32) -> (Option<ChunkId>, Option<ChunkId>) {
    let shift = BITS - pg_bits.min(BITS);
    let bucket = |group: u64| u32::try_from(group << shift).unwrap_or(BUCKETS);
    let after = bucket(u64::from(group.0)).checked_sub(1).and_then(last_id);
    (after, first_id(bucket(u64::from(group.0) + 1)))
}

/// The least id of a bucket; `None` for the one after the last.
fn first_id(bucket: u32) -> Option<ChunkId> {
    id_of(bucket, 0)
}

/// The greatest id of a bucket.
fn last_id(bucket: u32) -> Option<ChunkId> {
    id_of(bucket, 0xff)
}

fn id_of(bucket: u32, rest: u8) -> Option<ChunkId> {
    let head = u16::try_from(bucket).ok()?;
    let mut bytes = [rest; 32];
    bytes[..2].copy_from_slice(&head.to_be_bytes());
    ChunkId::try_from(&bytes[..]).ok()
}

fn bucket_of(id: &ChunkId) -> usize {
    Group::of(id, BITS).0 as usize
}

fn span(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        disk::fault::{Call, Random},
        segment::{SegmentId, format::HEADER_LEN},
        store::{
            Store,
            tests::{Rig, chunk, put_all},
        },
    };

    /// What the digests have to be: of the chunks that "have you?" says yes to.
    async fn expected(rig: &Rig, pg_bits: u32) -> Vec<(Group, Digest)> {
        let ids: Vec<_> = (0..400).map(|seed| chunk(seed).0).collect();
        let have = rig.store().have(ids.clone(), false).await;
        let mut groups: BTreeMap<Group, Digest> = BTreeMap::new();
        let mut seen = HashSet::new();
        for (id, len) in ids.iter().zip(have) {
            if let Some(len) = len.filter(|_| seen.insert(id)) {
                groups.entry(Group::of(id, pg_bits)).or_default().add(id, len);
            }
        }
        groups.into_iter().collect()
    }

    async fn assert_right(rig: &Rig) -> u64 {
        for pg_bits in [0, 3, 10, 16] {
            let (digests, _) = rig.store().groups().digests(pg_bits).unwrap();
            assert_eq!(digests, expected(rig, pg_bits).await, "{pg_bits} bits");
        }
        rig.store().groups().version()
    }

    fn entry_of(store: &Store, seed: u64) -> (usize, crate::store::index::Entry) {
        let (id, _) = chunk(seed);
        let found = store.volumes.iter().position(|v| v.good_entry(&id).is_some()).unwrap();
        (found, store.volumes[found].good_entry(&id).unwrap())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn digests_follow_every_change_on_all_disks() {
        let mut rig = Rig::new(2);
        put_all(rig.store(), 0..200).await;
        let counted = assert_right(&rig).await;
        put_all(rig.store(), 100..300).await;
        let put = assert_right(&rig).await;
        assert!(put > counted);
        put_all(rig.store(), 100..300).await;
        assert_eq!(assert_right(&rig).await, put, "nothing changed");
        // Removed, and not removed because it is no longer as it was.
        for seed in 200..220 {
            let (disk, entry) = entry_of(rig.store(), seed);
            let core = rig.store().volumes[disk].core().unwrap();
            let index = &core.index;
            let other = crate::store::index::Entry { epoch: entry.epoch + 1, ..entry };
            assert_eq!(index.remove(&[(chunk(seed).0, other)]).unwrap().chunks, 0);
            assert_eq!(index.remove(&[(chunk(seed).0, entry)]).unwrap().chunks, 1);
        }
        assert_right(&rig).await;
        // Damaged, found, and healed.
        rig.disks[0].flip_bit(&SegmentId(1).file_name(), HEADER_LEN as usize + 64);
        rig.store().verify(|_| true).unwrap();
        assert_eq!(rig.store().damaged(), 1);
        let damaged = assert_right(&rig).await;
        rig.reopen().await;
        assert_eq!(rig.store().damaged(), 1, "a restart does not forget");
        assert!(assert_right(&rig).await > damaged);
        put_all(rig.store(), 0..200).await;
        assert_eq!(rig.store().damaged(), 0);
        assert_right(&rig).await;
        rig.reopen().await;
        assert_eq!(rig.store().damaged(), 0);
        assert_right(&rig).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_chunk_on_two_disks_counts_once_and_a_failed_disk_not_at_all() {
        let mut rig = Rig::new(2);
        put_all(rig.store(), 0..100).await;
        let before = rig.store().groups().digests(4).unwrap().0;
        rig.disks[0].fail_nth(Call::Sync, 1, libc::EIO);
        put_all(rig.store(), 100..110).await;
        assert!(rig.store().status()[0].failed);
        assert_right(&rig).await;
        // What the failed disk had goes to the other; then both work again.
        put_all(rig.store(), 0..110).await;
        assert_right(&rig).await;
        rig.disks[0].heal();
        rig.reopen().await;
        assert!(rig.store().copies() > 110, "there are chunks on both disks");
        assert_right(&rig).await;
        let mut random = Random::new(1);
        for _ in 0..40 {
            let seed = random.below(110);
            let (id, _) = chunk(seed);
            for volume in &rig.store().volumes {
                if let Some(entry) = volume.good_entry(&id).filter(|_| random.below(2) == 0) {
                    volume.core().unwrap().index.remove(&[(id, entry)]).unwrap();
                }
            }
            assert_eq!(rig.store().groups().digests(16).unwrap().0, expected(&rig, 16).await);
        }
        put_all(rig.store(), 0..100).await;
        for seed in 100..110 {
            let (id, _) = chunk(seed);
            for volume in &rig.store().volumes {
                if let Some(entry) = volume.good_entry(&id) {
                    volume.core().unwrap().index.remove(&[(id, entry)]).unwrap();
                }
            }
        }
        assert_eq!(rig.store().groups().digests(4).unwrap().0, before);
    }

    #[test]
    fn the_ids_of_a_group_are_those_that_belong_to_it() {
        for n in 0..200u32 {
            let id = ChunkId::of(&n.to_le_bytes());
            for pg_bits in [0, 1, 4, 10, 16] {
                let group = Group::of(&id, pg_bits);
                let (after, before) = ids_of(group, pg_bits);
                assert!(after.is_none_or(|a| a < id), "{id} {pg_bits}");
                assert_eq!(after.map(|a| Group::of(&a, pg_bits).0 + 1).unwrap_or(0), group.0);
                assert!(before.is_none_or(|b| id < b), "{id} {pg_bits}");
                assert_eq!(before.is_none(), group.0 + 1 == Group::count(pg_bits));
            }
        }
    }

    #[test]
    fn adding_and_removing_leaves_nothing() {
        let mut digest = Digest::default();
        let ids: Vec<_> = (0..50u32).map(|n| ChunkId::of(&n.to_le_bytes())).collect();
        ids.iter().for_each(|id| digest.add(id, 7));
        assert_eq!((digest.chunks, digest.bytes), (50, 350));
        ids.iter().rev().for_each(|id| digest.remove(id, 7));
        assert_eq!(digest, Digest::default());
    }
}
