//! More clients than a server has room for: they wait, its memory does not grow, and none is forgotten.

use std::{fs, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    ChunkId,
    handshake::Greeting,
    limits,
    pb::{self, storage_service_client::StorageServiceClient},
    transport,
};
use cairn_tests::{Cluster, Layout, Rng, inspect, within};
use tokio_stream::StreamExt as _;

const MIB: u64 = 1 << 20;
const CLIENTS: u64 = 40;
const BATCHES: u64 = 8;

fn one_node() -> Cluster {
    Cluster::with(Layout { nodes: 1, replicas: 1, ..Layout::default() })
}

/// A client with a connection of its own.
async fn connect(cluster: &Cluster) -> inspect::Storage {
    let address = cluster.node_address(0).to_string();
    let endpoint = transport::endpoint(&address, Duration::from_secs(5)).unwrap();
    let greeting = Greeting::new(Some(cluster.fs_uuid().parse().unwrap()), None);
    StorageServiceClient::with_interceptor(endpoint.connect().await.unwrap(), greeting)
        .max_decoding_message_size(limits::MESSAGE_MAX)
}

fn batch(seq: u64, seed: u64) -> pb::PutBatch {
    let mut rng = Rng::new(seed);
    let item = |_| {
        let data = Bytes::from(rng.bytes(65_536));
        pb::PutChunkItem { id: ChunkId::of(&data).to_wire(), data }
    };
    pb::PutBatch { seq, map_epoch: 0, chunks: (0..16).map(item).collect() }
}

#[test]
fn many_writers_at_once_wait_and_all_of_them_are_served() {
    within(300, || {
        let mut cluster = one_node();
        inspect::block_on(200, async {
            let mut writers = tokio::task::JoinSet::new();
            for n in 0..CLIENTS {
                let mut client = connect(&cluster).await;
                writers.spawn(async move {
                    let batches = (0..BATCHES).map(move |b| batch(b + 1, n * 1000 + b));
                    let replies = client.put(tokio_stream::iter(batches)).await.unwrap();
                    let replies: Vec<_> = replies.into_inner().collect().await;
                    assert_eq!(replies.len() as u64, BATCHES);
                    assert!(replies.iter().all(|r| r.as_ref().unwrap().failures.is_empty()));
                });
            }
            while let Some(writer) = writers.join_next().await {
                writer.unwrap();
            }
        });
        let peak = cluster.node(0).peak_rss() / MIB;
        eprintln!("peak resident of the node with {CLIENTS} writers: {peak} MiB");
        assert!(peak < 300, "{peak} MiB");
    });
}

#[test]
fn readers_that_take_nothing_hold_up_nobody_for_long() {
    within(300, || {
        let mut cluster = one_node();
        let content = Rng::new(8).bytes(32 << 20);
        fs::write(cluster.mount().join("f"), &content).unwrap();
        let ids: Vec<Bytes> =
            content.chunks(65_536).map(|chunk| ChunkId::of(chunk).to_wire()).collect();
        inspect::block_on(120, async {
            let mut stuck = Vec::new();
            for _ in 0..CLIENTS {
                let mut client = connect(&cluster).await;
                let ids = ids.clone();
                let batches = (1..).zip(ids.chunks(64).map(<[Bytes]>::to_vec).collect::<Vec<_>>());
                let batches = batches
                    .map(|(seq, ids)| pb::GetBatch { seq, ids, places: false })
                    .cycle()
                    .take(64);
                let batches: Vec<_> = batches.collect();
                // Answers are never looked at.
                stuck.push(client.get(tokio_stream::iter(batches)).await.unwrap());
            }
            let mut client = connect(&cluster).await;
            let wanted = pb::GetBatch { seq: 1, ids: ids[..16].to_vec(), places: false };
            let mut answers = client.get(tokio_stream::once(wanted)).await.unwrap().into_inner();
            let answer = tokio::time::timeout(Duration::from_secs(25), answers.message()).await;
            let items =
                answer.expect("a reader waits for others that take nothing").unwrap().unwrap();
            assert!(items.items.iter().all(|item| item.error.is_none()));
            drop(stuck);
        });
        let peak = cluster.node(0).peak_rss() / MIB;
        eprintln!("peak resident of the node with {CLIENTS} readers: {peak} MiB");
        assert!(peak < 450, "{peak} MiB");
        assert!(fs::read(cluster.mount().join("f")).unwrap() == content);
    });
}
