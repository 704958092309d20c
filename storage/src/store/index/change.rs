//! Everything that changes entries: put, touched, moved, quarantined, erased, damaged, healed.
//!
//! A change is staged ([`Staged`]) and committed as one batch together with the totals; who counts the
//! groups is told in the same step.

use std::{
    collections::{BTreeMap, HashMap},
    slice,
    sync::MutexGuard,
};

use cairn_proto::ChunkId;
use fjall::OwnedWriteBatch;

use super::{
    Entry, Index, IndexError, Totals,
    row::{encode_entry, encode_totals},
};
use crate::segment::{Location, SegmentId};

/// What shall happen to an entry: see [`Index::revise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// It becomes this.
    Put(Entry),
    /// It goes.
    Erase,
}

/// Changes that are not committed yet.
struct Staged {
    batch: OwnedWriteBatch,
    totals: Totals,
    /// Copies that count from now on (true) or count no more.
    counted: Vec<(ChunkId, u32, bool)>,
    /// Damaged copies that are replaced or gone.
    healed: Vec<ChunkId>,
}

impl Index {
    fn stage(&self) -> Staged {
        let (counted, healed) = (Vec::new(), Vec::new());
        Staged { batch: self.db.batch(), totals: self.totals(), counted, healed }
    }

    /// Stages that `before` becomes `after`. `fresh`: another record, whose bytes are good.
    fn replace(
        &self,
        staged: &mut Staged,
        id: &ChunkId,
        before: Option<&Entry>,
        after: Option<&Entry>,
        fresh: bool,
    ) {
        let key = id.as_bytes().as_slice();
        let damaged = self.known_damaged.contains(id) && !staged.healed.contains(id);
        let heals = damaged && (fresh || after.is_none());
        if let Some(before) = before {
            staged.totals.take(before);
            if !damaged && !before.is_quarantined() {
                staged.counted.push((*id, before.at.len, false));
            }
        }
        match after {
            Some(after) => {
                staged.totals.add(after);
                if (heals || !damaged) && !after.is_quarantined() {
                    staged.counted.push((*id, after.at.len, true));
                }
                staged.batch.insert(&self.chunks, key, encode_entry(after));
            }
            None => staged.batch.remove(&self.chunks, key),
        }
        if heals {
            staged.batch.remove(&self.damaged, key);
            staged.healed.push(*id);
        }
    }

    fn commit(&self, writing: &MutexGuard<'_, ()>, mut staged: Staged) -> Result<(), IndexError> {
        if staged.batch.is_empty() {
            return Ok(());
        }
        if staged.totals != self.totals() {
            staged.batch.insert(&self.state, "totals", encode_totals(staged.totals).as_slice());
        }
        // A copy that counted before and counts again with the same length changes no group.
        let mut counted: HashMap<ChunkId, (Option<u32>, Option<u32>)> = HashMap::new();
        for (id, len, now) in staged.counted {
            let (before, after) = counted.entry(id).or_default();
            match now {
                true => *after = Some(len),
                // Of several changes of one chunk the first says what it was.
                false if after.is_some() => *after = None,
                false => *before = Some(len),
            }
        }
        counted.retain(|_, (before, after)| before != after);
        let mut groups = (!counted.is_empty()).then(|| self.counting.change());
        let batch = staged.batch;
        self.write(writing, || batch.commit())?;
        for (id, (before, after)) in counted {
            let Some(groups) = &mut groups else { break };
            before.iter().for_each(|len| groups.remove(&id, *len));
            after.iter().for_each(|len| groups.add(&id, *len));
        }
        for id in &staged.healed {
            self.known_damaged.forget(id);
        }
        self.store_totals(staged.totals);
        Ok(())
    }

    fn put_marks(&self, staged: &mut Staged, marks: &BTreeMap<SegmentId, u64>) {
        for (segment, offset) in marks {
            let (key, value) = (segment.0.to_be_bytes(), offset.to_le_bytes());
            staged.batch.insert(&self.marks, key.as_slice(), value.as_slice());
        }
    }

    /// Adds or replaces entries and moves marks forward, all or nothing. What was damaged is healed by
    /// its new entry.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn publish(
        &self,
        entries: &[(ChunkId, Entry)],
        marks: &BTreeMap<SegmentId, u64>,
    ) -> Result<(), IndexError> {
        let writing = self.lock();
        let mut staged = self.stage();
        let mut seen: HashMap<ChunkId, Entry> = HashMap::with_capacity(entries.len());
        for (id, entry) in entries {
            let before = match seen.insert(*id, *entry) {
                Some(before) => Some(before),
                None => self.get(id)?,
            };
            self.replace(&mut staged, id, before.as_ref(), Some(entry), true);
        }
        self.put_marks(&mut staged, marks);
        self.commit(&writing, staged)
    }

    /// Stamps a chunk with `epoch` unless it has that or a later one, and takes it out of quarantine:
    /// its entry as it is then. `None`: it is not here, and was not when this was decided.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn touch(&self, id: &ChunkId, epoch: u64) -> Result<Option<Entry>, IndexError> {
        // A sweep takes only what was touched before its floor, and a commit whose stamps lie before
        // the floor is refused: one that has this epoch needs no lock.
        match self.get(id)? {
            Some(entry) if entry.is_touched(epoch) => return Ok(Some(entry)),
            Some(_) => {}
            None => return Ok(None),
        }
        let mut touched = None;
        self.revise(slice::from_ref(id), |_, entry| {
            let after = Entry { epoch: entry.epoch.max(epoch), quarantined: 0, ..*entry };
            touched = Some(after);
            if after == *entry { Change::Keep } else { Change::Put(after) }
        })?;
        Ok(touched)
    }

    /// Looks at the entries of `ids` that are here, each once, and does with it what `decide` says: all
    /// of it or nothing. Nobody changes an entry in between.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn revise(
        &self,
        ids: &[ChunkId],
        mut decide: impl FnMut(&ChunkId, &Entry) -> Change,
    ) -> Result<(), IndexError> {
        let writing = self.lock();
        let mut staged = self.stage();
        for id in ids {
            let Some(entry) = self.get(id)? else { continue };
            match decide(id, &entry) {
                Change::Keep => {}
                Change::Put(after) => {
                    self.replace(&mut staged, id, Some(&entry), Some(&after), false);
                }
                Change::Erase => self.replace(&mut staged, id, Some(&entry), None, false),
            }
        }
        self.commit(&writing, staged)
    }

    /// Takes out the entries that are still as given: chunks that were put or touched since then stay.
    /// The number and bytes of those that went.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn remove(&self, entries: &[(ChunkId, Entry)]) -> Result<Totals, IndexError> {
        let wanted: HashMap<ChunkId, Entry> = entries.iter().copied().collect();
        let ids: Vec<_> = wanted.keys().copied().collect();
        let mut gone = Totals::default();
        self.revise(&ids, |id, entry| {
            if wanted.get(id) != Some(entry) {
                return Change::Keep;
            }
            gone.add(entry);
            Change::Erase
        })?;
        Ok(gone)
    }

    /// Entries whose records lie elsewhere now. One that has changed its place meanwhile, or is gone,
    /// stays as it is. Marks move as in [`Index::publish`].
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn relocate(
        &self,
        moves: &[(ChunkId, Location, Location)],
        marks: &BTreeMap<SegmentId, u64>,
    ) -> Result<(), IndexError> {
        let writing = self.lock();
        let mut staged = self.stage();
        for (id, from, to) in moves {
            if let Some(entry) = self.get(id)?.filter(|entry| entry.at == *from) {
                let after = Entry { at: *to, ..entry };
                self.replace(&mut staged, id, Some(&entry), Some(&after), true);
            }
        }
        self.put_marks(&mut staged, marks);
        self.commit(&writing, staged)
    }

    /// The segment is about to be removed: nothing refers to it. Durable when this returns, together with
    /// every change before it.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn forget_segment(&self, segment: SegmentId) -> Result<(), IndexError> {
        let writing = self.lock();
        self.write(&writing, || self.marks.remove(segment.0.to_be_bytes().as_slice()))?;
        self.persist(&writing)
    }

    /// The chunk was read and is right: the disk could not read it for a while.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn note_good(&self, id: &ChunkId) -> Result<(), IndexError> {
        let writing = self.lock();
        let Some(entry) = self.get(id)? else { return Ok(()) };
        let mut groups = self.counting.change();
        if self.known_damaged.forget(id) {
            if !entry.is_quarantined() {
                groups.add(id, entry.at.len);
            }
            self.write(&writing, || self.damaged.remove(id.as_bytes().as_slice()))?;
        }
        Ok(())
    }

    /// The record at `at` is damaged. Durable; nothing happens when the chunk lies elsewhere by now.
    ///
    /// # Errors
    /// See [`IndexError`]. It is known until the next start all the same.
    pub fn note_damaged(&self, id: &ChunkId, at: Location) -> Result<(), IndexError> {
        let writing = self.lock();
        {
            let Some(entry) = self.get(id)?.filter(|entry| entry.at == at) else {
                return Ok(());
            };
            let mut groups = self.counting.change();
            if !self.known_damaged.note(id) {
                return Ok(());
            }
            if !entry.is_quarantined() {
                groups.remove(id, at.len);
            }
            self.write(&writing, || self.damaged.insert(id.as_bytes().as_slice(), b"".as_slice()))?;
        }
        self.persist(&writing)
    }
}
