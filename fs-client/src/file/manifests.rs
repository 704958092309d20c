//! [`ManifestCache`]: references of the files in use, by page, bounded in number.
//!
//! A page belongs to an *epoch* of a file's manifest: a number that is never used twice. Whoever
//! finds that the master's manifest is no longer the one he cached takes a new epoch, and every page
//! of the old one is out of reach at once. Of a hole, which may have more pages than can be counted,
//! only the first few are entered.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_proto::{ChunkRef, FsError, Ino, ManifestRun, pb};
use lru::LruCache;

/// References in one page.
pub const PAGE_REFS: u64 = 256;
/// Pages kept: 12 KiB each at most.
const PAGES: NonZeroUsize = NonZeroUsize::new(2048).expect("not 0");
/// Pages without a reference that one answer enters: 4 GiB of a hole with chunks of 64 KiB.
const HOLE_PAGES: u64 = 256;

/// References from a multiple of [`PAGE_REFS`] on; what lies beyond the vector is a hole.
#[derive(Debug)]
struct Page {
    epoch: u64,
    refs: Vec<Option<ChunkRef>>,
}

/// See the module's head.
pub struct ManifestCache {
    pages: Mutex<LruCache<(Ino, u64), Page>>,
    epochs: AtomicU64,
}

impl Default for ManifestCache {
    fn default() -> Self {
        Self { pages: Mutex::new(LruCache::new(PAGES)), epochs: AtomicU64::new(0) }
    }
}

impl ManifestCache {
    /// A number that was never given before.
    pub fn new_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The reference at `index` (inner `None`: a hole); outer `None`: not known.
    pub fn get(&self, ino: Ino, epoch: u64, index: u64) -> Option<Option<ChunkRef>> {
        let mut pages = self.lock();
        let page = pages.get(&(ino, index / PAGE_REFS)).filter(|p| p.epoch == epoch)?;
        Some(page.refs.get(within(index)).copied().flatten())
    }

    /// Notes that `index` is `chunk` from now on, when its page is known.
    pub fn set(&self, ino: Ino, epoch: u64, index: u64, chunk: Option<ChunkRef>) {
        let mut pages = self.lock();
        if let Some(page) = pages.get_mut(&(ino, index / PAGE_REFS)).filter(|p| p.epoch == epoch) {
            let at = within(index);
            if at >= page.refs.len() {
                page.refs.resize(at + 1, None);
            }
            page.refs[at] = chunk;
        }
    }

    /// Takes in what the master sent for `first_index` and on: pages that it covers whole. All that
    /// have references, and so many of the others that the first ones are known.
    ///
    /// # Errors
    /// `Protocol` when it makes no sense.
    pub fn insert(
        &self,
        ino: Ino,
        epoch: u64,
        first_index: u64,
        sent: pb::ManifestPage,
    ) -> Result<(), FsError> {
        let refs = flatten(first_index, sent.runs)?;
        let known_to = if sent.end {
            // Holes up to the end of time: one page past the last reference says enough.
            let last = refs.last().map_or(first_index, |(index, _)| index + 1);
            let end = last.max(sent.next_index).max(first_index + 1);
            end.checked_next_multiple_of(PAGE_REFS).ok_or(FsError::Protocol)?
        } else {
            sent.next_index
        };
        let whole = first_index.div_ceil(PAGE_REFS)..known_to / PAGE_REFS;
        let mut known: BTreeMap<u64, Vec<Option<ChunkRef>>> = BTreeMap::new();
        for (index, chunk) in refs {
            let number = index / PAGE_REFS;
            if whole.contains(&number) {
                let page = known.entry(number).or_default();
                page.resize(within(index), None);
                page.push(Some(chunk));
            }
        }
        for number in whole.take(HOLE_PAGES as usize) {
            known.entry(number).or_default();
        }
        let mut pages = self.lock();
        for (number, refs) in known {
            pages.put((ino, number), Page { epoch, refs });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<(Ino, u64), Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn within(index: u64) -> usize {
    (index % PAGE_REFS) as usize
}

/// The references of `runs`, checked to be in order and not below `first_index`; holes left out.
///
/// # Errors
/// `Protocol` when they are not.
pub fn flatten(
    first_index: u64,
    runs: Vec<pb::ManifestRun>,
) -> Result<Vec<(u64, ChunkRef)>, FsError> {
    let mut refs = Vec::with_capacity(runs.iter().map(|r| r.refs.len()).sum());
    let mut next = first_index;
    for run in runs {
        let run = ManifestRun::try_from(run).map_err(|error| {
            tracing::error!(%error, "the master sent a manifest that cannot be used");
            FsError::Protocol
        })?;
        if run.first_index < next {
            return Err(FsError::Protocol);
        }
        next = run.first_index + run.refs.len() as u64;
        let indexed = run.refs.into_iter().zip(run.first_index..);
        refs.extend(indexed.filter_map(|(chunk, index)| Some((index, chunk?))));
    }
    Ok(refs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u64) -> ChunkRef {
        ChunkRef::plain(&n.to_le_bytes())
    }

    fn sent(runs: &[(u64, u64)], next_index: u64, end: bool) -> pb::ManifestPage {
        let run = |&(first, len): &(u64, u64)| {
            ManifestRun {
                first_index: first,
                refs: (first..first + len).map(|n| Some(chunk(n))).collect(),
            }
            .into()
        };
        pb::ManifestPage {
            runs: runs.iter().map(run).collect(),
            next_index,
            end,
            ..pb::ManifestPage::default()
        }
    }

    #[test]
    fn pages_that_were_sent_whole_are_known_and_no_others() {
        let cache = ManifestCache::default();
        let (ino, epoch) = (Ino::ROOT, cache.new_epoch());
        cache.insert(ino, epoch, 0, sent(&[(0, 3), (5, 400)], 405, false)).unwrap();
        assert_eq!(cache.get(ino, epoch, 2), Some(Some(chunk(2))));
        assert_eq!(cache.get(ino, epoch, 3), Some(None), "a hole");
        assert_eq!(cache.get(ino, epoch, 255), Some(Some(chunk(255))));
        assert_eq!(cache.get(ino, epoch, 256), None, "the second page was not sent whole");
        cache.insert(ino, epoch, 256, sent(&[(256, 149)], 405, true)).unwrap();
        assert_eq!(cache.get(ino, epoch, 404), Some(Some(chunk(404))));
        assert_eq!(cache.get(ino, epoch, 405), Some(None));
    }

    #[test]
    fn an_empty_file_is_known_to_be_empty() {
        let cache = ManifestCache::default();
        let epoch = cache.new_epoch();
        cache.insert(Ino::ROOT, epoch, 0, sent(&[], 0, true)).unwrap();
        assert_eq!(cache.get(Ino::ROOT, epoch, 0), Some(None));
        cache.set(Ino::ROOT, epoch, 9, Some(chunk(9)));
        assert_eq!(cache.get(Ino::ROOT, epoch, 8), Some(None));
        assert_eq!(cache.get(Ino::ROOT, epoch, 9), Some(Some(chunk(9))));
    }

    #[test]
    fn a_hole_of_any_size_costs_a_few_pages() {
        let cache = ManifestCache::default();
        let (ino, epoch, far) = (Ino::ROOT, cache.new_epoch(), (1 << 47) - 1);
        cache.insert(ino, epoch, 0, sent(&[(far - 1, 1)], far, true)).unwrap();
        assert_eq!(cache.get(ino, epoch, 0), Some(None));
        assert_eq!(cache.get(ino, epoch, far - 1), Some(Some(chunk(far - 1))));
        assert_eq!(cache.get(ino, epoch, far / 2), None, "not known is not a hole");
        cache.insert(ino, epoch, far / 2 / PAGE_REFS * PAGE_REFS, sent(&[], far, true)).unwrap();
        assert_eq!(cache.get(ino, epoch, far / 2), Some(None));
        assert!(cache.lock().len() < 1024);
    }

    #[test]
    fn a_new_epoch_knows_nothing() {
        let cache = ManifestCache::default();
        let epoch = cache.new_epoch();
        cache.insert(Ino::ROOT, epoch, 0, sent(&[(0, 1)], 1, true)).unwrap();
        let later = cache.new_epoch();
        assert_eq!(cache.get(Ino::ROOT, later, 0), None);
        cache.set(Ino::ROOT, later, 0, None);
        assert_eq!(cache.get(Ino::ROOT, epoch, 0), Some(Some(chunk(0))));
    }

    #[test]
    fn runs_out_of_order_are_refused() {
        let cache = ManifestCache::default();
        let wrong = sent(&[(5, 2), (3, 1)], 7, true);
        assert_eq!(cache.insert(Ino::ROOT, 1, 0, wrong), Err(FsError::Protocol));
        assert_eq!(cache.insert(Ino::ROOT, 1, 4, sent(&[(3, 1)], 7, true)), Err(FsError::Protocol));
    }
}
