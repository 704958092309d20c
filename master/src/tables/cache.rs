//! Hot rows in memory, absent ones included, bounded in bytes. Holds only what is committed.

use bytes::Bytes;
use lru::LruCache;

/// What an entry costs besides its bytes: hash table, links, two reference counts.
const OVERHEAD: usize = 160;

pub(super) struct RowCache {
    rows: LruCache<Bytes, Option<Bytes>>,
    bytes: usize,
    limit: usize,
}

fn cost(key: &Bytes, value: &Option<Bytes>) -> usize {
    OVERHEAD + key.len() + value.as_ref().map_or(0, Bytes::len)
}

impl RowCache {
    pub(super) fn new(limit: usize) -> Self {
        Self { rows: LruCache::unbounded(), bytes: 0, limit }
    }

    pub(super) fn get(&mut self, key: &Bytes) -> Option<Option<Bytes>> {
        self.rows.get(key).cloned()
    }

    pub(super) fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        self.bytes += cost(&key, &value);
        if let Some((old_key, old_value)) = self.rows.push(key, value) {
            self.bytes -= cost(&old_key, &old_value);
        }
        while self.bytes > self.limit
            && let Some((key, value)) = self.rows.pop_lru()
        {
            self.bytes -= cost(&key, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bytes_and_keeps_what_was_used_last() {
        let mut cache = RowCache::new(10 * (OVERHEAD + 108));
        let key = |i: u64| Bytes::copy_from_slice(&i.to_be_bytes());
        for i in 0..1000 {
            cache.put(key(i), Some(vec![0; 100].into()));
            cache.put(key(i), Some(vec![1; 100].into()));
            assert!(cache.bytes <= cache.limit);
        }
        assert_eq!(cache.rows.len(), 10);
        assert_eq!(cache.get(&key(999)), Some(Some(vec![1; 100].into())));
        assert_eq!(cache.get(&key(989)), None);
        cache.put(key(5), None);
        assert_eq!(cache.get(&key(5)), Some(None), "absence is remembered");
    }
}
