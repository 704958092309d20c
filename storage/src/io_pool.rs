//! [`IoPool`]: blocking work with a bound on how much runs at once. With the writer threads the only
//! crossing between async and blocking code.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// See the module.
#[derive(Clone, Debug)]
pub struct IoPool {
    slots: Arc<Semaphore>,
}

impl IoPool {
    /// At most `slots` calls run at once; more wait in order.
    pub fn new(slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots)) }
    }

    /// Runs `work` on a thread that may block. It is finished even if the caller is dropped.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("is never closed");
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(slot);
            result
        });
        match task.await {
            Ok(result) => result,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            // Only a runtime that is being shut down cancels blocking work, and it runs nothing more.
            Err(_) => std::future::pending().await,
        }
    }
}
