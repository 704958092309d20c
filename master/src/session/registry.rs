//! The sessions and, for each, the stream that it has now.
//!
//! A session has at most one stream: a newer one replaces it. Whether a session exists is decided on
//! the op thread alone ([`Registry::open`], [`Registry::end_if_silent`] and [`Registry::end_by`] run
//! there), so that a client that comes back in the moment of its expiry is either resumed or told that
//! it was too late.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_proto::{SessionId, pb};
use tonic::Status;

use super::{WINDOW, WINDOW_HARD, outbox::Outbox};
use crate::namespace::{Namespace, SessionInfo};

/// One stream of one session.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Whose it is.
    pub(crate) session: Arc<Session>,
    /// Frames to the client.
    pub(crate) outbox: Arc<Outbox>,
    unanswered: AtomicU32,
}

impl Connection {
    /// Counts an operation that has arrived.
    ///
    /// # Errors
    /// When far more are unanswered than the client was allowed.
    pub(crate) fn arrived(&self) -> Result<(), Status> {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) < WINDOW_HARD {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "more than {WINDOW_HARD} operations are unanswered: send at most {WINDOW} at once"
        )))
    }

    /// Answers the operation `seq`.
    pub(crate) fn reply(&self, seq: u64, reply: pb::Reply) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        self.send(seq, Some(pb::server_frame::Body::Reply(reply)));
    }

    /// Sends a frame that answers no operation; without a body it only says what is durable.
    pub(crate) fn send(&self, seq: u64, body: Option<pb::server_frame::Body>) {
        let durable_below = self.session.durable_below.load(Ordering::Acquire);
        self.outbox.push(pb::ServerFrame { seq, durable_below, body });
    }
}

/// A client's session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its number.
    pub(crate) id: SessionId,
    /// Host and mount point, for people.
    pub(crate) client_name: String,
    durable_below: AtomicU64,
    state: Mutex<SessionState>,
}

#[derive(Debug)]
struct SessionState {
    connection: Option<Arc<Connection>>,
    heard: Instant,
}

impl Session {
    fn new(id: SessionId, client_name: String, now: Instant) -> Arc<Self> {
        let state = Mutex::new(SessionState { connection: None, heard: now });
        Arc::new(Self { id, client_name, durable_below: AtomicU64::new(0), state })
    }

    fn state(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something arrived from the client.
    pub(crate) fn heard(&self) {
        self.state().heard = Instant::now();
    }

    /// Every operation up to `seq` is durable. True when that is news.
    pub(crate) fn durable_through(&self, seq: u64) -> bool {
        self.durable_below.fetch_max(seq + 1, Ordering::AcqRel) < seq + 1
    }

    /// Makes `outbox` the session's stream in place of any other. `welcome` makes the first frame; no
    /// push can come before it, and none that it does not know of can be missed.
    pub(crate) fn attach(
        self: &Arc<Self>,
        outbox: Arc<Outbox>,
        welcome: impl FnOnce() -> pb::Welcome,
    ) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            session: Arc::clone(self),
            outbox,
            unanswered: AtomicU32::new(0),
        });
        let mut state = self.state();
        connection.send(0, Some(pb::server_frame::Body::Welcome(welcome())));
        state.heard = Instant::now();
        let old = state.connection.replace(Arc::clone(&connection));
        drop(state);
        if let Some(old) = old {
            old.outbox.abort(Status::aborted(
                "another stream of this session has been opened, which replaces this one",
            ));
        }
        connection
    }

    /// The stream `connection` has ended.
    pub(crate) fn detach(&self, connection: &Arc<Connection>) {
        let mut state = self.state();
        if state.connection.as_ref().is_some_and(|c| Arc::ptr_eq(c, connection)) {
            state.connection = None;
        }
    }

    /// The stream that it has now.
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        self.state().connection.clone()
    }

    /// How long nothing has been heard of it.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.state().heard)
    }
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<u64, Arc<Session>>>,
    /// Sessions from before this start that have neither resumed nor expired; `None` once settled.
    awaited: Mutex<Option<HashSet<u64>>>,
}

impl Registry {
    /// The sessions that the master knew when it started; their grace begins now.
    pub(crate) fn new(known: Vec<SessionInfo>, now: Instant) -> Self {
        let awaited = known.iter().map(|s| s.id.0).collect();
        let session = |s: SessionInfo| (s.id.0, Session::new(s.id, s.client_name, now));
        Self {
            sessions: Mutex::new(known.into_iter().map(session).collect()),
            awaited: Mutex::new(Some(awaited)),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.sessions().len()
    }

    /// One of them.
    pub(crate) fn session(&self, id: u64) -> Option<Arc<Session>> {
        self.sessions().get(&id).cloned()
    }

    /// Every session.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions().values().cloned().collect()
    }

    /// On the op thread: takes the session in, new or resumed. The operation that settles the
    /// namespace must follow when [`Registry::settled`] says so.
    pub(crate) fn open(&self, id: SessionId, client_name: &str) -> Arc<Session> {
        let now = Instant::now();
        let session = Arc::clone(
            self.sessions()
                .entry(id.0)
                .or_insert_with(|| Session::new(id, client_name.to_owned(), now)),
        );
        session.heard();
        self.no_longer_awaited(id);
        session
    }

    /// On the op thread: whether the session has been silent for `expiry` still. It is forgotten then.
    pub(crate) fn end_if_silent(&self, session: &Session, expiry: Duration) -> bool {
        if session.silence(Instant::now()) < expiry {
            return false;
        }
        self.forget(session);
        let connection = session.state().connection.take();
        if let Some(connection) = connection {
            connection.outbox.abort(Status::deadline_exceeded(
                "nothing was heard of this session for too long, so it has ended",
            ));
        }
        true
    }

    /// On the op thread: the client says over `connection` that it will not come back. False when
    /// another stream has taken the session over, so that it is not this one's to end.
    pub(crate) fn end_by(&self, connection: &Arc<Connection>) -> bool {
        let session = &connection.session;
        let current = session.connection().is_some_and(|c| Arc::ptr_eq(&c, connection));
        if current {
            self.forget(session);
        }
        current
    }

    fn forget(&self, session: &Session) {
        self.sessions().remove(&session.id.0);
        self.no_longer_awaited(session.id);
    }

    /// The end of the session could not be stored: it is known still, and its expiry tried again.
    pub(crate) fn take_back(&self, session: Arc<Session>) {
        self.sessions().entry(session.id.0).or_insert(session);
    }

    fn awaited(&self) -> MutexGuard<'_, Option<HashSet<u64>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_longer_awaited(&self, id: SessionId) {
        if let Some(awaited) = self.awaited().as_mut() {
            awaited.remove(&id.0);
        }
    }

    /// On the op thread: settles `namespace` once, as soon as nobody is awaited any more.
    pub(crate) fn settle_when_complete(&self, namespace: &mut Namespace) {
        let mut awaited = self.awaited();
        if awaited.as_ref().is_some_and(HashSet::is_empty) {
            *awaited = None;
            namespace.settle();
        }
    }

    /// This process itself was away for `away`: silence during that time proves nothing.
    pub(crate) fn forgive(&self, away: Duration) {
        let now = Instant::now();
        for session in self.all() {
            let mut state = session.state();
            state.heard = (state.heard + away).min(now);
        }
    }

    /// Ends every stream after what is in it; the sessions stay known.
    pub(crate) fn disconnect_all(&self) {
        for session in self.all() {
            if let Some(connection) = session.connection() {
                connection.outbox.finish();
            }
        }
    }
}
