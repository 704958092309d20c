//! A real node and a real gRPC client in one process: streams, plain calls, bad input, restarts.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{
    ChunkError, ChunkId,
    handshake::{Greeting, Token},
    limits::MESSAGE_MAX,
    pb::{self, storage_service_client::StorageServiceClient},
    status, transport,
};
use cairn_storage::{
    config::Config,
    format::{NewNode, format},
    server::{self, Running, StartError},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, service::interceptor::InterceptedService, transport::Channel};
use uuid::Uuid;

const FS: Uuid = Uuid::from_u128(5);
const CHUNK_SIZE: u32 = 65536;

type Client = StorageServiceClient<InterceptedService<Channel, Greeting>>;

/// A formatted directory and how to serve it.
struct Home {
    _tmp: TempDir,
    dir: PathBuf,
}

impl Home {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("node");
        let new = NewNode {
            data: vec![dir.clone()],
            fs: FS,
            node: None,
            name: "node1".into(),
            chunk_size: CHUNK_SIZE,
        };
        format(&new).unwrap();
        Self { _tmp: tmp, dir }
    }

    fn config(&self) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            segment_bytes: 8 << 20,
            ..Config::new(vec![self.dir.clone()], "127.0.0.1:1")
        }
    }

    async fn start(&self) -> Running {
        server::start(self.config()).await.unwrap()
    }
}

async fn connect_with(node: &Running, greeting: Greeting) -> Client {
    let endpoint = transport::endpoint(&node.address.to_string(), Duration::from_secs(5)).unwrap();
    StorageServiceClient::with_interceptor(endpoint.connect().await.unwrap(), greeting)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(usize::MAX)
}

async fn connect(node: &Running) -> Client {
    connect_with(node, Greeting::new(Some(FS), None)).await
}

fn chunk(seed: u32) -> pb::PutChunkItem {
    let len = 1 + (seed as usize * 7919) % CHUNK_SIZE as usize;
    let data: Bytes = (0..len).map(|i| (i as u32 * 31 + seed * 17) as u8).collect();
    pb::PutChunkItem { id: ChunkId::of(&data).to_wire(), data }
}

fn batch(seq: u64, seeds: std::ops::Range<u32>) -> pb::PutBatch {
    pb::PutBatch { seq, map_epoch: 0, chunks: seeds.map(chunk).collect() }
}

async fn put_batches(client: &mut Client, batches: Vec<pb::PutBatch>) -> Vec<pb::PutBatchReply> {
    let replies = client.put(tokio_stream::iter(batches)).await.unwrap().into_inner();
    let mut replies: Vec<_> = replies.map(Result::unwrap).collect().await;
    replies.sort_by_key(|r| r.seq);
    replies
}

async fn get_batches(client: &mut Client, batches: Vec<pb::GetBatch>) -> Vec<pb::GetBatchReply> {
    let replies = client.get(tokio_stream::iter(batches)).await.unwrap().into_inner();
    let mut replies: Vec<_> = replies.map(Result::unwrap).collect().await;
    replies.sort_by_key(|r| r.seq);
    replies
}

fn error_of(detail: Option<&pb::ErrorDetail>) -> ChunkError {
    status::chunk_error(detail.expect("an error was expected"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_carry_chunks_and_a_restart_keeps_them() {
    let home = Home::new();
    let node = home.start().await;
    let mut client = connect(&node).await;
    let batches = (0..20).map(|i| batch(u64::from(i), i * 16..(i + 1) * 16)).collect();
    let replies = put_batches(&mut client, batches).await;
    assert_eq!(replies.len(), 20);
    assert!(replies.iter().all(|r| r.failures.is_empty() && r.gc_epoch == 1));
    drop(client);
    node.stop().await;

    let node = home.start().await;
    let mut client = connect(&node).await;
    let asked = (0..20u32)
        .map(|i| pb::GetBatch {
            seq: u64::from(i),
            ids: (i * 16..(i + 1) * 16).map(|s| chunk(s).id).collect(),
            places: false,
        })
        .collect();
    for reply in get_batches(&mut client, asked).await {
        for (item, seed) in reply.items.iter().zip(reply.seq as u32 * 16..) {
            assert!(item.error.is_none());
            assert_eq!(item.data, chunk(seed).data);
        }
        assert_eq!(reply.items.len(), 16);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_chunk_of_a_batch_is_named_and_the_others_are_stored() {
    let home = Home::new();
    let node = home.start().await;
    let mut client = connect(&node).await;
    let mut bad = batch(3, 0..6);
    bad.chunks[1].data = chunk(99).data;
    bad.chunks[2].id = bad.chunks[2].id.slice(..31);
    bad.chunks[3].data = Bytes::new();
    bad.chunks[4].data = vec![1; CHUNK_SIZE as usize + 1].into();
    let replies = put_batches(&mut client, vec![bad]).await;
    let mut failures: Vec<_> =
        replies[0].failures.iter().map(|f| (f.position, error_of(f.error.as_ref()))).collect();
    failures.sort_by_key(|f| f.0);
    let expected = [
        (1, ChunkError::Mismatch),
        (2, ChunkError::Malformed),
        (3, ChunkError::BadLength),
        (4, ChunkError::BadLength),
    ];
    assert_eq!(failures, expected);

    let ids = (0..6).map(|s| chunk(s).id).collect::<Vec<_>>();
    let have = client.have(pb::HaveRequest { ids: ids.clone(), touch: true }).await.unwrap();
    let stored: Vec<_> = have.into_inner().stored_len_plus_one.iter().map(|l| *l > 0).collect();
    assert_eq!(stored, [true, false, false, false, false, true]);
    let got = get_batches(&mut client, vec![pb::GetBatch { seq: 1, ids, places: false }]).await;
    assert_eq!(error_of(got[0].items[1].error.as_ref()), ChunkError::NotFound);
    assert_eq!(got[0].items[5].data, chunk(5).data);

    let short = pb::GetBatch { seq: 1, ids: vec![Bytes::from_static(b"short")], places: false };
    let mut replies = client.get(tokio_stream::iter([short])).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap_err().code(), Code::InvalidArgument);
    let short = pb::HaveRequest { ids: vec![Bytes::from_static(b"short")], touch: false };
    assert_eq!(client.have(short).await.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_calls_answer_codes_and_typed_details() {
    let home = Home::new();
    let node = home.start().await;
    let mut client = connect_with(&node, Greeting::default()).await;
    let data = Bytes::from_static(b"abc");
    let id = ChunkId::of(&data).to_string();
    let put = |chunk_id: &str, data: &Bytes| pb::PutChunkRequest {
        chunk_id: chunk_id.into(),
        data: data.clone(),
    };
    assert_eq!(client.put_chunk(put(&id, &data)).await.unwrap().into_inner().status, "ok");
    let got = client.get_chunk(pb::GetChunkRequest { chunk_id: id.clone() }).await.unwrap();
    assert_eq!((got.get_ref().status.as_str(), &got.get_ref().data), ("ok", &data));

    let other = ChunkId::of(b"other").to_string();
    let refused = client.put_chunk(put(&other, &data)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(status::to_chunk(&refused), ChunkError::Mismatch);
    let missing = client.get_chunk(pb::GetChunkRequest { chunk_id: other }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert_eq!(status::to_chunk(&missing), ChunkError::NotFound);
    for wrong in [&id[1..], "", "no hex", &id.to_uppercase(), "../../etc/passwd"] {
        let refused = client.put_chunk(put(wrong, &data)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}");
        let request = pb::GetChunkRequest { chunk_id: wrong.into() };
        assert_eq!(client.get_chunk(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let huge = Bytes::from(vec![0; 100 << 20]);
    let refused = client.put_chunk(put(&id, &huge)).await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    // The streams are for our own programs.
    let stream = client.put(tokio_stream::iter([batch(1, 0..1)])).await;
    assert_eq!(stream.unwrap_err().code(), Code::FailedPrecondition);
    let mut client = connect(&node).await;
    let got = client.get_chunk(pb::GetChunkRequest { chunk_id: id }).await.unwrap();
    assert_eq!(got.into_inner().data, data);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_or_talk_nonsense_harm_nobody() {
    let home = Home::new();
    let node = home.start().await;
    for _ in 0..4 {
        let mut client = connect(&node).await;
        let (batches, queue) = mpsc::channel(8);
        let replies = client.put(ReceiverStream::new(queue)).await.unwrap();
        for i in 0..8 {
            batches.send(batch(i, 0..16)).await.unwrap();
        }
        drop((replies, batches, client));
    }
    let mut stranger = TcpStream::connect(node.address).await.unwrap();
    stranger.write_all(&[0xff; 4096]).await.unwrap();
    // Whether it is cut off or told something first does not matter.
    let _ = timeout(Duration::from_secs(2), stranger.read_to_end(&mut Vec::new())).await;
    let mut half = TcpStream::connect(node.address).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x10garbage").await.unwrap();
    drop(half);
    let mut client = connect(&node).await;
    let replies = put_batches(&mut client, vec![batch(1, 0..16)]).await;
    assert!(replies[0].failures.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_told_why_they_are_refused() {
    let home = Home::new();
    let token_file = home.dir.with_file_name("token");
    fs::write(&token_file, "0123456789abcdef\n").unwrap();
    let config = Config { token_file: Some(token_file), ..home.config() };
    let node = server::start(config).await.unwrap();
    let token = Token::parse("0123456789abcdef").unwrap();
    let status = |client: Client| async move {
        let mut client = client;
        client.node_status(pb::NodeStatusRequest {}).await
    };
    let anonymous = connect_with(&node, Greeting::new(Some(FS), None)).await;
    assert_eq!(status(anonymous).await.unwrap_err().code(), Code::Unauthenticated);
    let foreign = Greeting::new(Some(Uuid::from_u128(6)), Some(&token));
    let refused = status(connect_with(&node, foreign).await).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("belongs to file system"), "{refused}");
    let ours = Greeting::new(Some(FS), Some(&token));
    let told = status(connect_with(&node, ours.clone()).await).await.unwrap().into_inner();
    assert_eq!((told.name.as_str(), told.disks.len()), ("node1", 1));
    let mut client = connect_with(&node, ours).await;
    let hello = pb::HelloRequest { version: 1, features: 0, fs_uuid: String::new() };
    let told = client.hello(hello.clone()).await.unwrap().into_inner();
    assert_eq!((told.fs_uuid, told.chunk_size), (FS.to_string(), CHUNK_SIZE));
    let old = pb::HelloRequest { version: 9, ..hello };
    assert!(client.hello(old).await.unwrap_err().message().contains("version 9"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_served_by_one_node_at_a_time() {
    let home = Home::new();
    let node = home.start().await;
    let second = server::start(home.config()).await.err().unwrap();
    assert!(matches!(second, StartError::Format(_)), "{second}");
    assert!(second.to_string().contains("in use by another process"), "{second}");
    let taken = Config { listen: node.address, ..Home::new().config() };
    assert!(matches!(server::start(taken).await.err().unwrap(), StartError::Format(_)));
    let other = Home::new();
    let taken = Config { listen: node.address, ..other.config() };
    assert!(matches!(server::start(taken).await.err().unwrap(), StartError::Bind { .. }));
    node.stop().await;
    for _ in 0..3 {
        home.start().await.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_at_its_reserve_refuses_puts_and_still_reads() {
    let home = Home::new();
    let node = home.start().await;
    put_batches(&mut connect(&node).await, vec![batch(1, 0..4)]).await;
    node.stop().await;
    let full = Config { reserve: Some(u64::MAX / 2), ..home.config() };
    let node = server::start(full).await.unwrap();
    let mut client = connect(&node).await;
    let replies = put_batches(&mut client, vec![batch(1, 2..6)]).await;
    let failures: Vec<_> =
        replies[0].failures.iter().map(|f| (f.position, error_of(f.error.as_ref()))).collect();
    assert_eq!(failures, [(2, ChunkError::NoSpace), (3, ChunkError::NoSpace)]);
    let item = chunk(9);
    let id = ChunkId::of(&item.data).to_string();
    let refused =
        client.put_chunk(pb::PutChunkRequest { chunk_id: id, data: item.data }).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(status::to_chunk(&refused), ChunkError::NoSpace);
    let ids = vec![chunk(0).id];
    let got = get_batches(&mut client, vec![pb::GetBatch { seq: 1, ids, places: false }]).await;
    assert_eq!(got[0].items[0].data, chunk(0).data);
    node.stop().await;
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("segments")).unwrap();
    entries.map(|e| e.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_what_was_damaged_and_listing_shows_everything() {
    let home = Home::new();
    let node = home.start().await;
    put_batches(&mut connect(&node).await, vec![batch(1, 0..40)]).await;
    node.stop().await;
    // The last byte of the only segment belongs to the last record or to its padding: take one
    // that lies inside the payload of some record.
    let [segment] = &segment_files(&home.dir)[..] else { panic!("one segment was expected") };
    let mut bytes = fs::read(segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(segment, bytes).unwrap();

    let node = home.start().await;
    let mut client = connect(&node).await;
    let verify = client.verify(pb::VerifyRequest {}).await.unwrap().into_inner();
    let messages: Vec<_> = verify.map(Result::unwrap).collect().await;
    let last = messages.last().unwrap();
    assert!(last.done);
    assert_eq!((last.chunks_checked, last.chunks_total), (40, 40));
    let damaged: Vec<_> = messages.iter().flat_map(|m| &m.damaged).collect();
    assert_eq!(damaged.len(), 1);
    let id = ChunkId::try_from(damaged[0].id.as_ref()).unwrap();
    let lost =
        client.get_chunk(pb::GetChunkRequest { chunk_id: id.to_string() }).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss);

    let mut listed = Vec::new();
    loop {
        let after = listed.last().map_or(Bytes::new(), |c: &pb::ChunkEntry| c.id.clone());
        let page = client
            .list_chunks(pb::ListChunksRequest { after, limit: 7, ..Default::default() })
            .await
            .unwrap();
        let page = page.into_inner();
        listed.extend(page.chunks);
        if page.end {
            break;
        }
    }
    assert_eq!(listed.len(), 40);
    assert!(listed.is_sorted_by(|a, b| a.id < b.id));
    let told = client.node_status(pb::NodeStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(told.disks[0].chunks, 40);
    assert_eq!(told.disks[0].chunk_bytes, (0..40).map(|s| chunk(s).data.len() as u64).sum::<u64>());
    node.stop().await;
}
