//! Ends of the process, power losses, failing engines: what is promised is there, and nothing twice.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use cairn_proto::SessionId;

use super::*;
use crate::engine::{Batch, Direction, EngineError, KeyRange, Pairs, Reader, fjall::FjallEngine};

/// Keeps in mind what was synced, and can be told to fail.
struct Fragile {
    rows: MemoryEngine,
    synced: Mutex<Vec<(Bytes, Bytes)>>,
    full: AtomicBool,
    crowded: AtomicBool,
}

impl Fragile {
    fn holding(synced: Vec<(Bytes, Bytes)>) -> Arc<Self> {
        let rows = MemoryEngine::new();
        let writes = synced.iter().cloned().map(|(key, value)| (key, Some(value))).collect();
        rows.commit(Batch { writes }, 0).unwrap();
        Arc::new(Self {
            rows,
            synced: Mutex::new(synced),
            full: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
        })
    }

    /// The engine that a start after power loss finds.
    fn after_power_loss(&self) -> Arc<Self> {
        Self::holding(self.synced.lock().unwrap().clone())
    }
}

impl Reader for Fragile {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.rows.get(key)
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Pairs<'_> {
        self.rows.scan(range, direction)
    }
}

impl Engine for Fragile {
    fn snapshot(&self) -> Result<Arc<dyn Reader>, EngineError> {
        self.rows.snapshot()
    }

    fn commit(&self, batch: Batch, epoch: u64) -> Result<(), EngineError> {
        if self.full.load(SeqCst) {
            return Err(EngineError::NoSpace);
        }
        self.rows.commit(batch, epoch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        let range = KeyRange { from: std::ops::Bound::Unbounded, to: std::ops::Bound::Unbounded };
        *self.synced.lock().unwrap() =
            self.rows.scan(range, Direction::Forward).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn has_room(&self) -> bool {
        !self.crowded.load(SeqCst)
    }
}

fn create(name: &'static str, ino: u64) -> op::Kind {
    op::Kind::Create(pb::Create {
        parent: ROOT,
        name: name.into(),
        mode: FILE,
        exclusive: true,
        ino,
        ..pb::Create::default()
    })
}

fn ino_of(reply: &reply::Kind) -> u64 {
    match reply {
        reply::Kind::Entry(entry) => entry.attr.unwrap().ino,
        other => panic!("{other:?}"),
    }
}

#[test]
fn replay_after_power_loss_restores_files_under_their_numbers() {
    let engine = Fragile::holding(Vec::new());
    let mut store = Store::on(Arc::clone(&engine) as _);
    let first = store.send(store.origin(1), create("synced", 0)).unwrap();
    store.ns.commit().unwrap();
    store.ns.syncer().sync().unwrap();
    let lost = store.send(store.origin(2), create("lost", 0)).unwrap();
    store.send(store.origin(3), create("never answered", 0)).unwrap();
    store.ns.commit().unwrap();

    store.engine = engine.after_power_loss();
    store.restart();
    assert_eq!(store.names(ROOT), ["synced"]);
    assert!(store.ns.resume_session(SessionId(store.session), 4, &[]).unwrap());
    // The client has the replies of 1 and 2, so its frames say `acked_below` 3.
    let origin = |seq| Origin { session: store.session, seq, acked_below: 3 };
    let (one, two, three, four) = (origin(1), origin(2), origin(3), origin(4));
    let again = store.send(one, create("synced", ino_of(&first))).unwrap();
    assert_eq!(again, first, "was not executed twice");
    let again = store.send(two, create("lost", ino_of(&lost))).unwrap();
    assert_eq!(ino_of(&again), ino_of(&lost), "the client knows it by this number");
    store.send(three, create("never answered", 0)).unwrap();
    let new = store.send(four, create("new", ino_of(&lost))).unwrap();
    assert!(ino_of(&new) > 60_000, "numbers of the lost range are not handed out again");
    assert_eq!(store.names(ROOT), ["lost", "never answered", "new", "synced"]);
    store.check();
}

#[test]
fn versions_never_name_two_states() {
    let engine = Fragile::holding(Vec::new());
    let mut store = Store::on(Arc::clone(&engine) as _);
    let ino = store.file(ROOT, "f");
    store.ns.commit().unwrap();
    store.ns.syncer().sync().unwrap();
    let mut lost = Vec::new();
    for i in 0..5 {
        lost.push(store.write(ino, &[(0, chunk(i, 10))], 10).attr.unwrap().data_version);
    }
    store.ns.commit().unwrap();
    store.engine = engine.after_power_loss();
    store.restart();
    let new = store.write(ino, &[(0, chunk(9, 10))], 10).attr.unwrap().data_version;
    assert!(lost.iter().all(|version| *version < new), "{lost:?} {new}");
}

#[test]
fn numbers_only_grow_over_power_losses() {
    let mut engine = Fragile::holding(Vec::new());
    let mut last = (0, 0, 0);
    for _ in 0..4 {
        let mut store = Store::on(Arc::clone(&engine) as _);
        let map = store.ns.next_map_epoch().unwrap();
        let ino = store.create(ROOT, &format!("{}", last.0), FILE).unwrap().ino;
        let now = (store.ns.incarnation(), map, ino);
        assert!(now.0 > last.0 && now.1 > last.1 && now.2 > last.2, "{last:?} {now:?}");
        store.ns.commit().unwrap();
        last = now;
        engine = engine.after_power_loss();
    }
}

#[test]
fn a_full_disk_fails_the_group_and_nothing_else() {
    let engine = Fragile::holding(Vec::new());
    let mut store = Store::on(Arc::clone(&engine) as _);
    store.file(ROOT, "before");
    store.ns.commit().unwrap();
    let counters = store.ns.counters();
    engine.full.store(true, SeqCst);
    store.file(ROOT, "during");
    store.ns.open_session("x").unwrap();
    assert!(matches!(store.ns.commit(), Err(EngineError::NoSpace)));
    assert_eq!(store.ns.counters(), counters);
    assert_eq!(store.names(ROOT), ["before"]);
    assert_eq!(store.ns.sessions().len(), 1);
    engine.full.store(false, SeqCst);
    store.file(ROOT, "after");
    store.check();
}

#[test]
fn with_little_room_only_what_frees_goes_on() {
    let engine = Fragile::holding(Vec::new());
    let mut store = Store::on(Arc::clone(&engine) as _);
    let ino = store.file(ROOT, "f");
    engine.crowded.store(true, SeqCst);
    assert_eq!(store.create(ROOT, "g", FILE), Err(FsError::NoSpace));
    assert_eq!(store.ns.announce("h", &[], &[], 1), Err(FsError::NoSpace));
    let commit = pb::Commit { ino, ..pb::Commit::default() };
    assert_eq!(store.commit_file(commit), Err(FsError::NoSpace));
    store.set_size(ino, 0).unwrap();
    store.unlink(ROOT, "f").unwrap();
    store.check();
}

#[test]
fn an_older_master_is_fenced_off() {
    let mut old = Store::new();
    old.file(ROOT, "first");
    old.ns.commit().unwrap();
    let mut new = Store::on(Arc::clone(&old.engine));
    new.file(ROOT, "new");
    new.ns.commit().unwrap();
    old.file(ROOT, "old");
    assert!(matches!(old.ns.commit(), Err(EngineError::Fenced { .. })));
    assert_eq!(new.names(ROOT), ["first", "new"]);
}

#[test]
fn newer_formats_and_other_chunk_sizes_are_refused() {
    use prost::Message;

    use crate::tables::{keys, rows::SchemaRow};
    let store = Store::new();
    let open = |chunk_size| {
        let params = Params { chunk_size, clock: Arc::clone(&store.clock) as _ };
        Namespace::open(Arc::clone(&store.engine), params).err().unwrap().to_string()
    };
    assert!(open(8192).contains("chunks of 4096 bytes"), "{}", open(8192));
    let row = SchemaRow { version: 2, chunk_size: CHUNK }.encode_to_vec();
    let writes = [(keys::schema(), Some(row.into()))].into();
    store.engine.commit(Batch { writes }, 100).unwrap();
    assert!(open(CHUNK).contains("use a newer cairn-master"), "{}", open(CHUNK));
}

#[test]
fn everything_is_there_after_reopening_fjall() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta");
    let open = || Arc::new(FjallEngine::open(&path, Default::default()).unwrap());
    let mut store = Store::on(open());
    let dir = store.mkdir(ROOT, "d");
    for i in 0..200 {
        let ino = store.file(dir, &format!("f{i}"));
        store.write(ino, &[(0, chunk(i, 4096)), (i + 1, chunk(i, 4096))], (i + 2) * 4096);
        if i % 16 == 0 {
            store.ns.commit().unwrap();
        }
    }
    store.check();
    let (session, seq) = (store.session, store.seq);
    let reply = store.send(store.origin(seq + 1), create("last", 0)).unwrap();
    store.ns.commit().unwrap();
    let clock = Arc::clone(&store.clock);
    drop(store);

    let engine: Arc<dyn Engine> = open();
    let params = Params { chunk_size: CHUNK, clock: Arc::clone(&clock) as _ };
    let ns = Namespace::open(Arc::clone(&engine), params).unwrap();
    let mut store = Store { engine, clock, ns, session, seq: seq + 1 };
    assert_eq!(store.send(store.origin(seq + 1), create("last", 0)).unwrap(), reply);
    assert_eq!(store.names(dir).len(), 200);
    let ino = store.lookup(dir, "f150").unwrap().ino;
    assert_eq!(store.manifest(ino), [(0, chunk(150, 4096)), (151, chunk(150, 4096))]);
    store.check();
}
