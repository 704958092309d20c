//! Putting and getting against scripted nodes: dead, silent, slow, full and damaged ones.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId, ChunkRef, ClusterMap, Codec, Compression, Ino, NodeState};
use futures_util::future::join_all;

use super::{
    Chunks, Order, RUN, Stored, Traffic, Turn,
    cache::Key,
    scripted::{Mood, StorageNode},
};
use crate::{
    config::ClientConfig,
    rpc::{
        Admin, Session,
        scripted::{CHUNK_SIZE, Master},
    },
};

/// Of a put that nothing follows.
const FIRST: Order = Order(0);
/// Of a chunk that lies anywhere.
const TURN: Turn = turn(0);

const fn turn(run: u64) -> Turn {
    Turn { run, row: None }
}

/// All of `refs`, from either node in turn.
async fn get_all(cold: &Chunks, refs: &[ChunkRef]) -> Vec<Result<Bytes, ChunkError>> {
    join_all(refs.iter().zip(0..).map(|(chunk, n)| cold.get(chunk, turn(n)))).await
}

struct Store {
    master: Master,
    nodes: Vec<StorageNode>,
    session: Session,
    config: ClientConfig,
    chunks: Chunks,
}

impl Store {
    async fn start(nodes: usize) -> Self {
        Self::with(nodes, |config| config).await
    }

    async fn with(nodes: usize, adjust: impl Fn(ClientConfig) -> ClientConfig) -> Self {
        let master = Master::start(None);
        let nodes: Vec<_> =
            (1..=nodes).map(|n| StorageNode::start(master.fs, &format!("node{n}"))).collect();
        master.script().map = Some(map(1, &nodes, &[]));
        let config = adjust(master.config());
        let session = Session::connect(&config).await.unwrap();
        let chunks = Chunks::new(session.clone(), &config);
        Self { master, nodes, session, config, chunks }
    }

    /// A client of its own, with nothing in memory.
    fn cold(&self) -> Chunks {
        Chunks::new(self.session.clone(), &self.config)
    }

    fn map(&self, epoch: u64, down: &[usize]) -> ClusterMap {
        map(epoch, &self.nodes, down)
    }

    async fn put_all(&self, count: u32) -> Vec<ChunkRef> {
        let puts = (0..count).map(|n| self.chunks.put(FIRST, data(n)));
        join_all(puts).await.into_iter().map(|s| s.unwrap().chunk).collect()
    }
}

fn map(epoch: u64, nodes: &[StorageNode], down: &[usize]) -> ClusterMap {
    let state = |i| if down.contains(&i) { NodeState::Down } else { NodeState::Up };
    let nodes = nodes.iter().enumerate().map(|(i, node)| node.entry(state(i))).collect();
    let compression = Compression::Off;
    ClusterMap { epoch, nodes, pg_bits: 10, replicas: 2, min_replicas: 1, compression }
}

fn data(n: u32) -> Bytes {
    let mut data = vec![0x5a; CHUNK_SIZE as usize];
    data[..4].copy_from_slice(&n.to_le_bytes());
    data.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_goes_to_both_nodes_and_comes_back() {
    let store = Store::start(2).await;
    // While a batch is under way, the next one fills.
    store.nodes.iter().for_each(|node| node.set(Mood::Slow(Duration::from_millis(20))));
    let refs = store.put_all(100).await;
    for node in &store.nodes {
        node.set(Mood::Good);
        let disk = node.disk();
        assert_eq!(disk.chunks.len(), 100);
        assert!(disk.puts.len() < 60, "joined into batches: {:?}", disk.puts);
        assert!(disk.puts.iter().all(|batch| batch.len() <= 16));
    }
    let cold = store.cold();
    let got = get_all(&cold, &refs).await;
    for (n, got) in (0..).zip(got) {
        assert_eq!(got.unwrap(), data(n));
    }
    let asked: Vec<usize> = store.nodes.iter().map(|n| n.disk().gets.iter().sum()).collect();
    // On a busy machine some are late and asked for twice.
    assert!((100..180).contains(&asked.iter().sum::<usize>()), "once each: {asked:?}");
    assert!(asked.iter().all(|n| *n > 20), "both are used: {asked:?}");
    cold.get(&refs[0], TURN).await.unwrap();
    let now: Vec<usize> = store.nodes.iter().map(|n| n.disk().gets.iter().sum()).collect();
    assert_eq!(now, asked, "from memory");
    let stored = store.chunks.put(FIRST, Bytes::from_static(b"x")).await.unwrap();
    let expected = ChunkRef::plain(b"x");
    assert_eq!(stored, Stored { chunk: expected, map_epoch: 1, degraded: None, gc_epoch: 1 });
    assert_eq!(store.chunks.put(FIRST, Bytes::new()).await, Err(ChunkError::BadLength));
    let large = Bytes::from(vec![0; CHUNK_SIZE as usize + 1]);
    assert_eq!(store.chunks.put(FIRST, large).await, Err(ChunkError::BadLength));
    let admin = Admin::connect(&store.config).await.unwrap();
    let node = admin.node(&store.nodes[0].entry(NodeState::Up)).unwrap();
    let missing = ChunkRef::plain(b"never put").id;
    assert_eq!(node.have(&[expected.id, missing], true).await.unwrap(), [Some(1), None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_costs_writers_and_readers_almost_nothing() {
    let mut store = Store::start(3).await;
    let before = store.put_all(64).await;
    store.master.script().after_report = Some(store.map(2, &[0]));
    store.nodes[0].kill();
    let began = Instant::now();
    let puts = join_all((100..200).map(|n| store.chunks.put(FIRST, data(n)))).await;
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    for stored in puts {
        let stored = stored.unwrap();
        assert_eq!(stored.degraded, None, "the third node takes its place");
        let holders =
            store.nodes[1..].iter().filter(|n| n.disk().chunks.contains_key(&stored.chunk.id));
        assert_eq!(holders.count(), 2);
    }
    assert!(store.master.script().reports >= 1);
    let cold = store.cold();
    let began = Instant::now();
    let got = get_all(&cold, &before).await;
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    assert!(got.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_durable_is_not_sent_again_under_the_next_map() {
    let mut store = Store::start(2).await;
    store.nodes[0].kill();
    store.master.script().after_report = Some(store.map(2, &[0]));
    let stored = store.chunks.put(FIRST, data(1)).await.unwrap();
    let group = store.map(1, &[]).group(&stored.chunk.id);
    assert_eq!((stored.map_epoch, stored.degraded), (2, Some(group)));
    assert_eq!(store.nodes[1].disk().puts, [[stored.chunk.id]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_is_given_up_soon() {
    let store = Store::start(2).await;
    let before = store.put_all(64).await;
    store.nodes[0].set(Mood::Silent);
    let cold = store.cold();
    let began = Instant::now();
    let got = get_all(&cold, &before).await;
    assert!(got.iter().all(Result::is_ok));
    assert!(began.elapsed() < Duration::from_secs(1), "readers: {:?}", began.elapsed());
    let began = Instant::now();
    cold.inner.cache.get(&Key::from(&before[0]));
    let again = store.cold();
    get_all(&again, &before).await;
    assert!(began.elapsed() < Duration::from_secs(1), "readers again: {:?}", began.elapsed());

    store.master.script().after_report = Some(store.map(2, &[0]));
    let began = Instant::now();
    let puts = join_all((100..140).map(|n| store.chunks.put(FIRST, data(n)))).await;
    assert!(puts.iter().all(|p| p.as_ref().is_ok_and(|s| s.degraded.is_some())));
    assert!(began.elapsed() < Duration::from_secs(2), "writers: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_node_gets_company_and_is_avoided_afterwards() {
    let store = Store::start(2).await;
    let refs = store.put_all(8).await;
    store.nodes[1].set(Mood::Slow(Duration::from_millis(800)));
    let cold = store.cold();
    for (chunk, n) in refs.iter().zip(0..) {
        cold.get(chunk, turn(n)).await.unwrap();
    }
    let late: usize = store.nodes[1].disk().gets.iter().sum();
    assert!(late <= 1, "asked once, then avoided: {late}");
    // A working node that is only slow keeps its puts: nobody is skipped.
    let began = Instant::now();
    let stored = store.chunks.put(FIRST, data(100)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(800));
    assert_eq!(stored.degraded, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_copy_is_never_returned() {
    let store = Store::start(2).await;
    let refs = store.put_all(32).await;
    store.nodes[0].set(Mood::Damaged);
    let cold = store.cold();
    for (n, got) in (0..).zip(get_all(&cold, &refs).await) {
        assert_eq!(got.unwrap(), data(n));
    }
    assert!(!store.nodes[0].disk().gets.is_empty(), "the damaged node was asked");
    store.nodes[1].set(Mood::Damaged);
    assert_eq!(store.cold().get(&refs[0], TURN).await, Err(ChunkError::Damaged));
    let lies = ChunkRef { stored_len: 5, logical_len: 5, ..refs[1] };
    assert_eq!(
        cold.get(&lies, TURN).await,
        Err(ChunkError::Damaged),
        "the cache knows another length"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_chunks_are_smaller_on_the_nodes_and_the_same_to_readers() {
    let store = Store::start(2).await;
    for (epoch, compression) in [(2, Compression::Lz4), (3, Compression::Zstd(3))] {
        store.master.push_map(&ClusterMap { compression, ..store.map(epoch, &[]) });
        store.session.watch_map().wait_for(|m| m.epoch == epoch).await.unwrap();
        let content = data(epoch.try_into().unwrap());
        let chunk = store.chunks.put(FIRST, content.clone()).await.unwrap().chunk;
        assert_ne!(chunk.codec, Codec::Plain);
        assert!(chunk.stored_len < 1000 && chunk.logical_len == CHUNK_SIZE, "{chunk:?}");
        assert!(store.nodes.iter().all(|n| n.disk().chunks[&chunk.id].len() < 1000));
        assert_eq!(store.chunks.cached(&chunk).as_ref(), Some(&content), "kept by the writer");
        let cold = store.cold();
        cold.prefetch([(chunk, TURN)]);
        assert_eq!(cold.get(&chunk, TURN).await.as_ref(), Ok(&content));
        assert_eq!(cold.cached(&chunk).as_ref(), Some(&content));
        // The same stored bytes as the content of a file: another chunk with the same id.
        let len = chunk.stored_len;
        let plain = ChunkRef { codec: Codec::Plain, logical_len: len, ..chunk };
        assert_eq!(cold.cached(&plain), None);
        let stored = cold.get(&plain, TURN).await.unwrap();
        assert_eq!(ChunkId::of(&stored), chunk.id);
        assert_eq!(cold.get(&chunk, TURN).await.as_ref(), Ok(&content), "not confused by it");
        // References that lie.
        let longer = ChunkRef { logical_len: CHUNK_SIZE + 1, ..chunk };
        assert_eq!(cold.get(&longer, TURN).await, Err(ChunkError::Damaged));
        let other = if chunk.codec == Codec::Lz4 { Codec::Zstd } else { Codec::Lz4 };
        let wrong = ChunkRef { codec: other, ..chunk };
        assert_eq!(cold.get(&wrong, TURN).await, Err(ChunkError::Damaged));
        let small = store.chunks.put(FIRST, Bytes::from_static(b"not worth it")).await.unwrap();
        assert_eq!(small.chunk, ChunkRef::plain(b"not worth it"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_nobody_has_is_not_found_at_once() {
    let store = Store::start(3).await;
    let began = Instant::now();
    assert_eq!(
        store.chunks.get(&ChunkRef::plain(b"nowhere"), TURN).await,
        Err(ChunkError::NotFound)
    );
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(store.nodes.iter().all(|n| n.disk().gets == [1]), "all were asked once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_nodes_dead_it_ends_at_the_deadline() {
    let mut store =
        Store::with(2, |c| ClientConfig { deadline: Duration::from_millis(1500), ..c }).await;
    let refs = store.put_all(1).await;
    store.nodes.iter_mut().for_each(StorageNode::kill);
    let cold = store.cold();
    let began = Instant::now();
    let (got, put) = tokio::join!(cold.get(&refs[0], TURN), cold.put(FIRST, data(9)));
    assert_eq!(got, Err(ChunkError::Unreachable));
    assert_eq!(put, Err(ChunkError::Unreachable));
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1400) && took < Duration::from_secs(3), "{took:?}");
    store.master.push_map(&store.map(2, &[0, 1]));
    let mut watch = store.session.watch_map();
    watch.wait_for(|m| m.epoch == 2).await.unwrap();
    assert_eq!(cold.put(FIRST, data(10)).await, Err(ChunkError::TooFewNodes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_within_the_deadline_is_used() {
    let mut store = Store::start(2).await;
    let refs = store.put_all(1).await;
    let chunk = store.nodes[1].disk().chunks.clone();
    store.nodes.iter_mut().for_each(StorageNode::kill);
    let cold = store.cold();
    let waiting = tokio::spawn(async move { cold.get(&refs[0], TURN).await });
    tokio::time::sleep(Duration::from_millis(400)).await;
    let back = StorageNode::start(store.master.fs, "node2");
    back.disk().chunks = chunk;
    let mut map = store.map(2, &[0]);
    map.nodes[1].port = back.address.port();
    store.master.push_map(&map);
    assert_eq!(waiting.await.unwrap().unwrap(), data(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_is_no_dead_node() {
    let store = Store::start(2).await;
    store.nodes[0].set(Mood::Full);
    let began = Instant::now();
    assert_eq!(store.chunks.put(FIRST, data(1)).await, Err(ChunkError::NoSpace));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(store.master.script().reports, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fetch_serves_all_and_outlives_the_first_caller() {
    let store = Store::start(2).await;
    let refs = store.put_all(1).await;
    for node in &store.nodes {
        node.set(Mood::Slow(Duration::from_millis(100)));
    }
    let cold = store.cold();
    let first = tokio::spawn({
        let (cold, chunk) = (cold.clone(), refs[0]);
        async move { cold.get(&chunk, TURN).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let others = join_all((0..10).map(|_| cold.get(&refs[0], TURN)));
    first.abort();
    assert!(others.await.iter().all(|got| got.as_ref().is_ok_and(|d| *d == data(0))));
    let asked: usize = store.nodes.iter().map(|n| n.disk().gets.iter().sum::<usize>()).sum();
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_come_from_one_node_and_the_next_ones_from_the_other() {
    let store = Store::start(2).await;
    let refs = store.put_all(3 * RUN as u32).await;
    let cold = store.cold();
    let turns = (0..).map(|index| Turn::of(Ino::ROOT, index));
    for run in refs.iter().zip(turns).collect::<Vec<_>>().chunks(RUN as usize) {
        let before: Vec<usize> = store.nodes.iter().map(|n| n.disk().gets.iter().sum()).collect();
        join_all(run.iter().map(|(chunk, turn)| cold.get(chunk, *turn))).await;
        let asked =
            store.nodes.iter().zip(before).map(|(n, b)| n.disk().gets.iter().sum::<usize>() - b);
        let mut asked: Vec<usize> = asked.collect();
        asked.sort_unstable();
        assert_eq!(asked, [0, RUN as usize]);
    }
    let all: Vec<usize> = store.nodes.iter().map(|n| n.disk().gets.iter().sum()).collect();
    assert!(all.contains(&(RUN as usize)) && all.contains(&(2 * RUN as usize)), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_in_a_row_reaches_the_nodes_in_rows() {
    let store = Store::start(2).await;
    store.nodes.iter().for_each(|node| node.set(Mood::Slow(Duration::from_millis(20))));
    let count = 20 * RUN as u32;
    let in_order = (0..count).map(|n| (n, store.chunks.order(n.into()))).collect::<Vec<_>>();
    // They get ready in whatever order.
    let shuffled = (0..count).map(|n| in_order[(n * 7 % count) as usize]);
    let puts = shuffled.map(|(n, order)| store.chunks.put(order, data(n)));
    assert!(join_all(puts).await.iter().all(Result::is_ok));
    let numbers: HashMap<_, _> = (0..count).map(|n| (ChunkId::of(&data(n)), n)).collect();
    for node in &store.nodes {
        let batches = node.disk().puts.clone();
        for batch in &batches {
            let numbers: Vec<_> = batch.iter().map(|id| numbers[id]).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
        }
        assert!(batches.len() < count as usize / 2, "{} batches", batches.len());
    }
}

#[test]
fn the_runs_of_a_file_are_those_of_the_row() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::start(1));
    let order = |index| store.chunks.order(index);
    let (first, second) = (order(5), order(6));
    assert!(first < second && first.run() == second.run());
    let beginning = order(RUN);
    assert!(second < beginning && second.run() < beginning.run());
    assert!((RUN + 1..2 * RUN).all(|index| order(index).run() == beginning.run()));
    assert_eq!(order(2 * RUN).run(), beginning.run() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_ahead_fills_the_cache_within_its_budget() {
    let store =
        Store::with(2, |c| ClientConfig { download_bytes: 40 * CHUNK_SIZE as usize, ..c }).await;
    let refs = store.put_all(64).await;
    let cold = store.cold();
    cold.prefetch(refs.iter().map(|chunk| (*chunk, TURN)));
    for _ in 0..200 {
        if (0..20).all(|n| cold.cached(&refs[n]).is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let held = refs.iter().filter(|chunk| cold.cached(chunk).is_some()).count();
    assert_eq!(held, 20, "half of the download budget");
    let asked = || store.nodes.iter().map(|n| n.disk().gets.iter().sum::<usize>()).sum::<usize>();
    assert_eq!(asked(), 20);
    cold.get(&refs[3], TURN).await.unwrap();
    assert_eq!(asked(), 20, "from memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_run_is_asked_for_at_once() {
    let store = Store::start(2).await;
    let refs = store.put_all(64).await;
    let cold = store.cold();
    let turn = |n: usize| Turn::of(Ino::ROOT, n as u64);
    cold.prefetch(refs.iter().enumerate().map(|(n, chunk)| (*chunk, turn(n))));
    for (n, chunk) in refs.iter().enumerate() {
        cold.get(chunk, turn(n)).await.unwrap();
    }
    let batches: Vec<_> = store.nodes.iter().flat_map(|n| n.disk().gets.clone()).collect();
    assert_eq!(batches, [RUN as usize; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_stay_within_their_budget() {
    let store =
        Store::with(2, |c| ClientConfig { upload_bytes: 4 * CHUNK_SIZE as usize, ..c }).await;
    for node in &store.nodes {
        node.set(Mood::Slow(Duration::from_millis(20)));
    }
    store.put_all(24).await;
    let batches = store.nodes.iter().flat_map(|n| n.disk().puts.clone());
    let most = batches.map(|batch| batch.len()).max().unwrap();
    assert!(most <= 4, "{most} chunks in one batch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_a_node_lacks_is_sent_when_it_is_asked_first() {
    let store = Store::with(2, |mut config| {
        config.ask_before_put = true;
        config
    })
    .await;
    let size = u64::from(CHUNK_SIZE);
    let refs = store.put_all(100).await;
    let sent = Traffic { sent: 100 * size, present: 0, wire: 200 * size };
    assert_eq!(store.chunks.traffic(), sent);
    store.nodes[1].disk().chunks.remove(&refs[7].id);
    let puts = |store: &Store| -> Vec<usize> {
        store.nodes.iter().map(|node| node.disk().puts.iter().map(Vec::len).sum()).collect()
    };
    assert_eq!(puts(&store), [100, 100]);
    store.nodes.iter().for_each(|node| node.disk().asks.clear());
    let again = store.cold();
    let stored = join_all((0..100).map(|n| again.put(FIRST, data(n)))).await;
    for (stored, chunk) in stored.into_iter().zip(&refs) {
        assert_eq!(
            stored.unwrap(),
            Stored { chunk: *chunk, map_epoch: 1, degraded: None, gc_epoch: 1 }
        );
    }
    let spared = Traffic { sent: size, present: 99 * size, wire: size };
    assert_eq!(again.traffic(), spared);
    assert_eq!(puts(&store), [100, 101]);
    assert!(store.nodes[1].disk().chunks.contains_key(&refs[7].id));
    for node in &store.nodes {
        let asks = &node.disk().asks;
        assert!(asks.iter().sum::<usize>() == 100 && asks.len() <= 25, "{asks:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_questions_is_treated_as_one_that_takes_no_puts() {
    let mut store = Store::with(2, |mut config| {
        config.ask_before_put = true;
        config
    })
    .await;
    store.put_all(4).await;
    store.nodes[0].kill();
    store.master.script().after_report = Some(store.map(2, &[0]));
    let stored = store.cold().put(FIRST, data(1)).await.unwrap();
    assert!(stored.degraded.is_some() && stored.map_epoch == 2);
    store.nodes[1].set(Mood::Silent);
    let mut config = store.config.clone();
    config.deadline = Duration::from_secs(2);
    let chunks = Chunks::new(store.session.clone(), &config);
    assert_eq!(chunks.put(FIRST, data(2)).await, Err(ChunkError::Unreachable));
}
