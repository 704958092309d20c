//! Bad input to the plain calls: a clear code for each, nothing stored, nobody dies.

use cairn_proto::{ChunkId, handshake::Greeting, pb};
use cairn_tests::{
    Cluster,
    inspect::{self, block_on},
    within,
};
use tonic::{Code, Status};
use uuid::Uuid;

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn alive_and_empty(cluster: &mut Cluster) {
    assert!(cluster.master().is_running() && cluster.node(0).is_running());
    assert!(cluster.node(1).is_running());
    assert_eq!(inspect::stored_chunks(cluster, 2), 0, "something was stored");
    assert_eq!(inspect::status(cluster).unwrap().files, 0);
}

#[test]
fn chunks_that_are_not_what_they_are_called_are_refused() {
    within(120, || {
        let mut cluster = Cluster::new();
        block_on(60, async {
            let mut node = inspect::storage(&cluster, 0);
            let unknown = ChunkId::of(b"nobody has this").to_string();
            let get = pb::GetChunkRequest { chunk_id: unknown.clone() };
            assert_eq!(code(node.get_chunk(get).await), Code::NotFound);
            let upper = unknown.to_uppercase();
            let bad = ["", "xyz", &unknown[1..], &upper, "../../etc/passwd", &"0".repeat(100_000)];
            for chunk_id in bad.map(str::to_owned) {
                let get = pb::GetChunkRequest { chunk_id: chunk_id.clone() };
                assert_eq!(code(node.get_chunk(get).await), Code::InvalidArgument);
                let put = pb::PutChunkRequest { chunk_id, data: b"data".to_vec().into() };
                assert_eq!(code(node.put_chunk(put).await), Code::InvalidArgument);
            }
            let put = pb::PutChunkRequest { chunk_id: unknown, data: b"other".to_vec().into() };
            assert_eq!(code(node.put_chunk(put).await), Code::InvalidArgument);
            let data = vec![7u8; 1 << 20];
            let chunk_id = ChunkId::of(&data).to_string();
            let put = pb::PutChunkRequest { chunk_id, data: data.into() };
            let longer = code(node.put_chunk(put).await);
            assert_eq!(longer, Code::InvalidArgument, "a chunk longer than the chunk size");
        });
        alive_and_empty(&mut cluster);
    });
}

#[test]
fn a_message_of_100_mib_is_refused_by_master_and_node() {
    within(120, || {
        let mut cluster = Cluster::new();
        block_on(60, async {
            let data = vec![7u8; 100 << 20];
            let chunk_id = ChunkId::of(&data).to_string();
            let put = pb::PutChunkRequest { chunk_id, data: data.into() };
            let answer = inspect::storage(&cluster, 0).put_chunk(put).await;
            assert!(answer.is_err());
            let manifest = pb::ManifestRequest { filename: "x".repeat(100 << 20), chunks: vec![] };
            let mut master = inspect::master(&cluster).max_encoding_message_size(usize::MAX);
            assert!(master.announce_manifest(manifest).await.is_err());
        });
        alive_and_empty(&mut cluster);
    });
}

#[test]
fn names_that_no_file_can_have_are_refused() {
    within(120, || {
        let mut cluster = Cluster::new();
        block_on(60, async {
            let mut master = inspect::master(&cluster);
            let long = "x".repeat(300);
            let deep = "d/".repeat(3000) + "f";
            let bad = ["", "/", "..", "../up", "a/../b", ".", "nul\0inside", "a/", &long, &deep];
            for filename in bad {
                let request = pb::ManifestRequest { filename: filename.into(), chunks: vec![] };
                let got = code(master.announce_manifest(request).await);
                assert_eq!(got, Code::InvalidArgument, "{:.40?}", filename);
            }
            let missing = pb::ManifestRequest {
                filename: "file".into(),
                chunks: vec![ChunkId::of(b"not stored").to_string()],
            };
            assert_eq!(code(master.announce_manifest(missing).await), Code::FailedPrecondition);
            for port in [-1, 0, 65_536, i32::MAX] {
                let request = pb::RegisterRequest {
                    host: "127.0.0.1".into(),
                    port,
                    node_id: Uuid::new_v4().to_string(),
                };
                assert_eq!(code(master.register_node(request).await), Code::InvalidArgument);
            }
            let get = pb::GetManifestRequest { filename: "none".into(), ..Default::default() };
            assert_eq!(code(master.get_manifest(get).await), Code::NotFound);
            let list = pb::ListFilesRequest {
                page_token: "garbage \u{1F4A9}".into(),
                page_size: u32::MAX,
            };
            let listed = code(master.list_files(list).await);
            assert!(matches!(listed, Code::Ok | Code::InvalidArgument), "{listed:?}");
            let targets = pb::PutTargetsRequest { chunk_id: "zz".into() };
            assert_eq!(code(master.request_put_targets(targets).await), Code::InvalidArgument);
        });
        alive_and_empty(&mut cluster);
    });
}

#[test]
fn callers_of_another_file_system_or_version_are_told_so() {
    within(120, || {
        let mut cluster = Cluster::new();
        block_on(60, async {
            let stranger = Greeting::new(Some(Uuid::new_v4()), None);
            let channel = inspect::channel(&cluster.master_address());
            let mut master = pb::master_service_client::MasterServiceClient::with_interceptor(
                channel,
                stranger.clone(),
            );
            let refused = master.status(pb::StatusRequest {}).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("file system"), "{refused}");
            let channel = inspect::channel(&cluster.node_address(0).to_string());
            let mut node = pb::storage_service_client::StorageServiceClient::with_interceptor(
                channel, stranger,
            );
            let refused = node.node_status(pb::NodeStatusRequest {}).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            let channel = inspect::channel(&cluster.master_address());
            let mut plain = pb::master_service_client::MasterServiceClient::new(channel);
            let newer = pb::HelloRequest { version: 99, ..Default::default() };
            let refused = plain.hello(newer).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("version"), "{refused}");
        });
        alive_and_empty(&mut cluster);
    });
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_put_leaves_nothing_broken() {
    within(120, || {
        let mut cluster = Cluster::new();
        block_on(60, async {
            for n in 0..20u8 {
                let mut node = inspect::storage(&cluster, 0);
                let data = bytes::Bytes::from(vec![n; 65_536]);
                let item = pb::PutChunkItem { id: ChunkId::of(b"wrong").to_wire(), data };
                let batch = pb::PutBatch { seq: 1, map_epoch: 0, chunks: vec![item; 16] };
                let (send, receive) = tokio::sync::mpsc::channel(4);
                let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
                let call = tokio::spawn(async move { node.put(stream).await.map(|_| ()) });
                send.send(batch.clone()).await.unwrap();
                send.send(batch).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(u64::from(n))).await;
                call.abort();
            }
        });
        alive_and_empty(&mut cluster);
        std::fs::write(cluster.mount().join("f"), "works").unwrap();
        cluster.assert_sound();
    });
}
