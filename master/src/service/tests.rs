//! The plain calls and the greeting, seen from the wire of a real master.

use bytes::Bytes;
use cairn_proto::{
    ChunkId, ChunkRef, NodeState,
    handshake::{Greeting, Token},
    manifest, pb,
};
use tokio_stream::StreamExt;
use tonic::Code;
use uuid::Uuid;

use crate::{
    config::EngineKind,
    server::{self, StartError},
    testing::{
        CHUNK, Calls, ENGINES, TestClient, TestMaster, TestNode, TestStorage, create, eventually,
        ino_of,
    },
};

/// A master with one storage node that holds chunks.
async fn with_storage(engine: EngineKind) -> (TestMaster, TestStorage, TestNode) {
    let master = TestMaster::start(engine).await;
    let storage = TestStorage::default();
    let (port, _) = storage.serve().await;
    let node = TestNode::join(&master, Uuid::new_v4(), port).await;
    eventually("the node is up", || async {
        let map = master.status().await.map.unwrap();
        map.nodes.iter().any(|n| NodeState::from(n.state()) == NodeState::Up).then_some(())
    })
    .await;
    (master, storage, node)
}

async fn announce(calls: &mut Calls, filename: &str, chunks: &[&str]) -> Result<(), tonic::Status> {
    let chunks = chunks.iter().map(|c| (*c).to_owned()).collect();
    let request = pb::ManifestRequest { filename: filename.into(), chunks };
    calls
        .announce_manifest(request)
        .await
        .map(|answer| assert_eq!(answer.into_inner().status, "ok"))
}

async fn manifest_of(
    calls: &mut Calls,
    filename: &str,
) -> Result<pb::GetManifestResponse, tonic::Status> {
    let request = pb::GetManifestRequest { filename: filename.into(), ..Default::default() };
    calls.get_manifest(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_file_of_chunks_is_announced_listed_read_and_replaced() {
    for engine in ENGINES {
        let (master, storage, _node) = with_storage(engine).await;
        let mut calls = master.calls_as(Greeting::new(None, None)).await;
        let (whole, tail) = (storage.hold(&[1; CHUNK as usize]).await, storage.hold(b"tail").await);
        announce(&mut calls, "a/b/file", &[&whole, &whole, &tail]).await.unwrap();
        // Two copies are wanted and there is one node.
        assert!(!master.status().await.degraded_groups.is_empty());
        announce(&mut calls, "empty", &[]).await.unwrap();
        let found = manifest_of(&mut calls, "/a/b/file").await.unwrap();
        assert_eq!(found.size, u64::from(2 * CHUNK) + 4);
        assert_eq!(found.chunks, [&*whole, &whole, &tail]);
        announce(&mut calls, "a/b/file", &[&tail]).await.unwrap();
        assert_eq!(manifest_of(&mut calls, "a/b/file").await.unwrap().chunks, [&*tail]);

        let mut names = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListFilesRequest { page_token, page_size: 1 };
            let page = calls.list_files(request).await.unwrap().into_inner();
            names.extend(page.filenames);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        names.sort();
        assert_eq!(names, ["a/b/file", "empty"]);
        let status = master.status().await;
        assert_eq!((status.files, status.directories, status.logical_bytes), (2, 3, 4));
        assert_eq!(status.data_dir, master.config.data.display().to_string());
    }
}

#[tokio::test]
async fn chunks_that_do_not_fit_are_named_and_nothing_is_made() {
    let (master, storage, _node) = with_storage(EngineKind::Memory).await;
    let mut calls = master.calls().await;
    let whole = storage.hold(&[1; CHUNK as usize]).await;
    let short = storage.hold(b"short").await;
    let absent = ChunkId::of(b"absent").to_string();
    for (chunks, named) in [(vec![&whole, &absent], &absent), (vec![&short, &whole], &short)] {
        let chunks: Vec<&str> = chunks.into_iter().map(String::as_str).collect();
        let refused = announce(&mut calls, "f", &chunks).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(named), "{refused}");
    }
    let upper = whole.to_uppercase();
    for wrong in ["", "00", "x", &upper] {
        let refused = announce(&mut calls, "f", &[wrong]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}");
        for refused in [
            calls.request_put_targets(pb::PutTargetsRequest { chunk_id: wrong.into() }).await.err(),
            calls.request_get_targets(pb::GetTargetsRequest { chunk_id: wrong.into() }).await.err(),
        ] {
            assert_eq!(refused.unwrap().code(), Code::InvalidArgument, "{wrong}");
        }
    }
    let long = "n".repeat(300);
    for wrong in ["", "..", "a/../b", "a\0b", "a//b", &long] {
        let refused = announce(&mut calls, wrong, &[&whole]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
        let refused = manifest_of(&mut calls, wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
    }
    assert_eq!(manifest_of(&mut calls, "f").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(master.status().await.files, 0);
}

#[tokio::test]
async fn holes_and_clipped_tails_become_chunks_for_plain_clients() {
    let (master, storage, _node) = with_storage(EngineKind::Memory).await;
    let mut client = master.client().await;
    let ino = ino_of(&client.op(create("sparse")).await);
    let stored = [7u8; CHUNK as usize];
    storage.hold(&stored).await;
    let change = pb::ChunkChange {
        index: 2,
        expected: None,
        new: Some(manifest::to_wire(Some(ChunkRef::plain(&stored)))),
    };
    let commit = pb::Commit {
        ino,
        changes: vec![change],
        size: Some(pb::commit::Size::GrowTo(u64::from(3 * CHUNK))),
        ..Default::default()
    };
    let reply = client.op(pb::op::Kind::Commit(commit)).await;
    assert!(matches!(&reply, pb::reply::Kind::Committed(c) if c.applied), "{reply:?}");
    resize(&mut client, ino, u64::from(2 * CHUNK) + 10).await;
    resize(&mut client, ino, u64::from(2 * CHUNK) + 20).await;

    let mut calls = master.calls().await;
    let found = manifest_of(&mut calls, "sparse").await.unwrap();
    assert_eq!(found.size, u64::from(2 * CHUNK) + 20);
    let zeros = ChunkId::of(&[0; CHUNK as usize]);
    let tail = [[7u8; 10], [0; 10]].concat();
    assert_eq!(
        found.chunks,
        [zeros.to_string(), zeros.to_string(), ChunkId::of(&tail).to_string()]
    );
    let held = storage.chunks.lock().await;
    assert_eq!(held[&zeros].len(), CHUNK as usize);
    assert_eq!(held[&ChunkId::of(&tail)], Bytes::from(tail));
}

async fn resize(client: &mut TestClient, ino: u64, size: u64) {
    let set = pb::SetAttr { ino, size: Some(size), ..Default::default() };
    let reply = client.op(pb::op::Kind::SetAttr(set)).await;
    assert!(!matches!(reply, pb::reply::Kind::Error(_)), "{reply:?}");
}

#[tokio::test]
async fn a_page_of_a_file_that_changed_meanwhile_is_refused() {
    let (master, storage, _node) = with_storage(EngineKind::Memory).await;
    let mut calls = master.calls().await;
    let whole = storage.hold(&[1; CHUNK as usize]).await;
    announce(&mut calls, "f", &[&whole, &whole]).await.unwrap();
    let mut request =
        pb::GetManifestRequest { filename: "f".into(), page_token: String::new(), page_size: 1 };
    let first = calls.get_manifest(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.chunks.len(), 1);
    request.page_token = first.next_page_token;
    let second = calls.get_manifest(request.clone()).await.unwrap().into_inner();
    assert_eq!((second.chunks.len(), second.next_page_token.as_str()), (1, ""));
    let (version, _) = request.page_token.split_once('-').unwrap();
    request.page_token = format!("{version}-{}", u64::MAX);
    let beyond = calls.get_manifest(request.clone()).await.unwrap().into_inner();
    assert_eq!((beyond.chunks.len(), beyond.next_page_token.as_str()), (0, ""));
    request.page_token = "nonsense".into();
    let refused = calls.get_manifest(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_storage_nodes_there_are_no_targets() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let mut calls = master.calls().await;
    let chunk_id = ChunkId::of(b"x").to_string();
    let request = pb::PutTargetsRequest { chunk_id: chunk_id.clone() };
    let refused = calls.request_put_targets(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("cairn-storage"), "{refused}");
    let request = pb::GetTargetsRequest { chunk_id: chunk_id.clone() };
    assert_eq!(
        calls.request_get_targets(request).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let refused = announce(&mut calls, "f", &[&chunk_id]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_node_registered_by_a_call_is_up_while_it_answers() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let (port, serving) = TestStorage::default().serve().await;
    let mut calls = master.calls_as(Greeting::new(None, None)).await;
    let mut register = pb::RegisterRequest {
        host: "127.0.0.1".into(),
        port: i32::try_from(port).unwrap(),
        node_id: Uuid::new_v4().to_string(),
    };
    calls.register_node(register.clone()).await.unwrap();
    let chunk_id = ChunkId::of(b"x").to_string();
    let targets = eventually("the node is a target", || async {
        let request = pb::PutTargetsRequest { chunk_id: chunk_id.clone() };
        master.calls().await.request_put_targets(request).await.ok()
    })
    .await;
    assert_eq!(targets.into_inner().targets[0].node_id, register.node_id);
    serving.abort();
    eventually("the node is no target any more", || async {
        let request = pb::PutTargetsRequest { chunk_id: chunk_id.clone() };
        master.calls().await.request_put_targets(request).await.err()
    })
    .await;
    for (node_id, port) in [("node1", 9001), (register.node_id.clone().as_str(), -1)] {
        (register.node_id, register.port) = (node_id.into(), port);
        let refused = calls.register_node(register.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn strangers_are_refused_with_a_sentence() {
    let token = Token::parse("0123456789abcdef").unwrap();
    let master = TestMaster::start_with(EngineKind::Memory, |config| {
        config.token = Some(token.clone());
    })
    .await;
    let hello = |version, fs_uuid: String| pb::HelloRequest { version, features: 0, fs_uuid };
    let mut known = master.calls().await;
    let answer = known.hello(hello(1, String::new())).await.unwrap().into_inner();
    assert_eq!((answer.fs_uuid, answer.chunk_size), (master.fs.to_string(), CHUNK));
    for wrong in [hello(2, String::new()), hello(1, Uuid::nil().to_string()), hello(1, "x".into())]
    {
        assert_eq!(known.hello(wrong).await.unwrap_err().code(), Code::FailedPrecondition);
    }
    let mut without = master.calls_as(Greeting::new(Some(master.fs), None)).await;
    let refused = without.hello(hello(1, String::new())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("--token-file"), "{refused}");
    let elsewhere = master.calls_as(Greeting::new(Some(Uuid::nil()), Some(&token))).await;
    let nameless = master.calls_as(Greeting::new(None, Some(&token))).await;
    for calls in [elsewhere, nameless] {
        let first = pb::ClientFrame {
            body: Some(pb::client_frame::Body::OpenSession(pb::OpenSession::default())),
            ..Default::default()
        };
        let refused = TestClient::begin(calls, first).await.err().unwrap();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn a_port_or_directory_in_use_is_a_sentence_with_the_remedy() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let other = TestMaster::start(EngineKind::Memory).await;
    let locked = server::start(master.config.clone()).await.unwrap_err();
    assert!(locked.to_string().contains("in use by another process"), "{locked}");
    let mut config = other.config.clone();
    config.listen = master.address();
    let mut other = other;
    other.stop().await;
    let taken = server::start(config).await.unwrap_err();
    assert!(matches!(taken, StartError::PortInUse(_)), "{taken}");
    assert!(taken.to_string().contains("--listen"), "{taken}");
}

#[tokio::test]
async fn the_tree_is_walked_and_checked() {
    for engine in ENGINES {
        let master = TestMaster::start(engine).await;
        let mut client = master.client().await;
        for name in ["a", "b"] {
            client.op(create(name)).await;
        }
        client.op(pb::op::Kind::Rmdir(pb::Rmdir { parent: 1, name: "a".into() })).await;
        let counted =
            |kind: &str, done, failed| pb::OperationCount { kind: kind.into(), done, failed };
        let expected = [counted("create", 2, 0), counted("rmdir", 1, 1)];
        assert_eq!(master.status().await.operations, expected);
        let mut calls = master.calls().await;
        let walk = calls.walk(pb::WalkRequest::default()).await.unwrap().into_inner();
        let entries: Vec<_> = walk.map(|entry| entry.unwrap().path).collect().await;
        assert_eq!(entries.len(), 3, "{entries:?}");
        let absent = pb::WalkRequest { path: "absent".into(), with_refs: false };
        let refused = calls.walk(absent).await.unwrap().into_inner().message().await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        let fsck = calls.fsck(pb::FsckRequest { repair: false }).await.unwrap().into_inner();
        let progress: Vec<_> = fsck.map(|p| p.unwrap()).collect().await;
        let last = progress.last().unwrap();
        assert!(last.done && last.inodes == 3, "{last:?}");
        assert!(progress.iter().all(|p| p.findings.is_empty()), "{progress:?}");
    }
}
