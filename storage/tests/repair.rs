//! Real nodes that fetch from each other and let go of what others hold.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{
    ChunkId, Group,
    handshake::Greeting,
    limits::MESSAGE_MAX,
    pb::{self, storage_service_client::StorageServiceClient},
    transport,
};
use cairn_storage::{
    config::Config,
    format::{NewNode, format},
    server::{self, Running},
};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::{Code, service::interceptor::InterceptedService, transport::Channel};
use uuid::Uuid;

const FS: Uuid = Uuid::from_u128(5);
const CHUNK_SIZE: u32 = 65536;
const PATIENCE: Duration = Duration::from_secs(60);
const PG_BITS: u32 = 2;

type Client = StorageServiceClient<InterceptedService<Channel, Greeting>>;

/// A node that runs, with a client of it.
struct TestNode {
    _tmp: TempDir,
    dir: PathBuf,
    running: Option<Running>,
    client: Client,
    wire: pb::Node,
}

async fn serve(dir: &Path) -> Running {
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        segment_bytes: 4 << 20,
        ..Config::new(vec![dir.to_owned()], "127.0.0.1:1")
    };
    server::start(config).await.unwrap()
}

impl TestNode {
    async fn start(name: &str) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("node");
        let data = vec![dir.clone()];
        format(&NewNode { data, fs: FS, node: None, name: name.into(), chunk_size: CHUNK_SIZE })
            .unwrap();
        let running = serve(&dir).await;
        let greeting = Greeting::new(Some(FS), None);
        let address = running.address.to_string();
        let endpoint = transport::endpoint(&address, Duration::from_secs(5)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let client = StorageServiceClient::with_interceptor(channel, greeting)
            .max_decoding_message_size(MESSAGE_MAX);
        let wire = pb::Node {
            node_id: running.node_id.to_string(),
            host: "127.0.0.1".into(),
            port: running.address.port().into(),
            weight: 1,
            name: name.into(),
            ..pb::Node::default()
        };
        Self { _tmp: tmp, dir, running: Some(running), client, wire }
    }

    async fn put(&mut self, seeds: impl IntoIterator<Item = u32>) {
        for seed in seeds {
            let chunk = chunk(seed);
            let chunk_id = ChunkId::of(&chunk).to_string();
            self.client.put_chunk(pb::PutChunkRequest { chunk_id, data: chunk }).await.unwrap();
        }
    }

    async fn digests(&mut self) -> Vec<pb::GroupDigest> {
        let request = pb::GroupDigestsRequest { pg_bits: PG_BITS };
        self.client.group_digests(request).await.unwrap().into_inner().groups
    }

    async fn status(&mut self) -> pb::NodeStatusResponse {
        self.client.node_status(pb::NodeStatusRequest {}).await.unwrap().into_inner()
    }

    async fn listed(&mut self) -> HashSet<ChunkId> {
        let request = pb::ListChunksRequest { limit: 4096, ..Default::default() };
        let page = self.client.list_chunks(request).await.unwrap().into_inner();
        assert!(page.end);
        page.chunks.iter().map(|c| ChunkId::try_from(c.id.as_ref()).unwrap()).collect()
    }

    /// Pulls all groups and gives the messages.
    async fn pull(&mut self, sources: &[pb::Node]) -> Vec<pb::PullProgress> {
        let request = pb::PullRequest {
            pg_bits: PG_BITS,
            groups: (0..Group::count(PG_BITS)).collect(),
            sources: sources.to_vec(),
            bytes_per_second: 0,
        };
        let answers = self.client.pull_groups(request).await.unwrap().into_inner();
        timeout(PATIENCE, answers.map(Result::unwrap).collect()).await.unwrap()
    }

    async fn drop_group(
        &mut self,
        group: u32,
        homes: &[&TestNode],
    ) -> Result<pb::DropResponse, tonic::Status> {
        let homes = homes.iter().map(|home| home.wire.clone()).collect();
        let request = pb::DropRequest { pg_bits: PG_BITS, group, homes, map_epoch: 0 };
        Ok(self.client.drop_group(request).await?.into_inner())
    }

    /// Flips a bit of a stored chunk.
    fn damage(&self, seed: u32) {
        let data = chunk(seed);
        for entry in fs::read_dir(self.dir.join("segments")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let Some(at) = bytes.windows(data.len()).position(|w| w == &data[..]) else { continue };
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 0x40], at as u64).unwrap();
            return;
        }
        panic!("chunk {seed} is in no segment");
    }

    async fn stop(mut self) {
        self.running.take().unwrap().stop().await;
    }
}

fn chunk(seed: u32) -> Bytes {
    let len = 1000 + (seed as usize * 7919) % 20_000;
    (0..len).map(|i| (i as u32 * 31 + seed * 17 + (i as u32 >> 8) * seed) as u8).collect()
}

fn ids(seeds: impl IntoIterator<Item = u32>) -> HashSet<ChunkId> {
    seeds.into_iter().map(|seed| ChunkId::of(&chunk(seed))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_brings_what_any_source_has_although_one_is_dead() {
    let mut one = TestNode::start("one").await;
    let mut two = TestNode::start("two").await;
    let mut new = TestNode::start("new").await;
    let dead = TestNode::start("dead").await;
    one.put(0..120).await;
    two.put(80..200).await;
    new.put(190..210).await;
    let sources = [one.wire.clone(), dead.wire.clone(), two.wire.clone()];
    dead.stop().await;
    let messages = new.pull(&sources).await;
    let last = messages.last().unwrap();
    assert!(last.done);
    assert_eq!((last.chunks_pulled, last.chunks_missing), (190, 0), "{messages:?}");
    assert_eq!(messages.iter().filter(|m| m.group_done).count(), 4);
    let failures: Vec<_> = messages.iter().flat_map(|m| &m.failures).collect();
    assert!(failures.len() == 1 && failures[0].contains("dead"), "{failures:?}");
    assert_eq!(new.listed().await, ids(0..210));
    // Nothing to do any more, and nothing is fetched again.
    assert_eq!(new.pull(&sources[..1]).await.last().unwrap().chunks_pulled, 0);
    let new_wire = new.wire.clone();
    one.pull(std::slice::from_ref(&new_wire)).await;
    two.pull(&[new_wire]).await;
    assert_eq!(one.digests().await, new.digests().await);
    assert_eq!(one.digests().await, two.digests().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_never_copied_and_the_source_learns_of_it() {
    let mut one = TestNode::start("one").await;
    let mut two = TestNode::start("two").await;
    let mut new = TestNode::start("new").await;
    one.put(0..40).await;
    two.put(0..20).await;
    // The first has another copy, the second has none.
    one.damage(5);
    one.damage(30);
    let sources = [one.wire.clone(), two.wire.clone()];
    let messages = new.pull(&sources).await;
    let mut expected = ids(0..40);
    expected.remove(&ChunkId::of(&chunk(30)));
    assert_eq!(new.listed().await, expected);
    let failures: Vec<_> = messages.iter().flat_map(|m| &m.failures).collect();
    assert!(failures.iter().any(|f| f.contains("damaged on one")), "{failures:?}");
    assert_eq!(messages.last().unwrap().chunks_missing, 1);
    let told = one.status().await;
    assert!((1..=2).contains(&told.damaged_chunks), "{}", told.damaged_chunks);
    // The good copy heals the source.
    let read = |seed| pb::GetChunkRequest { chunk_id: ChunkId::of(&chunk(seed)).to_string() };
    assert_eq!(one.client.get_chunk(read(5)).await.unwrap_err().code(), Code::DataLoss);
    one.pull(&[new.wire.clone()]).await;
    assert_eq!(one.client.get_chunk(read(5)).await.unwrap().into_inner().data, chunk(5));
    let told = one.status().await;
    assert_eq!(told.damaged_chunks, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_every_home_has_is_dropped() {
    let mut old = TestNode::start("old").await;
    let mut one = TestNode::start("one").await;
    let mut two = TestNode::start("two").await;
    old.put(0..100).await;
    one.put(0..90).await;
    two.put(10..100).await;
    let before = old.listed().await;
    let refused = old.drop_group(0, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut dropped = pb::DropResponse::default();
    for group in 0..Group::count(PG_BITS) {
        let gone = old.drop_group(group, &[&one, &two]).await.unwrap();
        dropped.chunks_dropped += gone.chunks_dropped;
        dropped.bytes_dropped += gone.bytes_dropped;
        dropped.chunks_kept += gone.chunks_kept;
    }
    let bytes: usize = (10..90).map(|seed| chunk(seed).len()).sum();
    let expected =
        pb::DropResponse { chunks_dropped: 80, bytes_dropped: bytes as u64, chunks_kept: 20 };
    assert_eq!(dropped, expected);
    let kept = ids((0..10).chain(90..100));
    assert_eq!(old.listed().await, kept);
    assert!(before.len() > kept.len());
    assert_eq!(old.digests().await.iter().map(|g| g.chunks).sum::<u64>(), 20);
    // A home that cannot be asked confirms nothing.
    let gone = pb::Node { port: 1, ..one.wire.clone() };
    let request = pb::DropRequest { pg_bits: PG_BITS, group: 0, homes: vec![gone], map_epoch: 0 };
    assert_eq!(old.client.drop_group(request).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(old.listed().await, kept);
    // It is as if they had never been there: they can be put and pulled again.
    old.put(10..20).await;
    old.pull(&[one.wire.clone(), two.wire.clone()]).await;
    assert_eq!(old.listed().await, ids(0..100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_nobody_listens_to_ends() {
    let mut one = TestNode::start("one").await;
    let mut new = TestNode::start("new").await;
    one.put(0..100).await;
    // So slow that it would take minutes.
    let request = pb::PullRequest {
        pg_bits: 0,
        groups: vec![0],
        sources: vec![one.wire.clone()],
        bytes_per_second: 4096,
    };
    for _ in 0..20 {
        // More calls one after the other than may be at once: each that is cancelled ends.
        let call = async {
            loop {
                match new.client.pull_groups(request.clone()).await {
                    Ok(answers) => break answers.into_inner(),
                    Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
                }
                tokio::task::yield_now().await;
            }
        };
        let mut answers = timeout(PATIENCE, call).await.unwrap();
        answers.message().await.unwrap().unwrap();
    }
    assert!(new.listed().await.len() < 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_refused() {
    let mut node = TestNode::start("one").await;
    let bits = pb::GroupDigestsRequest { pg_bits: 17 };
    assert_eq!(node.client.group_digests(bits).await.unwrap_err().code(), Code::InvalidArgument);
    let group = pb::PullRequest { pg_bits: 2, groups: vec![4], ..Default::default() };
    assert_eq!(node.client.pull_groups(group).await.unwrap_err().code(), Code::InvalidArgument);
    let itself = pb::DropRequest { homes: vec![node.wire.clone()], ..Default::default() };
    assert_eq!(node.client.drop_group(itself).await.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrub_finds_damage_tells_it_and_the_other_copy_heals_it() {
    let mut one = TestNode::start("one").await;
    let mut two = TestNode::start("two").await;
    one.put(0..60).await;
    two.put(0..60).await;
    assert_eq!(one.digests().await, two.digests().await);
    for seed in 0..20 {
        one.damage(seed);
        two.damage(40 + seed);
    }
    for node in [&mut one, &mut two] {
        let before = node.status().await.scrub.unwrap().passes;
        node.client.scrub(pb::ScrubRequest {}).await.unwrap();
        let through = async {
            while node.status().await.scrub.unwrap().passes == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, through).await.unwrap();
        let status = node.status().await;
        let scrub = status.scrub.unwrap();
        assert_eq!((status.damaged_chunks, scrub.damaged_found), (20, 20));
        assert_eq!((scrub.chunks_checked, scrub.running), (60, false));
        assert_eq!(node.digests().await.iter().map(|g| g.chunks).sum::<u64>(), 40);
    }
    let (first, second) = (one.wire.clone(), two.wire.clone());
    one.pull(&[second]).await;
    two.pull(&[first]).await;
    for node in [&mut one, &mut two] {
        assert_eq!(node.status().await.damaged_chunks, 0);
        for seed in 0..60 {
            let chunk_id = ChunkId::of(&chunk(seed)).to_string();
            let read = node.client.get_chunk(pb::GetChunkRequest { chunk_id }).await.unwrap();
            assert_eq!(read.into_inner().data, chunk(seed));
        }
    }
    assert_eq!(one.digests().await, two.digests().await);
}
