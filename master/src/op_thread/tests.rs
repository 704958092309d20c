//! What the op thread does when the disk under the engine is full or fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_proto::{FsError, SessionId, pb, status};
use tokio_stream::StreamExt;

use super::*;
use crate::{
    clock::SystemClock,
    engine::{Batch, Direction, Engine, KeyRange, Pairs, Reader, memory::MemoryEngine},
    namespace::Params,
    session::{
        outbox::{Outbox, OutboxStream},
        registry::Registry,
    },
    sync_thread,
    testing::{create, ino_of},
};

const FULL: u8 = 1;
const BROKEN: u8 = 2;

/// An engine in memory whose commits and syncs fail on demand.
#[derive(Default)]
struct FaultEngine {
    inner: MemoryEngine,
    fault: AtomicU8,
}

impl FaultEngine {
    fn check(&self) -> Result<(), EngineError> {
        match self.fault.load(Ordering::SeqCst) {
            FULL => Err(EngineError::NoSpace),
            BROKEN => Err(EngineError::Io(std::io::Error::other("the disk is gone"))),
            _ => Ok(()),
        }
    }
}

impl Reader for FaultEngine {
    fn get(&self, key: &[u8]) -> Result<Option<bytes::Bytes>, EngineError> {
        self.inner.get(key)
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Pairs<'_> {
        self.inner.scan(range, direction)
    }
}

impl Engine for FaultEngine {
    fn snapshot(&self) -> Result<Arc<dyn Reader>, EngineError> {
        self.inner.snapshot()
    }

    fn commit(&self, batch: Batch, epoch: u64) -> Result<(), EngineError> {
        self.check()?;
        self.inner.commit(batch, epoch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        if self.fault.load(Ordering::SeqCst) == BROKEN { self.check() } else { Ok(()) }
    }
}

struct Bench {
    engine: Arc<FaultEngine>,
    activity: Arc<Activity>,
    ops: OpQueue,
    connection: Arc<Connection>,
    replies: OutboxStream,
    failed: watch::Receiver<Option<String>>,
}

impl Bench {
    async fn start() -> Self {
        let engine = Arc::new(FaultEngine::default());
        let params = Params { chunk_size: 4096, clock: Arc::new(SystemClock) };
        let namespace = Namespace::open(Arc::clone(&engine) as Arc<dyn Engine>, params).unwrap();
        let (failure, failed) = watch::channel(None);
        let failure = Arc::new(failure);
        let durability = Arc::new(Durability::default());
        let syncer = namespace.syncer();
        let interval = Duration::from_millis(5);
        let activity = Arc::new(Activity::default());
        sync_thread::start(
            syncer,
            Arc::clone(&durability),
            Arc::clone(&activity),
            interval,
            Arc::clone(&failure),
        )
        .unwrap();
        let registry = Arc::new(Registry::new(vec![], Instant::now()));
        let (ops, _) =
            start(namespace, durability, Arc::clone(&activity), Arc::clone(&registry), failure)
                .unwrap();
        let id: SessionId =
            ops.call(true, |namespace| namespace.open_session("bench")).await.unwrap().unwrap();
        let session = registry.open(id, "bench");
        let (outbox, mut replies) = Outbox::new();
        let connection = session.attach(outbox, pb::Welcome::default);
        replies.next().await.unwrap().unwrap();
        Self { engine, activity, ops, connection, replies, failed }
    }

    fn set(&self, fault: u8) {
        self.engine.fault.store(fault, Ordering::SeqCst);
    }

    async fn submit(&self, seq: u64, kind: pb::op::Kind) {
        let underway = self.activity.begin(&kind);
        let op = pb::Op { caller: None, kind: Some(kind) };
        let permit = self.ops.reserve(1).await;
        let connection = Arc::clone(&self.connection);
        connection.arrived().unwrap();
        let op = SessionOp { connection, seq, acked_below: 0, op, underway, permit };
        self.ops.submit(op).await.unwrap();
    }

    async fn reply(&mut self) -> (u64, pb::reply::Kind) {
        loop {
            let frame = self.replies.next().await.unwrap().unwrap();
            if let Some(pb::server_frame::Body::Reply(reply)) = frame.body {
                return (frame.seq, reply.kind.unwrap());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_changes_and_goes_on_reading() {
    let mut bench = Bench::start().await;
    bench.set(FULL);
    let (go, wait) = std::sync::mpsc::channel();
    let ops = bench.ops.clone();
    // Holds the thread until the two operations are queued, so that all three are one group.
    let call = tokio::spawn(async move { ops.call(false, move |_| wait.recv().unwrap()).await });
    bench.submit(1, create("a")).await;
    bench.submit(2, pb::op::Kind::GetAttr(pb::GetAttr { ino: 1 })).await;
    go.send(()).unwrap();
    match bench.reply().await {
        (1, pb::reply::Kind::Error(detail)) => {
            assert_eq!(status::fs_error(&detail), FsError::NoSpace);
        }
        other => panic!("{other:?}"),
    }
    let (seq, attr) = bench.reply().await;
    assert!(seq == 2 && matches!(attr, pb::reply::Kind::Attr(_)), "{attr:?}");
    // It was in the group that failed, or before it.
    assert!(matches!(call.await.unwrap(), Ok(()) | Err(CallError::NoSpace)));
    let store = |ops: OpQueue| async move { ops.call(false, |n| n.put_node(&node())).await };
    assert_eq!(store(bench.ops.clone()).await, Err(CallError::NoSpace));
    // Calls that change nothing are answered, also when they are queued with some that do.
    let (ops, others) = (bench.ops.clone(), bench.ops.clone());
    let (writes, reads) = tokio::join!(store(others), ops.call(true, |n| n.counters().files));
    assert_eq!((writes, reads), (Err(CallError::NoSpace), Ok(0)));
    bench.set(0);
    bench.submit(1, create("a")).await;
    let (seq, entry) = bench.reply().await;
    assert_eq!(seq, 1);
    ino_of(&entry);
    assert!(bench.failed.borrow().is_none());
}

fn node() -> cairn_proto::Node {
    cairn_proto::Node {
        id: cairn_proto::NodeId(uuid::Uuid::from_u128(1)),
        host: "h".into(),
        port: 1,
        weight: 1,
        zone: String::new(),
        state: cairn_proto::NodeState::Up,
        name: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_freed_on_a_full_disk_is_freed_when_there_is_room() {
    let mut bench = Bench::start().await;
    bench.submit(1, create("a")).await;
    let ino = ino_of(&bench.reply().await.1);
    bench.ops.call(false, Namespace::settle).await.unwrap();
    let unlink = pb::Unlink { parent: 1, name: b"a"[..].into() };
    bench.submit(2, pb::op::Kind::Unlink(unlink)).await;
    bench.reply().await;
    let orphans = |ops: OpQueue| async move { ops.call(false, |n| n.counters().orphans).await };
    assert_eq!(orphans(bench.ops.clone()).await, Ok(1));
    bench.set(FULL);
    bench.submit(3, pb::op::Kind::Release(pb::Release { inodes: vec![ino] })).await;
    bench.reply().await;
    assert_eq!(orphans(bench.ops.clone()).await, Ok(1));
    bench.set(0);
    for _ in 0..1000 {
        if orphans(bench.ops.clone()).await == Ok(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the orphan stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_disk_ends_the_master_without_an_answer() {
    let mut bench = Bench::start().await;
    bench.submit(1, create("a")).await;
    ino_of(&bench.reply().await.1);
    bench.set(BROKEN);
    bench.submit(2, create("b")).await;
    let why = bench.failed.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(why.contains("the disk is gone"), "{why}");
    assert_eq!(bench.ops.call(false, |_| ()).await, Err(CallError::Stopping));
    let quiet = tokio::time::timeout(Duration::from_millis(50), bench.reply()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_master_as_well() {
    let mut bench = Bench::start().await;
    bench.submit(1, create("a")).await;
    ino_of(&bench.reply().await.1);
    bench.set(BROKEN);
    bench.submit(2, pb::op::Kind::Sync(pb::Sync {})).await;
    bench.submit(3, create("b")).await;
    bench.failed.wait_for(Option::is_some).await.unwrap();
}
