//! [`Cache`]: content of verified chunks in memory, least recently used first out, bounded in bytes.
//!
//! What is kept is the content, so that a hit costs no decoding. A file may well consist of the very bytes
//! that another chunk is compressed to: one id, two contents. So the codec is part of the key.
//!
//! What comes in must own its buffer: a small slice of a large buffer would keep all of it alive and
//! make the bound a lie. The fetch path copies each chunk out of its batch, unless it came in a buffer
//! of its own; writers hand over buffers of their own. One lock, held for a lookup; buffers are freed after it.

use std::{
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use cairn_proto::{ChunkId, ChunkRef, Codec};
use lru::LruCache;

/// What an entry costs besides its bytes: key, links, table, the buffer's header.
const OVERHEAD: usize = 192;

/// What names content: the stored bytes and how they are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    id: ChunkId,
    codec: Codec,
}

impl From<&ChunkRef> for Key {
    fn from(chunk: &ChunkRef) -> Self {
        Self { id: chunk.id, codec: chunk.codec }
    }
}

impl Hash for Key {
    /// The id alone, which [`Prefix`] wants; two codecs of one id are rare enough to collide.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// A chunk id is a hash already: eight of its bytes will do.
#[derive(Default)]
pub(super) struct Prefix(u64);

impl Hasher for Prefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not the leading bytes: those choose the placement group, and groups are not evenly used.
        if let Some(tail) = bytes.last_chunk::<8>() {
            self.0 = u64::from_le_bytes(*tail);
        }
    }
}

struct Held {
    chunks: LruCache<Key, Bytes, BuildHasherDefault<Prefix>>,
    bytes: usize,
}

/// See the head of this file.
pub(super) struct Cache {
    held: Mutex<Held>,
    bound: usize,
}

impl Cache {
    /// Keeps at most `bound` bytes.
    pub(super) fn new(bound: usize) -> Self {
        let chunks = LruCache::unbounded_with_hasher(BuildHasherDefault::default());
        Self { held: Mutex::new(Held { chunks, bytes: 0 }), bound }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        self.lock().chunks.get(key).cloned()
    }

    /// Whether it is there; does not count as use.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.lock().chunks.contains(key)
    }

    /// Bytes that it takes now, and at most.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.lock().bytes, self.bound)
    }

    /// Keeps `data`, which `key` names, and drops what was not used for longest.
    pub(super) fn insert(&self, key: Key, data: Bytes) {
        let cost = data.len() + OVERHEAD;
        if cost > self.bound {
            return;
        }
        let mut dropped = Vec::new();
        let mut held = self.lock();
        held.bytes += cost;
        if let Some(same) = held.chunks.put(key, data) {
            held.bytes -= same.len() + OVERHEAD;
            dropped.push(same);
        }
        while held.bytes > self.bound {
            let Some((_, oldest)) = held.chunks.pop_lru() else { break };
            held.bytes -= oldest.len() + OVERHEAD;
            dropped.push(oldest);
        }
        drop(held);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it holds the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u8, len: usize) -> (Key, Bytes) {
        let data = vec![n; len];
        (Key { id: ChunkId::of(&data), codec: Codec::Plain }, data.into())
    }

    #[test]
    fn the_same_stored_bytes_are_other_content_under_another_codec() {
        let cache = Cache::new(1 << 20);
        let (plain, data) = chunk(1, 100);
        let packed = Key { codec: Codec::Zstd, ..plain };
        cache.insert(plain, data.clone());
        assert_eq!(cache.get(&packed), None);
        cache.insert(packed, chunk(2, 300).1);
        assert_eq!(cache.get(&plain), Some(data));
        assert_eq!(cache.get(&packed), Some(chunk(2, 300).1));
    }

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let cache = Cache::new(10 * (1000 + OVERHEAD));
        let (kept, data) = chunk(0, 1000);
        cache.insert(kept, data.clone());
        for n in 1..=100 {
            let (id, data) = chunk(n, 1000);
            cache.insert(id, data.clone());
            cache.insert(id, data);
            assert!(cache.get(&kept).is_some(), "used a moment ago");
            assert!(cache.lock().bytes <= 10 * (1000 + OVERHEAD));
        }
        assert_eq!(cache.lock().chunks.len(), 10);
        assert_eq!(cache.get(&chunk(100, 1000).0), Some(chunk(100, 1000).1));
        assert_eq!(cache.get(&chunk(1, 1000).0), None);
        assert_eq!(cache.get(&kept), Some(data));
    }

    #[test]
    fn a_chunk_larger_than_all_of_it_is_not_kept() {
        let cache = Cache::new(100);
        let (id, data) = chunk(1, 101);
        cache.insert(id, data);
        assert_eq!(cache.get(&id), None);
    }
}
