//! [`LockWaits`]: who in this process waits for a lock that the master may push the news of.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct LockWaits {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, Arc<Notify>>>,
}

impl LockWaits {
    /// Begins to wait, under a number that was never used before.
    pub(crate) fn begin(self: &Arc<Self>) -> LockWait {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let news = Arc::new(Notify::new());
        self.lock().insert(id, Arc::clone(&news));
        LockWait { id, news, waits: Arc::clone(self) }
    }

    /// The master keeps a lock for `id`. False when nobody waits for it.
    pub(crate) fn freed(&self, id: u64) -> bool {
        let news = self.lock().get(&id).cloned();
        if let Some(news) = &news {
            news.notify_one();
        }
        news.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One wait; it ends when this is dropped.
#[derive(Debug)]
pub struct LockWait {
    id: u64,
    news: Arc<Notify>,
    waits: Arc<LockWaits>,
}

impl LockWait {
    /// Its number within the session.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns when there is news since the last call.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

impl Drop for LockWait {
    fn drop(&mut self) {
        self.waits.lock().remove(&self.id);
    }
}
