//! [`Jobs`]: work that takes its time, done in order by few threads of the runtime's blocking pool.
//!
//! A thread that has begun goes on until nothing is left, and may take a few jobs at a time: what waits for their
//! results is woken once for all of them. So a stream of small jobs costs few switches between threads; a
//! lone job is done and told of at once.
//!
//! What is queued is bounded by the budgets of those who wait for the results; a result that nobody waits for
//! any more is made all the same, or found to be unwanted by the job. A job that panics takes its own result with
//! it and nothing else. Lock order: `state` alone, never while a job runs.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use cairn_proto::ChunkId;
use tokio::task::spawn_blocking;
use tracing::error;

/// Tells whoever waits.
type Tell = Box<dyn FnOnce() + Send>;

enum Job {
    /// Several of them are hashed in one go.
    Hash(Bytes, Box<dyn FnOnce(ChunkId) + Send>),
    Work(Box<dyn FnOnce() -> Tell + Send>),
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
}

/// See the head of this file.
pub(super) struct Jobs {
    /// Threads at the same time.
    most: usize,
    /// Jobs that one thread does in a go at most.
    together: usize,
    state: Mutex<State>,
}

impl Jobs {
    /// At most `most` threads, each of which takes at most `together` jobs at a time.
    pub(super) fn new(most: usize, together: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), together, state: Mutex::default() })
    }

    /// Queues `work`; `tell` is given the result. `tell` is dropped instead when `work` panics, and both are, at
    /// the latest with the queue, when the runtime is shut down. Must be called within a runtime.
    pub(super) fn submit<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
        tell: impl FnOnce(T) + Send + 'static,
    ) {
        let job = move || {
            let result = work();
            Box::new(move || tell(result)) as Tell
        };
        self.push(Job::Work(Box::new(job)));
    }

    /// As [`Jobs::submit`], for the work of finding out the id of `data`.
    pub(super) fn hash(self: &Arc<Self>, data: Bytes, tell: impl FnOnce(ChunkId) + Send + 'static) {
        self.push(Job::Hash(data, Box::new(tell)));
    }

    fn push(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        state.queue.push_back(job);
        if state.threads < self.most {
            state.threads += 1;
            drop(state);
            let jobs = self.clone();
            spawn_blocking(move || jobs.work());
        }
    }

    /// One of the threads.
    fn work(&self) {
        while let Some(jobs) = self.next() {
            for tell in do_all(jobs) {
                unless_it_panics(tell);
            }
        }
    }

    /// A fair part of what waits. `None` when nothing does: the caller no longer counts as a thread.
    fn next(&self) -> Option<Vec<Job>> {
        let mut state = self.lock();
        let count = state.queue.len().div_ceil(self.most).min(self.together);
        if count == 0 {
            state.threads -= 1;
            return None;
        }
        Some(state.queue.drain(..count).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No job runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is to tell then.
fn do_all(jobs: Vec<Job>) -> Vec<Tell> {
    let mut tells: Vec<Tell> = Vec::with_capacity(jobs.len());
    let (mut chunks, mut waiting) = (Vec::new(), Vec::new());
    for job in jobs {
        match job {
            Job::Work(work) => tells.extend(unless_it_panics(work)),
            Job::Hash(data, tell) => {
                chunks.push(data);
                waiting.push(tell);
            }
        }
    }
    let chunks: Vec<&[u8]> = chunks.iter().map(AsRef::as_ref).collect();
    let ids = unless_it_panics(|| ChunkId::of_each(&chunks)).unwrap_or_default();
    for (id, tell) in ids.into_iter().zip(waiting) {
        tells.push(Box::new(move || tell(id)));
    }
    tells
}

fn unless_it_panics<T>(call: impl FnOnce() -> T) -> Option<T> {
    // What the call works on is dropped with it.
    let outcome = catch_unwind(AssertUnwindSafe(call));
    outcome.inspect_err(|_| error!("a job panicked; who waits for it gets an error")).ok()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn every_job_is_done_and_told_of_by_few_threads() {
        let jobs = Jobs::new(2, 4);
        let (told, results) = mpsc::channel();
        for round in 0..100 {
            for n in 0..round {
                let told = told.clone();
                jobs.submit(move || n, move |n| told.send(n).unwrap());
            }
            assert!(jobs.lock().threads <= 2);
            let mut seen: Vec<_> =
                (0..round).map(|_| results.recv_timeout(SOON).unwrap()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..round).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn every_chunk_gets_its_own_id() {
        let jobs = Jobs::new(2, 4);
        let (told, results) = mpsc::channel();
        for n in 0..100u8 {
            let told = told.clone();
            if n % 7 == 0 {
                jobs.submit(|| (), |()| ());
            }
            let data = vec![n; 1 + 777 * usize::from(n)];
            jobs.hash(data.into(), move |id| told.send((n, id)).unwrap());
        }
        for _ in 0..100 {
            let (n, id) = results.recv_timeout(SOON).unwrap();
            assert_eq!(id, ChunkId::of(&vec![n; 1 + 777 * usize::from(n)]));
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_harms_no_other() {
        let jobs = Jobs::new(1, 4);
        let (told, results) = mpsc::channel();
        for n in 0..20 {
            let told = told.clone();
            jobs.submit(move || if n % 3 == 0 { panic!("expected by the test") } else { n }, {
                move |n| {
                    told.send(n).unwrap();
                    assert!(n % 3 == 1, "expected by the test");
                }
            });
        }
        drop(told);
        let seen: Vec<_> = results.iter().collect();
        assert_eq!(seen, (0..20).filter(|n| n % 3 != 0).collect::<Vec<_>>());
    }
}
