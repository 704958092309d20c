//! [`Content`]: the bytes of one file twice, as programs see them and as the platter has them.
//!
//! Invariant: outside the pages in `dirty` both images are equal. Pages are shared between the images
//! until one of them is written, so that a 256 MiB preallocated file costs nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::rng::Rng;

/// Bytes that are written, lost or kept together, unless a page is torn.
pub(crate) const PAGE: usize = 4096;
/// Bytes that no disk tears.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// One file's bytes, current and durable.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pages: BTreeMap<u64, Page>,
    size: u64,
    reserved: u64,
    durable_pages: BTreeMap<u64, Page>,
    durable_size: u64,
    dirty: BTreeSet<u64>,
}

#[expect(clippy::cast_possible_truncation, reason = "remainders of PAGE and lengths of buffers")]
const fn usize_of(n: u64) -> usize {
    n as usize
}

const fn page_of(offset: u64) -> u64 {
    offset / PAGE as u64
}

impl Content {
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that the file takes on the disk.
    pub(crate) fn allocated(&self) -> u64 {
        (self.pages.len() as u64 * PAGE as u64).max(self.reserved)
    }

    /// Bytes that writing this range would newly take.
    pub(crate) fn growth(&self, offset: u64, len: usize) -> u64 {
        let end = offset + len as u64;
        let range = page_of(offset)..end.div_ceil(PAGE as u64);
        let wanted = range.end - range.start;
        let there = self.pages.range(range).count() as u64;
        let after = ((self.pages.len() as u64 + wanted - there) * PAGE as u64).max(self.reserved);
        after - self.allocated()
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(len as u64));
        let mut out = Vec::with_capacity(usize_of(end.saturating_sub(offset)));
        let mut at = offset;
        while at < end {
            let start = usize_of(at % PAGE as u64);
            let take = (PAGE - start).min(usize_of(end - at));
            match self.pages.get(&page_of(at)) {
                Some(page) => out.extend_from_slice(&page[start..start + take]),
                None => out.resize(out.len() + take, 0),
            }
            at += take as u64;
        }
        out
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let start = usize_of(at % PAGE as u64);
            let take = (PAGE - start).min(rest.len());
            let page = self.pages.entry(page_of(at)).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[start..start + take].copy_from_slice(&rest[..take]);
            self.dirty.insert(page_of(at));
            at += take as u64;
            rest = &rest[take..];
        }
        self.size = self.size.max(at);
    }

    pub(crate) fn zero(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let touched: Vec<u64> = self
            .pages
            .range(page_of(offset)..end.div_ceil(PAGE as u64))
            .map(|(&index, _)| index)
            .collect();
        for index in touched {
            let base = index * PAGE as u64;
            let from = usize_of(offset.max(base) - base);
            let to = usize_of(end.min(base + PAGE as u64) - base);
            self.dirty.insert(index);
            if from == 0 && to == PAGE {
                self.pages.remove(&index);
            } else if let Some(page) = self.pages.get_mut(&index) {
                Arc::make_mut(page)[from..to].fill(0);
            }
        }
    }

    pub(crate) fn truncate(&mut self, size: u64) {
        if size < self.size {
            let last = self.pages.last_key_value().map_or(0, |(&index, _)| index + 1);
            let end = (last * PAGE as u64).max(self.size);
            self.zero(size, end - size);
            self.reserved = self.reserved.min(size);
        }
        self.size = size;
    }

    /// Reserves space; the file's length grows unless `keep_size`.
    pub(crate) fn reserve(&mut self, end: u64, keep_size: bool) {
        self.reserved = self.reserved.max(end);
        if !keep_size {
            self.size = self.size.max(end);
        }
    }

    /// fsync and fdatasync: the durable image becomes the current one.
    pub(crate) fn sync(&mut self) {
        for index in std::mem::take(&mut self.dirty) {
            match self.pages.get(&index) {
                Some(page) => self.durable_pages.insert(index, Arc::clone(page)),
                None => self.durable_pages.remove(&index),
            };
        }
        self.durable_size = self.size;
    }

    /// The power goes: of what was not synced a random part reached the disk, whole pages or torn
    /// ones, in any order, and so may or may not have the new length.
    pub(crate) fn cut(&mut self, rng: &mut Rng) {
        for index in std::mem::take(&mut self.dirty) {
            let old = self.durable_pages.get(&index).cloned();
            let new = self.pages.get(&index).cloned();
            let kept = match rng.below(4) {
                0 => old,
                1 => Some(torn(old.as_ref(), new.as_ref(), rng)),
                _ => new,
            };
            match kept {
                Some(page) => self.durable_pages.insert(index, page),
                None => self.durable_pages.remove(&index),
            };
        }
        let (low, high) = (self.durable_size.min(self.size), self.durable_size.max(self.size));
        let size = match rng.below(4) {
            0 => self.durable_size,
            1 => low + rng.below(high - low + 1) / SECTOR as u64 * SECTOR as u64,
            _ => self.size,
        };
        self.pages.clone_from(&self.durable_pages);
        self.size = high;
        self.truncate(size);
        self.reserved = 0;
        self.sync();
    }
}

fn torn(old: Option<&Page>, new: Option<&Page>, rng: &mut Rng) -> Page {
    let mut mixed = old.map_or([0; PAGE], |page| **page);
    let zeros = Arc::new([0; PAGE]);
    let new = new.unwrap_or(&zeros);
    for sector in 0..PAGE / SECTOR {
        if rng.one_in(2) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            mixed[range.clone()].copy_from_slice(&new[range]);
        }
    }
    Arc::new(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_survive_every_cut() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut content = Content::default();
            let synced = rng.bytes(10_000);
            content.write(0, &synced);
            content.sync();
            let mut file = synced.clone();
            file.extend(rng.bytes(20_000));
            content.write(10_000, &file[10_000..]);
            content.cut(&mut rng);
            assert!(content.size() >= 10_000 && content.size() <= 30_000);
            assert_eq!(content.read(0, 10_000), synced);
        }
    }

    #[test]
    fn unsynced_writes_are_lost_torn_or_kept_by_the_sector() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let mut content = Content::default();
            content.write(0, &[1; PAGE]);
            content.sync();
            content.write(0, &[2; PAGE]);
            content.cut(&mut Rng::new(seed));
            let bytes = content.read(0, PAGE);
            match bytes.iter().filter(|&&b| b == 2).count() {
                0 => lost += 1,
                PAGE => kept += 1,
                _ => torn += 1,
            }
            assert!(bytes.chunks(SECTOR).all(|s| s.iter().all(|b| b == &s[0])));
        }
        assert!(lost > 20 && kept > 20 && torn > 20, "{lost} {kept} {torn}");
    }

    #[test]
    fn truncation_and_growth_read_as_zeros() {
        let mut content = Content::default();
        content.write(0, &[7; 9000]);
        content.truncate(5000);
        content.truncate(9000);
        let mut expected = vec![7; 5000];
        expected.resize(9000, 0);
        assert_eq!(content.read(0, 10_000), expected);
        content.reserve(1 << 28, false);
        assert_eq!(content.size(), 1 << 28);
        assert_eq!(content.allocated(), 1 << 28);
        assert_eq!(content.growth(0, 100_000), 0);
    }
}
