//! [`Session`]: operations on the namespace, executed exactly once, in the order in which they were
//! given, across lost connections and restarts of the master.
//!
//! Callers put operations into the log under a short lock and wait for a oneshot; the connection's
//! [`Outgoing`](super::outgoing::Outgoing) takes them from there; the [`driver`] delivers answers.
//! Room in the log is a semaphore in units of [`ROOM_UNIT`] bytes, so neither the number nor the size
//! of operations that wait, are under way or are not yet durable is unbounded.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_proto::{ClusterMap, Compression, FsError, Ino, NodeId, pb, pb::op::Kind};
use prost::Message;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use uuid::Uuid;

use super::{
    connect::{self, ConnectError},
    driver::{self, Identity},
    lock_waits::{LockWait, LockWaits},
    log::Queued,
    outgoing::State,
};
use crate::config::ClientConfig;

/// Room in the log is counted in units of this many bytes of encoded operation.
const ROOM_UNIT: usize = 4096;
/// Units of room: at most so many operations, 32 MiB of them.
const ROOM: usize = 8192;
/// A caller that waits for room asks the master this often what has become durable.
const ROOM_PING: Duration = Duration::from_millis(50);
/// How long a clean end may take.
const CLOSE: Duration = Duration::from_secs(5);
/// How long the driver may take to end after that; a little more than it waits for the master.
const FAREWELL: Duration = Duration::from_millis(700);

/// On whose behalf an operation is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, for messages only.
    pub pid: u32,
}

/// The master's answer to an operation that did not fail.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Never `Error`: that is what `Err` is for.
    pub kind: pb::reply::Kind,
    /// How long the answer may be relied on.
    pub lease: pb::Lease,
}

/// What all clones of a session, its callers and its driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) fs: Uuid,
    pub(crate) chunk_size: u32,
    pub(crate) generation: watch::Sender<u64>,
    /// Told when nothing is unanswered, and when the driver ends.
    pub(crate) quiet: Notify,
    /// Tells the driver to end.
    pub(crate) stop: Notify,
    /// Connections after the first.
    pub(crate) reconnects: AtomicU64,
    pub(crate) lock_waits: Arc<LockWaits>,
    map: watch::Sender<Arc<ClusterMap>>,
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it ever did, the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes a newer map, or (`force`) whatever a restarted master says.
    pub(crate) fn take_map(&self, map: ClusterMap, force: bool) {
        self.map.send_if_modified(|current| {
            let take = map.epoch > current.epoch || (force && map.epoch != current.epoch);
            if take {
                *current = Arc::new(map);
            }
            take
        });
    }

    /// Gives the operation to the stream. Nobody waits for a release: it goes out together with the
    /// next operation, at the latest with the next ping, and costs no wake-ups of its own.
    fn push(&self, queued: Queued, fence: Option<u64>) -> Result<(), FsError> {
        let urgent = !matches!(queued.op.kind, Some(Kind::Release(_)));
        let mut state = self.lock();
        // The generation changes under this lock.
        if state.closing || fence.is_some_and(|fence| fence != *self.generation.borrow()) {
            return Err(FsError::Stale);
        }
        state.log.push(queued);
        let waker = if urgent { state.wake() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Nobody here waits for the lock that the master keeps: somebody else may have it.
    pub(crate) fn decline_lock(&self, freed: pb::LockFree) {
        let kind = Kind::CancelLock(pb::CancelLock { ino: freed.ino, wait_id: freed.wait_id });
        let op = pb::Op { caller: None, kind: Some(kind) };
        // A closed session waits for nothing.
        let _ = self.push(Queued { op, reply: None, room: None, fenced: true }, None);
    }

    fn ping(&self) {
        let waker = self.lock().ping();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn end(&self, goodbye: bool) {
        let waker = self.lock().end(goodbye);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.stop.notify_one();
        self.room.close();
    }
}

/// Ends the driver when the last clone of the session is gone.
struct LastOne(Arc<Shared>);

impl Drop for LastOne {
    fn drop(&mut self) {
        self.0.end(false);
    }
}

/// A client's session with the master. Clones share it.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    root: Ino,
    _last: Arc<LastOne>,
}

impl Session {
    /// Greets the master, learns the file system's parameters and opens a session.
    ///
    /// # Errors
    /// A sentence that says why it cannot be had. Nothing is retried here.
    pub async fn connect(config: &ClientConfig) -> Result<Self, ConnectError> {
        let (hello, fs, channel) = connect::greet_master(config).await?;
        let nothing = ClusterMap {
            epoch: 0,
            nodes: Vec::new(),
            pg_bits: 0,
            replicas: 1,
            min_replicas: 1,
            compression: Compression::Off,
        };
        let shared = Arc::new(Shared {
            config: config.clone(),
            fs,
            chunk_size: hello.chunk_size,
            generation: watch::Sender::new(0),
            quiet: Notify::new(),
            stop: Notify::new(),
            reconnects: AtomicU64::new(0),
            lock_waits: Arc::default(),
            map: watch::Sender::new(Arc::new(nothing)),
            room: Arc::new(Semaphore::new(ROOM)),
            state: Mutex::new(State::new()),
        });
        let mut identity = Identity::default();
        let (link, welcome) = driver::open(&shared, &mut identity, channel).await?;
        let root = Ino::new(welcome.root_ino).unwrap_or(Ino::ROOT);
        tokio::spawn(driver::run(shared.clone(), identity, link));
        Ok(Self { root, _last: Arc::new(LastOne(shared.clone())), shared })
    }

    /// Executes `op` and waits for the answer, at most the configured deadline.
    ///
    /// Cancel-safe: an operation that has been sent is completed whether or not its caller waits for
    /// it; one that has not been sent when its caller goes away never is.
    ///
    /// Inodes held open are tracked here: a successful `Open` or `Create{open}` adds, a posted
    /// `Release` removes, and a resumed session tells the master what is in the set. If the caller of
    /// an `Open` has gone when the answer comes, the inode is released again (unless it was already
    /// open). So: post `Release` when the last handle is gone and no `Open` of that inode is under way.
    ///
    /// # Errors
    /// What the master answers; `TimedOut` at the deadline (a mutation that was sent may still happen
    /// later); `Stale` for a mutation that was under way when the session was lost, and for everything
    /// once the session is closed.
    pub async fn call(&self, caller: Caller, op: Kind) -> Result<Answered, FsError> {
        self.call_fenced(None, caller, op).await
    }

    /// As [`Session::call`], but with a `fence` only within the session of that generation: what relies
    /// on a lock, or sets one, means nothing in another.
    ///
    /// # Errors
    /// As [`Session::call`]; `Stale` when the session is another, or becomes so before the answer.
    pub async fn call_fenced(
        &self,
        fence: Option<u64>,
        caller: Caller,
        op: Kind,
    ) -> Result<Answered, FsError> {
        let deadline = Instant::now() + self.shared.config.deadline;
        self.call_until(deadline, fence, caller, op).await
    }

    /// Begins to wait for a lock.
    pub fn wait_for_lock(&self) -> LockWait {
        self.shared.lock_waits.begin()
    }

    async fn call_until(
        &self,
        deadline: Instant,
        fence: Option<u64>,
        caller: Caller,
        op: Kind,
    ) -> Result<Answered, FsError> {
        let caller = pb::Caller { uid: caller.uid, gid: caller.gid, pid: caller.pid };
        let op = pb::Op { caller: Some(caller), kind: Some(op) };
        let room = timeout_at(deadline, self.room(room_for(&op)));
        let room = room.await.map_err(|_| FsError::TimedOut)??;
        let (reply, answer) = oneshot::channel();
        let fenced = fence.is_some();
        self.shared.push(Queued { op, reply: Some(reply), room: Some(room), fenced }, fence)?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(FsError::Stale),
            Err(_) => Err(FsError::TimedOut),
        }
    }

    /// Room in the log. What fills it may only wait for the news that it is durable, so ask for it.
    async fn room(&self, units: u32) -> Result<OwnedSemaphorePermit, FsError> {
        // Not by way of the scheduler when there is room: the order of calls is the order given.
        if let Ok(room) = self.shared.room.clone().try_acquire_many_owned(units) {
            return Ok(room);
        }
        let room = self.shared.room.clone().acquire_many_owned(units);
        tokio::pin!(room);
        loop {
            match timeout(ROOM_PING, &mut room).await {
                Ok(Ok(room)) => return Ok(room),
                Ok(Err(_)) => return Err(FsError::Stale),
                Err(_) => self.shared.ping(),
            }
        }
    }

    /// Sends `op` without waiting for an answer, after all operations given before and before all
    /// given later. Meant for `Release`, which is never dropped; another operation is dropped when the
    /// log is full.
    pub fn post(&self, op: Kind) {
        let release = matches!(op, Kind::Release(_));
        let op = pb::Op { caller: None, kind: Some(op) };
        // Releases need no room: there are no more of them than inodes that were opened, and they
        // are joined into one while they wait.
        let room = self.shared.room.clone().try_acquire_many_owned(room_for(&op)).ok();
        if room.is_some() || release {
            // A closed session holds nothing open, so there is nothing to release.
            let _ = self.shared.push(Queued { op, reply: None, room, fenced: false }, None);
        }
    }

    /// Tells the master that `node` cannot be reached, so that it looks for itself.
    pub(crate) fn report_node(&self, node: NodeId, map_epoch: u64, why: &str) {
        let report = pb::ReportNode { node_id: node.to_string(), map_epoch, why: why.to_owned() };
        self.post(Kind::ReportNode(report));
    }

    /// The newest cluster map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.shared.map.borrow().clone()
    }

    /// Follows the cluster map.
    pub fn watch_map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.shared.map.subscribe()
    }

    /// The file system's chunk size in bytes.
    pub fn chunk_size(&self) -> u32 {
        self.shared.chunk_size
    }

    /// The file system's UUID.
    pub fn fs_uuid(&self) -> Uuid {
        self.shared.fs
    }

    /// The root directory.
    pub fn root(&self) -> Ino {
        self.root
    }

    /// Grows whenever the session was lost and a new one had to be opened: nothing that is cached
    /// about attributes, names or manifests may be trusted any longer.
    pub fn session_generation(&self) -> u64 {
        *self.shared.generation.borrow()
    }

    /// Follows [`Session::session_generation`].
    pub fn watch_generation(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// Whether the master can be spoken to now.
    pub fn is_connected(&self) -> bool {
        self.shared.lock().is_ready()
    }

    /// How often the connection was made again after it had been lost.
    pub fn reconnects(&self) -> u64 {
        self.shared.reconnects.load(Ordering::Relaxed)
    }

    /// How many operations have no answer yet.
    pub fn unanswered(&self) -> usize {
        self.shared.lock().log.unanswered()
    }

    /// Whether everything that was answered so far is known to be power-safe on the master.
    pub fn is_durable(&self) -> bool {
        self.shared.lock().log.is_durable()
    }

    /// Waits until every operation given before is power-safe on the master.
    ///
    /// # Errors
    /// `TimedOut` at the deadline.
    pub async fn sync(&self) -> Result<(), FsError> {
        self.call(Caller::default(), Kind::Sync(pb::Sync {})).await.map(|_| ())
    }

    /// Ends the session for all clones: what was given is sent, answered and made power-safe (within
    /// a few seconds), the master is told that nobody will come back, the stream is closed. Operations
    /// given later fail with `Stale`.
    pub async fn close(self) {
        let deadline = Instant::now() + CLOSE;
        let sync = Kind::Sync(pb::Sync {});
        if let Err(error) = self.call_until(deadline, None, Caller::default(), sync).await {
            tracing::warn!(%error, "the session ends without the master's word that all is safe");
        }
        self.shared.lock().closing = true;
        let _ = timeout_at(deadline, self.until(|state| state.log.is_idle())).await;
        self.shared.end(true);
        // A process may end right after this, so the goodbye has to be on its way.
        let _ = timeout(FAREWELL, self.until(|state| state.gone)).await;
    }

    async fn until(&self, done: impl Fn(&State) -> bool) {
        loop {
            let told = self.shared.quiet.notified();
            if done(&self.shared.lock()) {
                return;
            }
            told.await;
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("shared", &self.shared).finish_non_exhaustive()
    }
}

fn room_for(op: &pb::Op) -> u32 {
    let units = op.encoded_len().div_ceil(ROOM_UNIT).clamp(1, ROOM);
    u32::try_from(units).expect("bounded by ROOM")
}
