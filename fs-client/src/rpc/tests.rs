//! The session against a scripted master: what is lost, repeated, reordered or late.

use std::time::{Duration, Instant};

use cairn_proto::{
    ClusterMap, FsError,
    handshake::Token,
    pb::{self, client_frame::Body, op::Kind, reply},
};

use super::{Admin, Caller, ConnectError, Session, scripted::Master};
use crate::config::ClientConfig;

fn create(name: &str) -> Kind {
    let name = name.as_bytes().to_vec().into();
    Kind::Create(pb::Create { parent: 1, name, exclusive: true, ..pb::Create::default() })
}

fn unlink(name: &str) -> Kind {
    Kind::Unlink(pb::Unlink { parent: 1, name: name.as_bytes().to_vec().into() })
}

fn get_attr(ino: u64) -> Kind {
    Kind::GetAttr(pb::GetAttr { ino })
}

fn open(ino: u64) -> Kind {
    Kind::Open(pb::Open { ino, truncate: false })
}

fn release(ino: u64) -> Kind {
    Kind::Release(pb::Release { inodes: vec![ino] })
}

fn map(epoch: u64) -> ClusterMap {
    ClusterMap {
        epoch,
        nodes: Vec::new(),
        pg_bits: 10,
        replicas: 1,
        min_replicas: 1,
        compression: cairn_proto::Compression::Off,
    }
}

async fn call(session: &Session, op: Kind) -> Result<reply::Kind, FsError> {
    session.call(Caller { uid: 1, gid: 2, pid: 3 }, op).await.map(|a| a.kind)
}

fn created(reply: Result<reply::Kind, FsError>) -> u64 {
    match reply {
        Ok(reply::Kind::Entry(entry)) => entry.attr.unwrap().ino,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn operations_are_executed_in_order_and_answered() {
    let master = Master::start(None);
    let session = Session::connect(&master.config()).await.unwrap();
    assert_eq!(session.fs_uuid(), master.fs);
    assert_eq!(session.chunk_size(), 64 * 1024);
    let names: Vec<_> = (0..200).map(|n| format!("f{n}")).collect();
    // Polled in this order, so given in this order; more than the window at once.
    let calls = names.iter().map(|name| call(&session, create(name)));
    let numbers: Vec<_> =
        futures_util::future::join_all(calls).await.into_iter().map(created).collect();
    assert!(numbers.is_sorted());
    let expected: Vec<_> =
        names.iter().zip(&numbers).map(|(n, i)| format!("create {n} {i}")).collect();
    assert_eq!(master.words(), expected);
    let heard = master.script().heard.clone();
    let seqs: Vec<_> = heard.iter().map(|f| f.seq).filter(|s| *s != 0).collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    assert!(heard.iter().all(|f| f.seq == 0 || f.seq - f.acked_below < 64), "the window");
    assert_eq!(call(&session, Kind::Rmdir(pb::Rmdir::default())).await, Err(FsError::NotEmpty));
    session.sync().await.unwrap();
    session.close().await;
}

#[tokio::test]
async fn a_lost_reply_does_not_execute_twice() {
    let master = Master::start(None);
    let session = Session::connect(&master.config()).await.unwrap();
    created(call(&session, create("a")).await);
    master.script().drop_replies = 3;
    let b = created(call(&session, create("b")).await);
    call(&session, unlink("a")).await.unwrap();
    assert_eq!(master.words(), ["create a 1001", &format!("create b {b}"), "unlink a"]);
    assert_eq!(session.session_generation(), 0);
}

#[tokio::test]
async fn a_restarted_master_gets_back_what_it_lost_in_order() {
    let master = Master::start(None);
    master.script().durable = false;
    let session = Session::connect(&master.config()).await.unwrap();
    let a = created(call(&session, create("a")).await);
    assert_eq!(call(&session, Kind::Rmdir(pb::Rmdir::default())).await, Err(FsError::NotEmpty));
    let b = created(call(&session, create("b")).await);
    call(&session, unlink("a")).await.unwrap();
    call(&session, get_attr(1)).await.unwrap();
    let before = master.words();
    master.restart(2);
    assert_eq!(master.words().len(), 1);
    let c = created(call(&session, create("c")).await);
    let mut expected = before;
    expected.push(format!("create c {c}"));
    assert_eq!(master.words(), expected, "numbers as given the first time");
    assert_ne!(a, b);
    // Failed operations and reads are not repeated, and the acknowledgement stepped back.
    let heard = master.script().heard.clone();
    let again = heard.iter().rposition(|f| matches!(f.body, Some(Body::OpenSession(_)))).unwrap();
    let seqs: Vec<_> = heard[again + 1..].iter().map(|f| f.seq).filter(|s| *s != 0).collect();
    assert_eq!(seqs, [1, 3, 4, 6]);
    assert!(heard[again + 1..].iter().all(|f| f.seq == 0 || f.acked_below <= f.seq));
    // Durable now: nothing is repeated any more.
    master.script().durable = true;
    session.sync().await.unwrap();
    master.restart(0);
    call(&session, get_attr(1)).await.unwrap();
    let heard = master.script().heard.clone();
    let again = heard.iter().rposition(|f| matches!(f.body, Some(Body::OpenSession(_)))).unwrap();
    assert_eq!(heard[again + 1..].iter().filter(|f| f.seq != 0).count(), 1);
}

#[tokio::test]
async fn an_expired_session_fails_what_was_under_way_and_goes_on() {
    let master = Master::start(None);
    let session = Session::connect(&master.config()).await.unwrap();
    call(&session, open(7)).await.unwrap();
    let mut generation = session.watch_generation();
    master.script().mute = true;
    let heard = master.script().heard.len();
    let tasks: Vec<_> = [create("x"), get_attr(5)]
        .into_iter()
        .map(|op| {
            let session = session.clone();
            tokio::spawn(async move { call(&session, op).await })
        })
        .collect();
    master.until(|s| s.heard.len() >= heard + 2).await;
    {
        let mut script = master.script();
        script.mute = false;
        script.sessions.clear();
    }
    master.hang_up();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    assert_eq!(answers[0], Err(FsError::Stale));
    assert!(matches!(&answers[1], Ok(reply::Kind::Attr(a)) if a.attr.unwrap().ino == 5));
    generation.wait_for(|g| *g == 1).await.unwrap();
    created(call(&session, create("y")).await);
    let heard = master.script().heard.clone();
    let again = heard.iter().rposition(|f| matches!(f.body, Some(Body::OpenSession(_)))).unwrap();
    let first = heard[again + 1..].iter().find(|f| f.seq != 0).unwrap();
    assert_eq!(first.seq, 1, "numbers begin anew");
    assert!(
        matches!(&first.body, Some(Body::Op(op)) if op.kind == Some(open(7))),
        "what is open is opened again first"
    );
}

#[tokio::test]
async fn the_master_learns_what_is_open() {
    let master = Master::start(None);
    let session = Session::connect(&master.config()).await.unwrap();
    for ino in [4, 5, 6] {
        call(&session, open(ino)).await.unwrap();
    }
    session.post(release(5));
    master.script().mute = true;
    let abandoned = tokio::time::timeout(Duration::from_millis(100), call(&session, open(9))).await;
    assert!(abandoned.is_err());
    master.speak();
    let released = |f: &pb::ClientFrame, ino| matches!(&f.body, Some(Body::Op(op)) if op.kind == Some(release(ino)));
    master.until(|s| s.heard.iter().any(|f| released(f, 9))).await;
    master.hang_up();
    master
        .until(|s| {
            s.heard.iter().filter(|f| matches!(f.body, Some(Body::OpenSession(_)))).count() == 2
        })
        .await;
    let heard = master.script().heard.clone();
    let resumed = heard.iter().rev().find_map(|f| match &f.body {
        Some(Body::OpenSession(open)) => Some(open.clone()),
        _ => None,
    });
    let mut open = resumed.unwrap().open_inodes;
    open.sort_unstable();
    assert_eq!(open, [4, 6]);
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_unsent_operations_are_dropped() {
    let master = Master::start(None);
    master.script().window = 1;
    let config = ClientConfig { deadline: Duration::from_millis(300), ..master.config() };
    let session = Session::connect(&config).await.unwrap();
    master.script().mute = true;
    let began = Instant::now();
    let (sent, unsent) =
        tokio::join!(call(&session, create("sent")), call(&session, create("unsent")));
    assert_eq!((sent, unsent), (Err(FsError::TimedOut), Err(FsError::TimedOut)));
    assert!(began.elapsed() < Duration::from_secs(2));
    master.speak();
    created(call(&session, create("later")).await);
    let words = master.words();
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words[0].starts_with("create sent") && words[1].starts_with("create later"));
}

#[tokio::test]
async fn a_silent_master_is_left_and_a_new_connection_is_tried() {
    let master = Master::start(None);
    let config = ClientConfig {
        deadline: Duration::from_secs(12),
        connect_timeout: Duration::from_millis(300),
        ..master.config()
    };
    let session = Session::connect(&config).await.unwrap();
    master.script().dead = true;
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { call(&session, create("a")).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The old connection stays silent; only a new one is answered.
    master.script().heard.clear();
    master.until(|s| s.heard.iter().any(|f| matches!(f.body, Some(Body::Ping(_))))).await;
    tokio::time::sleep(Duration::from_millis(4500)).await;
    master.script().dead = false;
    created(waiting.await.unwrap());
    assert_eq!(master.words().len(), 1);
}

#[tokio::test]
async fn maps_are_pushed_and_never_go_back() {
    let master = Master::start(None);
    master.script().map = Some(map(3));
    let session = Session::connect(&master.config()).await.unwrap();
    assert_eq!(session.map().epoch, 3);
    let mut watch = session.watch_map();
    master.push_map(&map(5));
    watch.wait_for(|m| m.epoch == 5).await.unwrap();
    master.push_map(&map(4));
    master
        .until(|s| s.heard.iter().filter(|f| matches!(f.body, Some(Body::PushAck(_)))).count() == 2)
        .await;
    assert_eq!(session.map().epoch, 5);
}

#[tokio::test]
async fn the_log_has_a_bound() {
    let master = Master::start(None);
    {
        let mut script = master.script();
        script.durable = false;
        script.window = 4096;
    }
    let config = ClientConfig { deadline: Duration::from_secs(1), ..master.config() };
    let session = Session::connect(&config).await.unwrap();
    let value = bytes::Bytes::from(vec![0; 60_000]);
    let set = || {
        let (name, value) = ("user.x".into(), value.clone());
        Kind::SetXattr(pb::SetXattr { ino: 1, name, value, ..pb::SetXattr::default() })
    };
    let mut stored = 0;
    while call(&session, set()).await.is_ok() {
        stored += 1;
        assert!(stored < 1000, "more than 32 MiB are kept for a replay");
    }
    assert!(stored > 400, "{stored}");
    // The news that all is durable comes with the pings of those who wait for room.
    master.script().durable = true;
    call(&session, set()).await.unwrap();
}

#[tokio::test]
async fn what_is_posted_is_sent_before_the_end() {
    let master = Master::start(None);
    let session = Session::connect(&master.config()).await.unwrap();
    call(&session, open(4)).await.unwrap();
    session.post(release(4));
    let clone = session.clone();
    session.close().await;
    let released =
        |f: &pb::ClientFrame| matches!(&f.body, Some(Body::Op(op)) if op.kind == Some(release(4)));
    assert!(master.script().heard.iter().any(released));
    assert_eq!(call(&clone, get_attr(1)).await, Err(FsError::Stale));
}

#[tokio::test]
async fn the_master_is_told_last_that_the_session_ends() {
    let master = Master::start(None);
    let session = Session::connect(&master.config()).await.unwrap();
    assert_eq!(master.script().sessions.len(), 1);
    created(call(&session, create("a")).await);
    session.post(release(1001));
    let began = Instant::now();
    session.close().await;
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    let last: Vec<_> =
        master.script().heard.iter().rev().take(3).map(|f| (f.seq, f.body.clone())).collect();
    assert_eq!(last[0], (0, Some(Body::EndSession(pb::EndSession {}))));
    assert!(matches!(&last[1].1, Some(Body::Op(op)) if matches!(op.kind, Some(Kind::Sync(_)))));
    assert!(matches!(&last[2].1, Some(Body::Op(op)) if op.kind == Some(release(1001))));
    assert!(master.script().sessions.is_empty());

    // Nobody to tell: it ends all the same, and soon.
    let session = Session::connect(&master.config()).await.unwrap();
    master.script().dead = true;
    let began = Instant::now();
    session.close().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(!matches!(master.script().heard.last().unwrap().body, Some(Body::EndSession(_))));
}

#[tokio::test]
async fn every_way_not_to_connect_has_a_sentence() {
    let token = Token::parse("0123456789abcdef").unwrap();
    let master = Master::start(Some(token.clone()));
    let refused = Session::connect(&master.config()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("token"), "{refused}");
    let config = ClientConfig { token: Some(token), ..master.config() };
    Session::connect(&config).await.unwrap();
    let admin = Admin::connect(&config).await.unwrap();
    assert_eq!(admin.status().await.unwrap().files, 3);
    let mut fsck = admin.fsck(false).await.unwrap();
    assert!(fsck.next().await.unwrap().unwrap().done);
    assert!(admin.walk("", false).await.unwrap_err().to_string().contains("not in this script"));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = Session::connect(&ClientConfig::new(free.to_string())).await.unwrap_err();
    assert!(matches!(nobody, ConnectError::Unreachable { .. }), "{nobody}");
    assert!(nobody.to_string().contains("refused"), "{nobody}");
    let nonsense = Session::connect(&ClientConfig::new("not an address")).await.unwrap_err();
    assert!(matches!(nonsense, ConnectError::Address { .. }), "{nonsense}");

    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        while let Ok((mut socket, _)) = stranger.accept() {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = socket.read_to_end(&mut Vec::new());
        }
    });
    let other = Session::connect(&ClientConfig::new(address.to_string())).await.unwrap_err();
    assert!(matches!(other, ConnectError::NotCairn { .. }), "{other:?}");
}
