//! The sync thread: makes what the op thread committed survive power loss, and tells who waits for it.
//!
//! It syncs at once when somebody waits, otherwise at most once per interval; all who came before one
//! sync share it. Whatever the op thread hands over was committed before, so a sync that begins later
//! covers it. An error is final: the master stops, and clients send their logs to the next one.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cairn_proto::pb;

use crate::{
    activity::{Activity, Underway},
    namespace::Syncer,
    op_thread::Failure,
    session::registry::{Connection, Session},
};

/// What goes out after the next sync.
#[expect(clippy::large_enum_variant, reason = "nearly all are replies; boxes would cost more")]
pub(crate) enum Delivery {
    /// The reply to an operation.
    Reply {
        /// Where to.
        connection: Arc<Connection>,
        /// Of which operation.
        seq: u64,
        /// Counts it when it is answered.
        underway: Underway,
        /// The reply.
        reply: pb::Reply,
    },
    /// Somebody inside this process.
    Call(Box<dyn FnOnce() + Send>),
}

/// By session: the last operation that was executed.
pub(crate) type Progress = HashMap<u64, (Arc<Session>, u64)>;

#[derive(Default)]
struct State {
    changed_at: Option<Instant>,
    through: Progress,
    waiting: Vec<Delivery>,
    stop: bool,
}

/// What was committed and not yet synced.
#[derive(Default)]
pub(crate) struct Durability {
    state: Mutex<State>,
    news: Condvar,
}

impl Durability {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The op thread has committed a group. `changed` is false when the group only read.
    pub(crate) fn committed(&self, changed: bool, through: Progress, waiting: Vec<Delivery>) {
        let mut state = self.state();
        let wake = !waiting.is_empty() || (changed && state.changed_at.is_none());
        if changed {
            state.changed_at.get_or_insert_with(Instant::now);
        }
        for (id, (session, seq)) in through {
            let known = state.through.entry(id).or_insert((session, 0));
            known.1 = known.1.max(seq);
        }
        state.waiting.extend(waiting);
        drop(state);
        if wake {
            self.news.notify_one();
        }
    }

    /// How many replies wait for the next sync.
    pub(crate) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Asks the thread to end after a last sync.
    pub(crate) fn stop(&self) {
        self.state().stop = true;
        self.news.notify_one();
    }

    /// Waits until a sync is due; true in the second place: it is the last.
    fn next(&self, interval: Duration) -> (State, bool) {
        let mut state = self.state();
        loop {
            let due = state.changed_at.map(|at| at + interval);
            let now = Instant::now();
            if state.stop || !state.waiting.is_empty() || due.is_some_and(|due| due <= now) {
                let stop = state.stop;
                return (std::mem::take(&mut *state), stop);
            }
            state = match due {
                None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let waited = self.news.wait_timeout(state, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Starts the thread.
pub(crate) fn start(
    syncer: Syncer,
    durability: Arc<Durability>,
    activity: Arc<Activity>,
    interval: Duration,
    failure: Arc<Failure>,
) -> std::io::Result<JoinHandle<()>> {
    let run = move || {
        let outcome =
            catch_unwind(AssertUnwindSafe(|| run(&syncer, &durability, &activity, interval)));
        let why = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the sync thread panicked; the log has the place".to_owned(),
        };
        tracing::error!(%why, "the master cannot go on");
        failure.send_replace(Some(why));
    };
    std::thread::Builder::new().name("sync".into()).spawn(run)
}

fn run(
    syncer: &Syncer,
    durability: &Durability,
    activity: &Activity,
    interval: Duration,
) -> Result<(), crate::engine::EngineError> {
    loop {
        let (batch, stop) = durability.next(interval);
        if batch.changed_at.is_some() {
            let started = Instant::now();
            syncer.sync()?;
            activity.syncs.record(started.elapsed());
        }
        deliver(batch);
        if stop {
            return Ok(());
        }
    }
}

fn deliver(batch: State) {
    let mut news = Vec::new();
    for (session, seq) in batch.through.into_values() {
        if session.durable_through(seq) {
            news.push(session);
        }
    }
    // A reply tells its session what is durable; the others get a frame of their own.
    for delivery in batch.waiting {
        match delivery {
            Delivery::Reply { connection, seq, underway, reply } => {
                news.retain(|session| session.id != connection.session.id);
                underway.end(&reply);
                connection.reply(seq, reply);
            }
            Delivery::Call(call) => call(),
        }
    }
    for session in news {
        if let Some(connection) = session.connection() {
            connection.send(0, None);
        }
    }
}
