//! [`Flights`]: one fetch for a chunk, however many want it.
//!
//! The first who wants a chunk gets a [`Landing`] and fetches in a task of its own; the others wait
//! for the same result. No caller's departure disturbs the rest, and a fetch that nobody waits for any
//! longer can see so. A landing that is dropped fails its waiters rather than leaving them.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use cairn_proto::ChunkError;
use tokio::sync::oneshot;

use super::cache::{Key, Prefix};

/// What everybody who waits for a chunk gets.
pub(super) type Fetched = Result<Bytes, ChunkError>;

type Waiters = Vec<oneshot::Sender<Fetched>>;

/// See the head of this file.
#[derive(Clone, Default)]
pub(super) struct Flights {
    under_way: Arc<Mutex<HashMap<Key, Waiters, BuildHasherDefault<Prefix>>>>,
}

/// The duty to bring a chunk.
pub(super) struct Landing {
    flights: Flights,
    key: Key,
    /// Who wants the chunk from now on begins a flight of their own, which is none of ours.
    landed: bool,
}

impl Flights {
    /// Waits for `key`; with the duty to fetch it for who is the first.
    pub(super) fn join(&self, key: Key) -> (Option<Landing>, oneshot::Receiver<Fetched>) {
        let (waiter, fetched) = oneshot::channel();
        let mut under_way = self.lock();
        let mut first = false;
        let waiters = under_way.entry(key).or_insert_with(|| {
            first = true;
            Vec::new()
        });
        waiters.retain(|w| !w.is_closed());
        waiters.push(waiter);
        drop(under_way);
        let landing = first.then(|| Landing::new(self, key));
        (landing, fetched)
    }

    /// The duty to fetch `key` ahead of time, unless it is under way.
    pub(super) fn ahead(&self, key: Key) -> Option<Landing> {
        let mut under_way = self.lock();
        if under_way.contains_key(&key) {
            return None;
        }
        under_way.insert(key, Vec::new());
        drop(under_way);
        Some(Landing::new(self, key))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Waiters, BuildHasherDefault<Prefix>>> {
        // Nothing panics while it holds the lock.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Landing {
    fn new(flights: &Flights, key: Key) -> Self {
        Self { flights: flights.clone(), key, landed: false }
    }

    /// Whether a failed try is worth another.
    pub(super) fn is_wanted(&self) -> bool {
        self.flights.lock().get(&self.key).is_some_and(|w| w.iter().any(|w| !w.is_closed()))
    }

    /// Gives `fetched` to all who wait. What succeeded must be in the cache by now, so that nobody
    /// fetches it again.
    pub(super) fn land(mut self, fetched: &Fetched) {
        self.deliver(fetched);
    }

    fn deliver(&mut self, fetched: &Fetched) {
        if std::mem::replace(&mut self.landed, true) {
            return;
        }
        let waiters = self.flights.lock().remove(&self.key);
        for waiter in waiters.into_iter().flatten() {
            let _ = waiter.send(fetched.clone());
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.deliver(&Err(ChunkError::Unreachable));
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::ChunkRef;

    use super::*;

    #[tokio::test]
    async fn one_fetches_and_all_get_it() {
        let flights = Flights::default();
        let key = Key::from(&ChunkRef::plain(b"x"));
        let (landing, first) = flights.join(key);
        let landing = landing.expect("the first fetches");
        let (none, second) = flights.join(key);
        assert!(none.is_none() && flights.ahead(key).is_none());
        drop(first);
        assert!(landing.is_wanted(), "the second still waits");
        landing.land(&Ok(Bytes::from_static(b"x")));
        assert_eq!(second.await.unwrap(), Ok(Bytes::from_static(b"x")));
        assert!(flights.join(key).0.is_some(), "the next one fetches anew");
    }

    #[tokio::test]
    async fn a_fetch_that_has_landed_does_not_end_the_next() {
        let flights = Flights::default();
        let key = Key::from(&ChunkRef::plain(b"x"));
        let mut landing = flights.join(key).0.expect("the first fetches");
        // What `land` does before it drops the landing.
        landing.deliver(&Ok(Bytes::from_static(b"x")));
        let (next, mut fetched) = flights.join(key);
        assert!(next.is_some(), "the next one fetches anew");
        drop(landing);
        assert!(fetched.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty));
    }

    #[tokio::test]
    async fn a_fetch_that_dies_leaves_nobody_waiting() {
        let flights = Flights::default();
        let (landing, fetched) = flights.join(Key::from(&ChunkRef::plain(b"x")));
        drop(landing);
        assert_eq!(fetched.await.unwrap(), Err(ChunkError::Unreachable));
    }
}
