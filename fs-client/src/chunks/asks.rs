//! [`Asks`]: "have you this chunk?", the questions of many callers in few calls to one node.
//!
//! A yes means: durable there, and touched, so that the node keeps it for a commit that follows soon,
//! exactly as after a put. Everything else (no, no answer, an answer that makes no sense) means: send
//! it. So a node that fails is found out by the put, which knows what to do then.
//!
//! A lone question is asked at once. While a call is under way questions gather, and after it for [`GATHER`]
//! more when they are few yet: each call costs both sides more than the chunks that it asks for. Questions are
//! bounded by the upload budget of their callers. Nothing is held across an await.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_proto::{ChunkId, ChunkRef, pb};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::put::stamp;
use crate::rpc::connect::StorageClient;

/// So few questions may wait for more.
const FEW: usize = 32;
/// For so long at most: at the pace of a fast writer some ten chunks come in it.
const GATHER: Duration = Duration::from_millis(1);
/// Questions in one call.
const BATCH: usize = 1024;
/// A node that needs longer is sent the chunks unasked.
const PATIENCE: Duration = Duration::from_millis(400);
/// For so long after a call that failed.
const UNASKED: Duration = Duration::from_secs(3);

/// What a node has.
#[derive(Clone, Copy)]
struct Found {
    stored_len: u32,
    /// Epoch of garbage collection that it was stamped with by the question.
    stamp: u64,
}

struct Question {
    id: ChunkId,
    found: Option<oneshot::Sender<Option<Found>>>,
}

#[derive(Default)]
struct State {
    queue: Vec<Question>,
    asking: bool,
    unasked_until: Option<Instant>,
}

/// See the head of this file.
pub(super) struct Asks {
    client: StorageClient,
    state: Mutex<State>,
}

impl Asks {
    pub(super) fn new(client: StorageClient) -> Arc<Self> {
        Arc::new(Self { client, state: Mutex::default() })
    }

    /// The stamp of the chunk if the node says that it has it.
    pub(super) async fn has(self: &Arc<Self>, chunk: &ChunkRef) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.unasked_until.is_some_and(|until| Instant::now() < until) {
                return None;
            }
            state.queue.push(Question { id: chunk.id, found: Some(reply) });
            if !std::mem::replace(&mut state.asking, true) {
                tokio::spawn(self.clone().call());
            }
        }
        let found = answer.await.ok().flatten();
        found.filter(|found| found.stored_len == chunk.stored_len).map(|found| found.stamp)
    }

    /// Asks until no question is left.
    async fn call(self: Arc<Self>) {
        while let Some(mut questions) = self.next() {
            let answer = self.ask(&questions).await;
            if answer.is_none() {
                self.lock().unasked_until = Some(Instant::now() + UNASKED);
            }
            for (position, question) in questions.iter_mut().enumerate() {
                let found = answer.as_ref().and_then(|answer| {
                    let stored_len = answer.stored_len_plus_one.get(position)?.checked_sub(1)?;
                    Some(Found { stored_len, stamp: stamp(answer.gc_epoch) })
                });
                if let Some(reply) = question.found.take() {
                    let _ = reply.send(found);
                }
            }
            if (1..FEW).contains(&self.lock().queue.len()) {
                sleep(GATHER).await;
            }
        }
    }

    /// The next questions that somebody still wants to be answered; `None` ends the caller.
    fn next(&self) -> Option<Vec<Question>> {
        let mut state = self.lock();
        state.queue.retain(|q| q.found.as_ref().is_some_and(|reply| !reply.is_closed()));
        if state.queue.is_empty() {
            state.asking = false;
            return None;
        }
        let count = state.queue.len().min(BATCH);
        Some(state.queue.drain(..count).collect())
    }

    /// The answer to each of `questions`; `None` when there is none.
    async fn ask(&self, questions: &[Question]) -> Option<pb::HaveResponse> {
        let ids = questions.iter().map(|q| q.id.to_wire()).collect();
        let mut client = self.client.clone();
        let call = client.have(pb::HaveRequest { ids, touch: true });
        match timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                (answer.stored_len_plus_one.len() == questions.len()).then_some(answer)
            }
            Ok(Err(status)) => {
                debug!(%status, "a node does not say what it has");
                None
            }
            Err(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
