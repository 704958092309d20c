//! [`Index`]: which chunk lies in which slot of the cache's files, and in which order they were used.
//!
//! Pure, in memory: 24 bytes for each slot and 4 to 8 for each place in the table of ids, of which there
//! is one for each chunk of full size that fits. An id counts here by eight of its bytes: what is read is
//! verified against all of them, so that two ids that agree in eight cost a fetch and nothing else.
//!
//! What slots take on the disk is counted here, too. A slot that was given away for writing, or whose
//! chunk was found damaged, counts until it is released.

use cairn_proto::ChunkId;

/// What a slot takes beside its chunk: its record, and its share of the file system's own lists.
pub(super) const OVERHEAD: u64 = 64;
/// What a file system gives out at a time.
const BLOCK: u64 = 4096;
/// The file of chunks is never longer, holes included: ext4 takes 16 TiB.
const LONGEST: u64 = 8 << 40;

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes on the disk.
    pub(super) limit: u64,
    /// Bytes from one slot to the next: the largest chunk.
    pub(super) slot_size: u32,
    /// Whether what a slot does not use takes no room.
    pub(super) sparse: bool,
}

impl Bounds {
    /// Bytes on the disk that a chunk of `len` bytes takes.
    pub(super) fn cost(&self, len: u32) -> u64 {
        let taken = if self.sparse { len } else { self.slot_size };
        u64::from(taken).next_multiple_of(BLOCK)
    }

    /// Slots that there may be. Small chunks may have four times as many as large ones.
    pub(super) fn most_slots(&self) -> u32 {
        let least = (u64::from(self.slot_size) / 4).max(BLOCK) + OVERHEAD;
        let most = (self.limit / least).min(LONGEST / u64::from(self.slot_size));
        u32::try_from(most).unwrap_or(u32::MAX).min(u32::MAX - 1)
    }
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u32,
    pub(super) len: u32,
    tag: u64,
}

/// A slot to write to, and what has to be done before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// The slot, and the length of what it holds; none when there is no room to be had.
    pub(super) slot: Option<(u32, u32)>,
    /// Slots that have to be emptied, and then [given back](Index::give_back).
    pub(super) evicted: Vec<u32>,
}

/// A chunk that an earlier mount has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) stamp: u64,
    pub(super) tag: u64,
    pub(super) slot: u32,
    pub(super) len: u32,
}

/// Slots are linked by their number plus one; 0 is no slot.
type Link = u32;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u64,
    newer: Link,
    /// The next one of the free ones, in a slot that is free.
    older: Link,
    /// The next one in the same place of the table.
    chain: Link,
    /// 0: holds nothing that can be found.
    len: u32,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Index {
    bounds: Bounds,
    most: usize,
    slots: Vec<Slot>,
    table: Vec<Link>,
    newest: Link,
    oldest: Link,
    free: Link,
    used: u64,
}

/// What stands for an id.
pub(super) fn tag(id: &ChunkId) -> u64 {
    // Not the leading bytes: those choose the placement group, and groups are not evenly used.
    id.as_bytes().last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail))
}

fn link(slot: u32) -> Link {
    slot + 1
}

impl Index {
    pub(super) fn new(bounds: Bounds) -> Self {
        let most = bounds.most_slots() as usize;
        let usual = bounds.limit / u64::from(bounds.slot_size) + 1;
        let places = usize::try_from(usual).unwrap_or(most).min(most).max(1).next_power_of_two();
        Self {
            bounds,
            most,
            slots: Vec::new(),
            // Zeroed memory costs nothing before it is used.
            table: vec![0; places],
            newest: 0,
            oldest: 0,
            free: 0,
            used: 0,
        }
    }

    /// The index of `slots` slots with what `left` says of them, as far as there is room; the newest are
    /// preferred. Also the slots that have to be emptied, which are free already.
    pub(super) fn restore(bounds: Bounds, slots: u32, mut left: Vec<Left>) -> (Self, Vec<u32>) {
        let mut index = Self::new(bounds);
        index.slots = vec![Slot::default(); slots as usize];
        index.used = OVERHEAD * u64::from(slots);
        left.sort_unstable_by_key(|left| left.stamp);
        let mut total = index.used;
        let fits = |left: &&Left| {
            total += bounds.cost(left.len);
            total <= bounds.limit
        };
        let kept = left.iter().rev().take_while(fits).count();
        let (dropped, kept) = left.split_at(left.len() - kept);
        let mut empty: Vec<u32> = dropped.iter().map(|left| left.slot).collect();
        for left in kept {
            if index.slot_of(left.tag).is_some() {
                empty.push(left.slot);
            } else {
                index.used += bounds.cost(left.len);
                index.enter(left.slot, left.tag, left.len);
            }
        }
        // The lowest number first, as if they had been given out in order.
        for slot in (0..slots).rev() {
            if index.slots[slot as usize].len == 0 {
                index.give_back(slot);
            }
        }
        (index, empty)
    }

    /// Where `id` lies; it counts as used now.
    pub(super) fn find(&mut self, id: &ChunkId) -> Option<Place> {
        let tag = tag(id);
        let slot = self.slot_of(tag)?;
        self.unlink(slot);
        self.link_newest(slot);
        Some(Place { slot, len: self.slots[slot as usize].len, tag })
    }

    /// A slot for `len` bytes, at the expense of what was not used for longest. It counts as taken.
    pub(super) fn room(&mut self, len: u32) -> Room {
        let need = self.bounds.cost(len);
        let mut room = Room::default();
        let fixed = OVERHEAD * self.slots.len().max(1) as u64;
        if len > self.bounds.slot_size || need + fixed > self.bounds.limit {
            return room;
        }
        let mut before = 0;
        loop {
            let another = room.evicted.is_empty() && self.free == 0;
            let more = if another { OVERHEAD } else { 0 };
            let fits = self.used + need + more <= self.bounds.limit;
            if fits && (!another || self.slots.len() < self.most) {
                break;
            }
            // All the rest is on its way: there will be room soon.
            let Some((slot, len)) = self.evict() else { return room };
            room.evicted.push(slot);
            before = len;
        }
        self.used += need;
        let slot = match room.evicted.pop() {
            Some(slot) => (slot, before),
            None => (self.free_slot(), 0),
        };
        room.slot = Some(slot);
        room
    }

    /// `slot`, which [`Index::room`] gave for as many bytes, holds `id` now.
    pub(super) fn fill(&mut self, slot: u32, id: &ChunkId, len: u32) {
        self.enter(slot, tag(id), len);
    }

    /// Nobody shall find what is at `place` again; false when it has gone already. The slot has to be
    /// emptied, then [released](Index::release).
    pub(super) fn remove(&mut self, place: &Place) -> bool {
        let same = self
            .slots
            .get(place.slot as usize)
            .is_some_and(|slot| slot.len == place.len && slot.tag == place.tag && slot.len != 0);
        if same {
            self.leave(place.slot);
        }
        same
    }

    /// `slot`, which has counted for `len` bytes, is empty.
    pub(super) fn release(&mut self, slot: u32, len: u32) {
        self.used = self.used.saturating_sub(self.bounds.cost(len));
        self.give_back(slot);
    }

    /// `slot` was evicted and is empty.
    pub(super) fn give_back(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot { older: self.free, ..Slot::default() };
        self.free = link(slot);
    }

    /// The disk takes no more than there is.
    pub(super) fn shrink(&mut self) {
        self.bounds.limit = self.bounds.limit.min(self.used);
    }

    /// Bytes on the disk that are taken, and that may be.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.used, self.bounds.limit)
    }

    /// The length of what can be found in each slot; 0: nothing.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().map(|slot| slot.len)
    }

    /// For each slot its place in the order of use, from 1 for what was not used for longest; 0: nothing
    /// to be found in it.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.slots.len()];
        let (mut at, mut rank) = (self.oldest, 0);
        while at != 0 {
            rank += 1;
            ranks[at as usize - 1] = rank;
            at = self.slots[at as usize - 1].newer;
        }
        ranks
    }

    fn place_of(&self, tag: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of it will do")]
        let bits = tag as usize;
        bits & (self.table.len() - 1)
    }

    fn slot_of(&self, tag: u64) -> Option<u32> {
        let mut at = self.table[self.place_of(tag)];
        while at != 0 {
            let slot = &self.slots[at as usize - 1];
            if slot.tag == tag {
                return Some(at - 1);
            }
            at = slot.chain;
        }
        None
    }

    fn free_slot(&mut self) -> u32 {
        if self.free == 0 {
            self.slots.push(Slot::default());
            self.used += OVERHEAD;
            return u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 by their bound");
        }
        let slot = self.free - 1;
        self.free = self.slots[slot as usize].older;
        slot
    }

    fn evict(&mut self) -> Option<(u32, u32)> {
        let slot = self.oldest.checked_sub(1)?;
        let len = self.slots[slot as usize].len;
        self.leave(slot);
        self.used = self.used.saturating_sub(self.bounds.cost(len));
        Some((slot, len))
    }

    fn enter(&mut self, slot: u32, tag: u64, len: u32) {
        let place = self.place_of(tag);
        self.slots[slot as usize] = Slot { tag, len, chain: self.table[place], newer: 0, older: 0 };
        self.table[place] = link(slot);
        self.link_newest(slot);
    }

    fn leave(&mut self, slot: u32) {
        self.unlink(slot);
        let Slot { tag, chain, .. } = self.slots[slot as usize];
        let place = self.place_of(tag);
        let mut at = self.table[place];
        if at == link(slot) {
            self.table[place] = chain;
        } else {
            while at != 0 && self.slots[at as usize - 1].chain != link(slot) {
                at = self.slots[at as usize - 1].chain;
            }
            if at != 0 {
                self.slots[at as usize - 1].chain = chain;
            }
        }
        self.slots[slot as usize] = Slot::default();
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { newer, older, .. } = self.slots[slot as usize];
        match newer {
            0 => self.newest = older,
            newer => self.slots[newer as usize - 1].older = older,
        }
        match older {
            0 => self.oldest = newer,
            older => self.slots[older as usize - 1].newer = newer,
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let newest = self.newest;
        self.slots[slot as usize].newer = 0;
        self.slots[slot as usize].older = newest;
        match newest {
            0 => self.oldest = link(slot),
            newest => self.slots[newest as usize - 1].newer = link(slot),
        }
        self.newest = link(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const SLOT: u32 = 64 << 10;

    fn bounds(chunks: u64) -> Bounds {
        let limit = chunks * (u64::from(SLOT) + OVERHEAD);
        Bounds { limit, slot_size: SLOT, sparse: true }
    }

    fn id(n: u32) -> ChunkId {
        ChunkId::of(&n.to_le_bytes())
    }

    /// Stores `n`; what had to go.
    fn store(index: &mut Index, n: u32, len: u32) -> Option<u32> {
        let room = index.room(len);
        for slot in room.evicted {
            index.give_back(slot);
        }
        let (slot, _) = room.slot?;
        index.fill(slot, &id(n), len);
        Some(slot)
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut index = Index::new(bounds(4));
        for n in 0..4 {
            store(&mut index, n, SLOT).unwrap();
        }
        assert!(index.find(&id(0)).is_some());
        store(&mut index, 4, SLOT).unwrap();
        assert!(index.find(&id(1)).is_none(), "the oldest");
        assert!(index.find(&id(0)).is_some(), "used a moment ago");
        assert_eq!(index.size().0, index.size().1);
        assert_eq!(index.ranks(), [4, 3, 1, 2], "slots of 0, 4, 2, 3");
    }

    #[test]
    fn small_chunks_take_what_they_are() {
        let mut index = Index::new(bounds(4));
        for n in 0..15 {
            store(&mut index, n, 16_000).unwrap();
        }
        assert_eq!(index.size().0, 15 * (16_384 + OVERHEAD));
        assert!((0..15).all(|n| index.find(&id(n)).is_some()), "almost four times as many");
        let room = index.room(SLOT);
        assert_eq!((room.slot, room.evicted), (Some((3, 16_000)), vec![0, 1, 2]));
    }

    #[test]
    fn a_damaged_one_goes_once_and_its_slot_comes_back() {
        let mut index = Index::new(bounds(2));
        store(&mut index, 0, SLOT).unwrap();
        let place = index.find(&id(0)).unwrap();
        assert!(index.remove(&place) && !index.remove(&place));
        assert!(index.find(&id(0)).is_none());
        index.release(place.slot, place.len);
        assert_eq!(index.size().0, OVERHEAD);
        assert_eq!(store(&mut index, 1, SLOT), Some(place.slot));
        assert!(!index.remove(&place), "another chunk is there now");
    }

    #[test]
    fn nothing_fits_where_there_is_no_room() {
        let mut index = Index::new(Bounds { limit: 100, slot_size: SLOT, sparse: true });
        assert_eq!(index.room(1), Room::default());
        let mut index = Index::new(bounds(2));
        store(&mut index, 0, SLOT).unwrap();
        index.shrink();
        assert!(store(&mut index, 1, SLOT).is_some(), "in place of the other");
        assert!(index.find(&id(0)).is_none());
    }

    #[test]
    fn a_smaller_limit_keeps_the_newest_and_of_two_copies_one() {
        let left = |stamp, slot| Left { stamp, tag: tag(&id(slot)), slot, len: SLOT };
        let all = vec![left(5, 0), left(9, 1), left(1, 2), left(7, 3)];
        let (mut index, empty) = Index::restore(bounds(3), 4, all.clone());
        assert_eq!(empty, [2, 0], "the room for records is taken, so that two fit");
        assert!(index.find(&id(1)).is_some() && index.find(&id(3)).is_some());
        let again = [all, vec![Left { slot: 4, ..left(10, 1) }]].concat();
        let (index, empty) = Index::restore(bounds(8), 5, again);
        assert_eq!(empty, [4]);
        assert_eq!(index.ranks(), [2, 4, 1, 3, 0]);
        assert_eq!(index.free, 5);
    }

    #[test]
    fn memory_is_a_few_bytes_for_each_chunk() {
        let index = Index::new(bounds(1 << 20));
        let per_chunk = size_of::<Slot>() + size_of::<Link>() * index.table.len() / (1 << 20);
        assert!(per_chunk <= 32, "{per_chunk}");
    }

    #[test]
    fn odd_bounds_do_no_harm() {
        for slot_size in [4096, SLOT, 16 << 20] {
            let bounds = Bounds { limit: u64::MAX, slot_size, sparse: true };
            assert!(u64::from(bounds.most_slots()) * u64::from(slot_size) <= LONGEST);
        }
        let mut index = Index::new(Bounds { limit: 0, slot_size: SLOT, sparse: false });
        assert_eq!(index.room(1), Room::default());
    }

    proptest! {
        /// Against a list that is searched from one end to the other.
        #[test]
        fn it_is_a_list_in_order_of_use(
            steps in prop::collection::vec((0..3_u8, 0..24_u32, 1..=SLOT), 1..300)
        ) {
            let bounds = bounds(5);
            let mut index = Index::new(bounds);
            let mut model: VecDeque<(u32, u32)> = VecDeque::new();
            for (step, n, len) in steps {
                let at = model.iter().position(|(m, _)| *m == n);
                match step {
                    0 if at.is_none() => {
                        store(&mut index, n, len).unwrap();
                        model.push_back((n, len));
                        while model.len() > 1 && index.slot_of(tag(&id(model[0].0))).is_none() {
                            model.pop_front();
                        }
                    }
                    1 => {
                        let place = index.find(&id(n));
                        prop_assert_eq!(place.map(|p| p.len), at.map(|at| model[at].1));
                        if let Some(place) = place {
                            prop_assert!(index.remove(&place));
                            index.release(place.slot, place.len);
                            model.retain(|(m, _)| *m != n);
                        }
                    }
                    _ => {
                        prop_assert_eq!(index.find(&id(n)).is_some(), at.is_some());
                        if let Some(entry) = at.and_then(|at| model.remove(at)) {
                            model.push_back(entry);
                        }
                    }
                }
                let used: u64 = model.iter().map(|(_, len)| bounds.cost(*len)).sum();
                prop_assert_eq!(index.size().0, used + OVERHEAD * index.slots.len() as u64);
                prop_assert!(index.size().0 <= bounds.limit);
                let ranks = index.ranks();
                for (rank, (m, _)) in (1..).zip(&model) {
                    let slot = index.slot_of(tag(&id(*m)));
                    prop_assert_eq!(slot.map(|slot| ranks[slot as usize]), Some(rank));
                }
            }
        }
    }
}
