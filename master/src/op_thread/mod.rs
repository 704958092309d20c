//! The op thread: the only owner of the [`Namespace`], and the only way from async code into it.
//!
//! It takes everything that is queued (a bounded group), executes it in the order of arrival, commits
//! once, and then lets the replies out; what asked for durability waits for the sync thread. When
//! nothing is queued it frees what deletions left behind, a step at a time. It never waits for a
//! client: replies go into outboxes that drop a client rather than block.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::Instant,
};

use cairn_proto::{FsError, pb};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tonic::Status;

use crate::{
    activity::{Activity, Underway},
    engine::EngineError,
    namespace::{Namespace, Origin},
    session::{
        push,
        registry::{Connection, Registry, Session},
    },
    sync_thread::{Delivery, Durability},
};

/// Jobs that may be queued.
const QUEUE: usize = 4096;
/// Most jobs in one commit.
const GROUP: usize = 256;
/// Bytes of operations that may be queued, over all sessions.
const QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// Why a call on the op thread has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    /// The metadata disk is full; nothing of the call was kept.
    #[error("the disk that holds the master's metadata is full: free space on it")]
    NoSpace,
    /// The master stops.
    #[error("the master is stopping: try again in a moment")]
    Stopping,
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let kind = match error {
            CallError::NoSpace => FsError::NoSpace,
            CallError::Stopping => FsError::TryAgain,
        };
        cairn_proto::status::from_fs(kind, error.to_string())
    }
}

/// One operation of a session.
pub(crate) struct SessionOp {
    /// Where it came from and where the reply goes.
    pub(crate) connection: Arc<Connection>,
    /// Number in its session.
    pub(crate) seq: u64,
    /// Replies that the client has.
    pub(crate) acked_below: u64,
    /// What to do.
    pub(crate) op: pb::Op,
    /// Counts it when it is answered.
    pub(crate) underway: Underway,
    /// Its share of the bytes that may be queued.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl SessionOp {
    fn run(&self, namespace: &mut Namespace) -> pb::Reply {
        let origin = Origin {
            session: self.connection.session.id.0,
            seq: self.seq,
            acked_below: self.acked_below,
        };
        namespace.execute(origin, &self.op)
    }

    /// Whether the answer waits for the sync. A lock that was granted must not be granted to somebody
    /// else after a power loss.
    fn is_durable(&self, reply: &pb::Reply) -> bool {
        match (&self.op.kind, &reply.kind) {
            (Some(pb::op::Kind::Sync(_)), _) => true,
            (Some(pb::op::Kind::Commit(commit)), _) => commit.durable,
            (_, Some(pb::reply::Kind::Lock(lock))) => lock.granted && lock.attr.is_some(),
            _ => false,
        }
    }
}

type Settled = Box<dyn FnOnce(Result<(), CallError>) + Send>;

#[expect(clippy::large_enum_variant, reason = "nearly all are operations; boxes would cost more")]
enum Job {
    Op(SessionOp),
    Call { durable: bool, work: Box<dyn FnOnce(&mut Namespace) -> Settled + Send> },
    Stop,
}

#[expect(clippy::large_enum_variant, reason = "nearly all are operations; boxes would cost more")]
enum Executed {
    Op(SessionOp, pb::Reply),
    Call { durable: bool, settled: Settled },
}

/// The way to the op thread.
#[derive(Clone)]
pub(crate) struct OpQueue {
    jobs: mpsc::Sender<Job>,
    bytes: Arc<Semaphore>,
}

impl OpQueue {
    /// A share of the bytes that may be queued; waits while there is none.
    pub(crate) async fn reserve(&self, bytes: usize) -> OwnedSemaphorePermit {
        let share = u32::try_from(bytes.clamp(1, QUEUED_BYTES)).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes);
        bytes.acquire_many_owned(share).await.expect("this semaphore is never closed")
    }

    /// Queues an operation; the reply goes to its connection.
    pub(crate) async fn submit(&self, op: SessionOp) -> Result<(), CallError> {
        self.jobs.send(Job::Op(op)).await.map_err(|_| CallError::Stopping)
    }

    /// Runs `work` on the op thread and returns its answer once its effects are committed (with
    /// `durable`: power-safe). It runs to the end even when the caller stops waiting.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        durable: bool,
        work: impl FnOnce(&mut Namespace) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move |namespace: &mut Namespace| {
            let answer = work(namespace);
            // Nobody waits for the answer any more when sending fails.
            let settled: Settled =
                Box::new(move |outcome| drop(sender.send(outcome.map(|()| answer))));
            settled
        });
        let queued = self.jobs.send(Job::Call { durable, work }).await;
        queued.map_err(|_| CallError::Stopping)?;
        receiver.await.map_err(|_| CallError::Stopping)?
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    /// Asks the thread to end after everything queued so far.
    pub(crate) async fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.jobs.send(Job::Stop).await;
    }
}

/// Why the master cannot go on, once that has happened.
pub(crate) type Failure = watch::Sender<Option<String>>;

/// Starts the thread.
pub(crate) fn start(
    namespace: Namespace,
    durability: Arc<Durability>,
    activity: Arc<Activity>,
    registry: Arc<Registry>,
    failure: Arc<Failure>,
) -> std::io::Result<(OpQueue, JoinHandle<()>)> {
    let (jobs, queue) = mpsc::channel(QUEUE);
    activity.committed(&namespace);
    let thread = OpThread { namespace, durability, activity, registry, queue, cramped: false };
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(move || thread.run()));
        let why = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "an operation panicked; the log has the place".to_owned(),
        };
        tracing::error!(%why, "the master cannot go on");
        failure.send_replace(Some(why));
    };
    let handle = std::thread::Builder::new().name("op".into()).spawn(run)?;
    Ok((OpQueue { jobs, bytes: Arc::new(Semaphore::new(QUEUED_BYTES)) }, handle))
}

struct OpThread {
    namespace: Namespace,
    durability: Arc<Durability>,
    activity: Arc<Activity>,
    registry: Arc<Registry>,
    queue: mpsc::Receiver<Job>,
    /// Since a commit was refused for want of room, until one succeeds: each job is a group of its own,
    /// so that what only reads is not refused together with what writes.
    cramped: bool,
}

impl OpThread {
    fn run(mut self) -> Result<(), EngineError> {
        let mut may_reclaim = true;
        loop {
            let first = match self.queue.try_recv() {
                Ok(job) => job,
                Err(mpsc::error::TryRecvError::Empty) if may_reclaim => {
                    may_reclaim = self.reclaim()?;
                    continue;
                }
                Err(_) => match self.queue.blocking_recv() {
                    Some(job) => job,
                    None => return Ok(()),
                },
            };
            let mut group = Vec::new();
            let mut next = Some(first);
            let mut stop = false;
            let most = if self.cramped { 1 } else { GROUP };
            while let Some(job) = next {
                match job {
                    Job::Op(op) => {
                        let reply = op.run(&mut self.namespace);
                        group.push(Executed::Op(op, reply));
                    }
                    Job::Call { durable, work } => {
                        let settled = work(&mut self.namespace);
                        group.push(Executed::Call { durable, settled });
                    }
                    Job::Stop => {
                        stop = true;
                        break;
                    }
                }
                next = if group.len() < most { self.queue.try_recv().ok() } else { None };
            }
            self.finish(group)?;
            if stop {
                return Ok(());
            }
            may_reclaim = true;
        }
    }

    /// Commits what was executed and lets the answers out.
    fn finish(&mut self, group: Vec<Executed>) -> Result<(), EngineError> {
        match self.commit() {
            Ok(changed) => self.deliver(group, changed),
            Err(EngineError::NoSpace) => self.finish_one_by_one(group)?,
            Err(fatal) => return Err(fatal),
        }
        push::freed_locks(self.namespace.take_freed_locks(), &self.registry);
        Ok(())
    }

    /// The disk is full and the group was undone. One by one, what only reads or deletes still works.
    fn finish_one_by_one(&mut self, group: Vec<Executed>) -> Result<(), EngineError> {
        for executed in group {
            match executed {
                Executed::Op(op, _) => {
                    let reply = op.run(&mut self.namespace);
                    match self.commit() {
                        Ok(changed) => self.deliver(vec![Executed::Op(op, reply)], changed),
                        Err(EngineError::NoSpace) => {
                            let reply = error_reply(FsError::NoSpace);
                            op.underway.end(&reply);
                            op.connection.reply(op.seq, reply);
                        }
                        Err(fatal) => return Err(fatal),
                    }
                }
                Executed::Call { settled, .. } => settled(Err(CallError::NoSpace)),
            }
        }
        Ok(())
    }

    /// True when there was something to commit.
    fn commit(&mut self) -> Result<bool, EngineError> {
        if !self.namespace.is_dirty() {
            return Ok(false);
        }
        let started = Instant::now();
        let result = self.namespace.commit();
        self.activity.commits.record(started.elapsed());
        self.activity.committed(&self.namespace);
        self.cramped = matches!(result, Err(EngineError::NoSpace));
        result.map(|()| true)
    }

    fn deliver(&self, group: Vec<Executed>, changed: bool) {
        let mut through: HashMap<u64, (Arc<Session>, u64)> = HashMap::new();
        let mut waiting = Vec::new();
        for executed in group {
            match executed {
                Executed::Op(op, reply) => {
                    let durable = op.is_durable(&reply);
                    let SessionOp { connection, seq, underway, permit, .. } = op;
                    drop(permit);
                    let session = &connection.session;
                    let progress =
                        through.entry(session.id.0).or_insert_with(|| (Arc::clone(session), 0));
                    progress.1 = progress.1.max(seq);
                    if durable {
                        waiting.push(Delivery::Reply { connection, seq, underway, reply });
                    } else {
                        underway.end(&reply);
                        connection.reply(seq, reply);
                    }
                }
                Executed::Call { durable: true, settled } => {
                    waiting.push(Delivery::Call(Box::new(move || settled(Ok(())))));
                }
                Executed::Call { durable: false, settled } => settled(Ok(())),
            }
        }
        self.durability.committed(changed, through, waiting);
    }

    fn reclaim(&mut self) -> Result<bool, EngineError> {
        let more = match self.namespace.reclaim_step() {
            Ok(more) => more,
            Err(EngineError::NoSpace) => false,
            Err(fatal) => return Err(fatal),
        };
        match self.commit() {
            Ok(changed) => self.durability.committed(changed, HashMap::new(), Vec::new()),
            Err(EngineError::NoSpace) => return Ok(false),
            Err(fatal) => return Err(fatal),
        }
        Ok(more)
    }
}

/// The reply that says `error`.
pub(crate) fn error_reply(error: FsError) -> pb::Reply {
    pb::Reply { lease: None, kind: Some(pb::reply::Kind::Error(error.into())) }
}

#[cfg(test)]
mod tests;
