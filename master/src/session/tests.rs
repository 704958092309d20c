//! Sessions and the map, seen from the wire of a real master.

use std::time::{Duration, Instant};

use cairn_proto::{FsError, NodeState, SessionId, pb, status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tonic::Code;
use uuid::Uuid;

use super::{WINDOW, WINDOW_HARD, outbox::Outbox, registry::Registry};
use crate::{
    config::EngineKind,
    testing::{
        ENGINES, TestClient, TestMaster, TestNode, TestStorage, create, disks, eventually, ino_of,
    },
};

fn state(map: &pb::ClusterMap, id: Uuid) -> Option<NodeState> {
    map.nodes.iter().find(|n| n.node_id == id.to_string()).map(|n| n.state().into())
}

fn error(reply: &pb::reply::Kind) -> FsError {
    match reply {
        pb::reply::Kind::Error(detail) => status::fs_error(detail),
        other => panic!("instead of an error: {other:?}"),
    }
}

#[tokio::test]
async fn operations_are_answered_in_order_and_become_durable_without_further_traffic() {
    for engine in ENGINES {
        let master = TestMaster::start(engine).await;
        let mut client = master.client().await;
        assert!(!client.welcome.resumed);
        assert_eq!(client.welcome.window, WINDOW);
        for seq in 1..=200 {
            client.send(seq, Some(create(&format!("f{seq}")))).await;
        }
        for seq in 1..=200 {
            let (answered, reply) = client.next_reply().await;
            assert_eq!(answered, seq);
            ino_of(&reply);
        }
        while client.durable_below < 201 {
            client.frame().await.unwrap().unwrap();
        }
        assert_eq!(client.durable_below, 201);
    }
}

#[tokio::test]
async fn a_sync_is_answered_when_everything_before_it_is_durable() {
    let master = TestMaster::start_with(EngineKind::Fjall, |config| {
        config.sync_interval = Duration::from_secs(60);
    })
    .await;
    let mut client = master.client().await;
    client.op(create("a")).await;
    assert_eq!(client.durable_below, 0);
    let begin = Instant::now();
    let reply = client.op(pb::op::Kind::Sync(pb::Sync {})).await;
    assert!(matches!(reply, pb::reply::Kind::Done(_)), "{reply:?}");
    assert_eq!(client.durable_below, 3);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_operation_sent_again_after_a_lost_connection_is_executed_once() {
    for engine in ENGINES {
        let master = TestMaster::start(engine).await;
        let mut client = master.client().await;
        let session = client.welcome.session_id;
        let ino = ino_of(&client.op_as(1, create("once")).await);
        drop(client);
        let mut again = master.resume(session, vec![ino]).await;
        assert!(again.welcome.resumed);
        assert_eq!(ino_of(&again.op_as(1, create("once")).await), ino);
        assert_eq!(error(&again.op_as(2, create("once")).await), FsError::Exists);
    }
}

#[tokio::test]
async fn a_restarted_master_knows_its_sessions_and_their_replies() {
    let mut master = TestMaster::start(EngineKind::Fjall).await;
    let mut client = master.client().await;
    let (session, incarnation) = (client.welcome.session_id, client.welcome.incarnation);
    let ino = ino_of(&client.op_as(1, create("kept")).await);
    master.restart().await;
    let mut again = master.resume(session, vec![ino]).await;
    assert!(again.welcome.resumed);
    assert!(again.welcome.incarnation > incarnation);
    assert_eq!(ino_of(&again.op_as(1, create("kept")).await), ino);
    assert_eq!(error(&again.op_as(2, create("kept")).await), FsError::Exists);
    let fresh = master.client().await;
    assert!(fresh.welcome.session_id > session);
}

#[tokio::test]
async fn a_stop_answers_what_was_queued_and_keeps_it() {
    let mut master = TestMaster::start(EngineKind::Fjall).await;
    let mut client = master.client().await;
    let session = client.welcome.session_id;
    for seq in 1..=50 {
        client.op_as(seq, create(&format!("f{seq}"))).await;
    }
    master.restart().await;
    let mut again = master.resume(session, vec![]).await;
    for seq in 1..=50 {
        let reply = again.op_as(100 + seq, create(&format!("f{seq}"))).await;
        assert_eq!(error(&reply), FsError::Exists);
    }
}

#[tokio::test]
async fn a_second_stream_of_a_session_replaces_the_first() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let mut first = master.client().await;
    let mut second = master.resume(first.welcome.session_id, vec![]).await;
    assert!(second.welcome.resumed);
    assert_eq!(first.end().await.code(), Code::Aborted);
    ino_of(&second.op(create("a")).await);
    assert_eq!(master.status().await.sessions.len(), 1);
}

#[tokio::test]
async fn an_expired_session_is_gone_with_its_orphans() {
    for engine in ENGINES {
        let master = TestMaster::start_with(engine, |config| {
            config.session_expiry = Duration::from_millis(400);
        })
        .await;
        let mut client = master.client().await;
        let session = client.welcome.session_id;
        let ino = ino_of(&client.op(create("orphan")).await);
        let unlink = pb::Unlink { parent: 1, name: b"orphan"[..].into() };
        client.op(pb::op::Kind::Unlink(unlink)).await;
        assert_eq!(master.status().await.orphans, 1);
        drop(client);
        eventually("the orphan is released", || async {
            let status = master.status().await;
            (status.orphans == 0 && status.sessions.is_empty()).then_some(())
        })
        .await;
        let late = master.resume(session, vec![ino]).await;
        assert!(!late.welcome.resumed);
        assert_ne!(late.welcome.session_id, session);
    }
}

#[tokio::test]
async fn a_session_whose_client_says_goodbye_is_gone_at_once_with_its_orphans() {
    for engine in ENGINES {
        let mut master = TestMaster::start(engine).await;
        let mut client = master.client().await;
        let session = client.welcome.session_id;
        let ino = ino_of(&client.op(create("orphan")).await);
        let unlink = pb::Unlink { parent: 1, name: b"orphan"[..].into() };
        client.op(pb::op::Kind::Unlink(unlink)).await;
        // Executed before the end, although nobody waited for the answer.
        client.send(3, Some(create("last"))).await;
        let body = Some(pb::client_frame::Body::EndSession(pb::EndSession {}));
        client.raw(pb::ClientFrame { body, ..Default::default() }).await;
        while client.frame().await.unwrap().is_some() {}
        let sessions = master.status().await.sessions;
        assert!(sessions.is_empty(), "{sessions:?}");
        eventually("the orphan is freed", || async {
            (master.status().await.orphans == 0).then_some(())
        })
        .await;
        let mut late = master.resume(session, vec![ino]).await;
        assert!(!late.welcome.resumed);
        assert_eq!(error(&late.op(create("last")).await), FsError::Exists);
        if engine == EngineKind::Fjall {
            master.restart().await;
            assert!(!master.resume(session, vec![]).await.welcome.resumed, "it was stored");
        }
    }
}

#[test]
fn a_stream_that_was_replaced_cannot_end_the_session() {
    let registry = Registry::new(vec![], Instant::now());
    let session = registry.open(SessionId(1), "test");
    let attach = || session.attach(Outbox::new().0, pb::Welcome::default);
    let (old, new) = (attach(), attach());
    assert!(!registry.end_by(&old));
    assert_eq!(registry.count(), 1);
    assert!(registry.end_by(&new));
    assert_eq!(registry.count(), 0);
}

#[tokio::test]
async fn a_session_that_says_something_does_not_expire() {
    let master = TestMaster::start_with(EngineKind::Memory, |config| {
        config.session_expiry = Duration::from_millis(400);
    })
    .await;
    let mut client = master.client().await;
    let body = Some(pb::client_frame::Body::Ping(pb::Ping {}));
    for _ in 0..12 {
        client.raw(pb::ClientFrame { body: body.clone(), ..Default::default() }).await;
        let pong = client.frame().await.unwrap().unwrap().body;
        assert!(matches!(pong, Some(pb::server_frame::Body::Pong(_))), "{pong:?}");
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    ino_of(&client.op(create("alive")).await);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_told_that_its_session_has_ended() {
    let master = TestMaster::start_with(EngineKind::Memory, |config| {
        config.session_expiry = Duration::from_millis(300);
    })
    .await;
    let mut silent = master.client().await;
    assert_eq!(silent.end().await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn frames_that_make_no_sense_end_their_stream_and_nothing_else() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let mut bystander = master.client().await;
    let ping = pb::ClientFrame {
        body: Some(pb::client_frame::Body::Ping(pb::Ping {})),
        ..Default::default()
    };
    let refused = TestClient::begin(master.calls().await, ping).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let open = pb::OpenSession { open_inodes: vec![0], ..Default::default() };
    let refused = TestClient::open(&master, open.clone()).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);

    let mut client = master.client().await;
    assert_eq!(
        error(&client.op(pb::op::Kind::GetAttr(pb::GetAttr { ino: 0 })).await).errno(),
        libc::EINVAL
    );
    client.send(7, None).await;
    assert_eq!(error(&client.next_reply().await.1), FsError::NotImplemented);
    client.send(0, Some(create("zero"))).await;
    assert_eq!(client.end().await.code(), Code::InvalidArgument);

    let mut client = master.client().await;
    let body = Some(pb::client_frame::Body::OpenSession(open));
    client.raw(pb::ClientFrame { body, ..Default::default() }).await;
    assert_eq!(client.end().await.code(), Code::InvalidArgument);

    let mut garbage = TcpStream::connect(master.address()).await.unwrap();
    garbage.write_all(&[0x16; 4096]).await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good an answer as the end of the stream.
    let _ = garbage.read_to_end(&mut answer).await;
    ino_of(&bystander.op(create("still here")).await);
}

#[test]
fn more_operations_than_the_window_allows_are_refused() {
    let session = Registry::new(vec![], Instant::now()).open(SessionId(1), "test");
    let (outbox, _stream) = Outbox::new();
    let connection = session.attach(outbox, pb::Welcome::default);
    for _ in 0..WINDOW_HARD {
        connection.arrived().unwrap();
    }
    assert_eq!(connection.arrived().unwrap_err().code(), Code::ResourceExhausted);
    connection.reply(1, pb::Reply::default());
    connection.reply(2, pb::Reply::default());
    connection.arrived().unwrap();
}

#[tokio::test]
async fn clients_learn_at_once_that_a_node_is_gone() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let (stays, goes) = (
        TestNode::join(&master, Uuid::new_v4(), 9001).await,
        TestNode::join(&master, Uuid::new_v4(), 9002).await,
    );
    let mut client = master.client().await;
    client.maps.push(client.welcome.map.clone().unwrap());
    let (one, two) = (stays.id, goes.id);
    let up = |map: &pb::ClusterMap| {
        state(map, one) == Some(NodeState::Up) && state(map, two) == Some(NodeState::Up)
    };
    let before = client.map_where(up).await;
    let begin = Instant::now();
    drop(goes);
    let after = client.map_where(|m| state(m, two) == Some(NodeState::Suspect)).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(after.epoch > before.epoch);
    assert_eq!(state(&after, one), Some(NodeState::Up));
    stays.report(true).await;
    let last = client.map_where(|m| state(m, one) == Some(NodeState::Down)).await;
    assert!(last.epoch > after.epoch);
}

#[tokio::test]
async fn a_silent_node_is_suspect_then_down() {
    let master = TestMaster::start_with(EngineKind::Memory, |config| {
        config.suspect_after = Duration::from_millis(200);
        config.down_after = Duration::from_millis(600);
    })
    .await;
    let mut client = master.client().await;
    let node = TestNode::join(&master, Uuid::new_v4(), 9001).await;
    for expected in [NodeState::Up, NodeState::Suspect, NodeState::Down] {
        client.map_where(|m| state(m, node.id) == Some(expected)).await;
    }
    node.report(false).await;
    let epoch = client.maps.last().unwrap().epoch;
    client.map_where(|m| m.epoch > epoch && state(m, node.id) == Some(NodeState::Up)).await;
}

#[tokio::test]
async fn a_node_that_a_client_cannot_reach_becomes_suspect_although_it_reports() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let node = TestNode::join(&master, Uuid::new_v4(), u32::from(free)).await;
    let mut client = master.client().await;
    client.maps.push(client.welcome.map.clone().unwrap());
    client.map_where(|m| state(m, node.id) == Some(NodeState::Up)).await;
    let report = pb::ReportNode { node_id: node.id.to_string(), ..Default::default() };
    let reply = client.op(pb::op::Kind::ReportNode(report)).await;
    assert!(matches!(reply, pb::reply::Kind::Done(_)), "{reply:?}");
    client.map_where(|m| state(m, node.id) == Some(NodeState::Suspect)).await;
    let nonsense = pb::ReportNode { node_id: "node1".into(), ..Default::default() };
    let reply = client.op(pb::op::Kind::ReportNode(nonsense)).await;
    assert_eq!(error(&reply), FsError::InvalidArgument);
}

#[tokio::test]
async fn a_node_whose_disks_have_all_failed_takes_no_writes_from_then_on() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let storage = TestStorage::default();
    let (port, _) = storage.serve().await;
    let node = TestNode::join(&master, Uuid::new_v4(), port).await;
    let mut client = master.client().await;
    client.maps.push(client.welcome.map.clone().unwrap());
    let up = client.map_where(|m| state(m, node.id) == Some(NodeState::Up)).await;

    // The node says so itself.
    node.report_status(false, Some(disks(&[true, false]))).await;
    let begin = Instant::now();
    node.report_status(false, Some(disks(&[true, true]))).await;
    let later = |m: &pb::ClusterMap, wanted| state(m, node.id) == Some(wanted);
    let suspect = client.map_where(|m| later(m, NodeState::Suspect)).await;
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    assert_eq!(suspect.epoch, up.epoch + 1, "one failed disk of two makes no new map");
    node.report_status(false, Some(disks(&[false, false]))).await;
    let again = client.map_where(|m| m.epoch > suspect.epoch && later(m, NodeState::Up)).await;

    // A client says so, and the master finds it true.
    *storage.status.lock().await = disks(&[true]);
    let report = pb::ReportNode { node_id: node.id.to_string(), ..Default::default() };
    let begin = Instant::now();
    client.op(pb::op::Kind::ReportNode(report)).await;
    client.map_where(|m| m.epoch > again.epoch && later(m, NodeState::Suspect)).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_second_node_with_the_same_id_is_refused_with_a_sentence() {
    let master = TestMaster::start(EngineKind::Memory).await;
    let mut first = TestNode::join(&master, Uuid::new_v4(), 9001).await;
    first.orders.message().await.unwrap().unwrap();
    let mut second = TestNode::join(&master, first.id, 9002).await;
    // A new map may reach the stream before its first report is read.
    let refused = loop {
        match second.orders.message().await {
            Ok(order) => assert!(order.is_some(), "ended without a word"),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("127.0.0.1:9001"), "{refused}");
}

#[tokio::test]
async fn after_a_restart_clients_wait_for_known_nodes_but_not_for_ever() {
    let mut master = TestMaster::start(EngineKind::Fjall).await;
    let node = TestNode::join(&master, Uuid::new_v4(), 9001).await;
    eventually("the node is up", || async {
        (state(&master.status().await.map.unwrap(), node.id) == Some(NodeState::Up)).then_some(())
    })
    .await;
    let epoch = master.status().await.map.unwrap().epoch;

    master.restart().await;
    let begin = Instant::now();
    let alone = master.client().await.welcome.map.unwrap();
    assert!(begin.elapsed() > Duration::from_millis(500), "{:?}", begin.elapsed());
    assert_eq!(state(&alone, node.id), Some(NodeState::Suspect));
    assert!(alone.epoch > epoch);

    master.restart().await;
    let begin = Instant::now();
    let (client, _back) = tokio::join!(master.client(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        TestNode::join(&master, node.id, 9001).await
    });
    assert_eq!(state(&client.welcome.map.unwrap(), node.id), Some(NodeState::Up));
    assert!(begin.elapsed() < Duration::from_millis(1400), "{:?}", begin.elapsed());
}
