//! Bad operations inside a session, as no kernel would send them: typed errors, and the master lives.

use cairn_proto::{FsError, pb, pb::op::Kind, status::fs_error};
use cairn_tests::{
    Cluster,
    inspect::{self, block_on},
    within,
};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// A session on the raw stream.
struct Session {
    frames: Sender<pb::ClientFrame>,
    answers: Streaming<pb::ServerFrame>,
    seq: u64,
    root: u64,
}

impl Session {
    async fn open(cluster: &Cluster) -> Self {
        let (frames, receive) = channel(16);
        let open = pb::OpenSession {
            client_name: "a bad client".into(),
            next_seq: 1,
            ..Default::default()
        };
        let body = Some(pb::client_frame::Body::OpenSession(open));
        frames.send(pb::ClientFrame { seq: 0, acked_below: 1, body }).await.unwrap();
        let answers = inspect::master(cluster).session(ReceiverStream::new(receive)).await;
        let mut session = Self { frames, answers: answers.unwrap().into_inner(), seq: 0, root: 0 };
        let welcome = session.answers.message().await.unwrap().unwrap();
        let Some(pb::server_frame::Body::Welcome(welcome)) = welcome.body else {
            panic!("no welcome: {welcome:?}")
        };
        session.root = welcome.root_ino;
        session
    }

    async fn call(&mut self, kind: Kind) -> Result<pb::reply::Kind, FsError> {
        self.seq += 1;
        let op = pb::Op { caller: Some(pb::Caller::default()), kind: Some(kind) };
        let body = Some(pb::client_frame::Body::Op(op));
        let frame = pb::ClientFrame { seq: self.seq, acked_below: self.seq, body };
        self.frames.send(frame).await.unwrap();
        loop {
            let frame = self.answers.message().await.unwrap().expect("the master ended the stream");
            if let Some(pb::server_frame::Body::Reply(reply)) = frame.body {
                assert_eq!(frame.seq, self.seq);
                return match reply.kind.expect("a reply says something") {
                    pb::reply::Kind::Error(detail) => Err(fs_error(&detail)),
                    answer => Ok(answer),
                };
            }
        }
    }

    async fn error(&mut self, kind: Kind) -> FsError {
        let shown = format!("{kind:.200?}");
        self.call(kind).await.expect_err(&shown)
    }
}

fn create(parent: u64, name: &[u8], mode: u32) -> Kind {
    let name = name.to_vec().into();
    Kind::Create(pb::Create { parent, name, mode, exclusive: true, ..Default::default() })
}

#[test]
fn names_sizes_and_ranges_out_of_bounds_are_typed_errors() {
    within(120, || {
        let mut cluster = Cluster::new();
        block_on(60, async {
            let mut session = Session::open(&cluster).await;
            let root = session.root;
            for name in [&b""[..], b".", b"..", b"a/b", b"nul\0"] {
                let error = session.error(create(root, name, libc::S_IFREG | 0o644)).await;
                let as_posix = [FsError::InvalidArgument, FsError::Exists, FsError::NotFound];
                assert!(as_posix.contains(&error), "{name:?}: {error:?}");
            }
            let long = session.error(create(root, &[b'x'; 300], libc::S_IFREG | 0o644)).await;
            assert_eq!(long, FsError::NameTooLong);
            let nowhere = session.error(create(u64::MAX, b"f", libc::S_IFREG | 0o644)).await;
            assert!(matches!(
                nowhere,
                FsError::NotFound | FsError::Stale | FsError::InvalidArgument
            ));
            let made = session.call(create(root, b"f", libc::S_IFREG | 0o644)).await.unwrap();
            let pb::reply::Kind::Entry(entry) = made else { panic!("{made:?}") };
            let ino = entry.attr.unwrap().ino;
            let huge = pb::SetAttr { ino, size: Some(u64::MAX), ..Default::default() };
            assert_eq!(session.error(Kind::SetAttr(huge)).await, FsError::TooBig);
            let change = pb::ChunkChange {
                index: u64::MAX,
                expected: None,
                new: Some(pb::ChunkRef {
                    id: vec![1; 31].into(),
                    stored_len: 1,
                    logical_len: 1,
                    codec: 0,
                }),
            };
            let commit = pb::Commit { ino, changes: vec![change], ..Default::default() };
            session.error(Kind::Commit(commit)).await;
            let size = Some(pb::commit::Size::GrowTo(u64::MAX));
            session.error(Kind::Commit(pb::Commit { ino, size, ..Default::default() })).await;
            let clone = pb::CloneRange {
                src_ino: ino,
                src_offset: u64::MAX,
                dst_ino: ino,
                dst_offset: 1,
                length: u64::MAX,
            };
            session.error(Kind::CloneRange(clone)).await;
            let attribute =
                pb::SetXattr { ino, name: vec![b'n'; 300].into(), ..Default::default() };
            session.error(Kind::SetXattr(attribute)).await;
            let page = pb::ReadDir {
                ino: root,
                cookie: u64::MAX,
                max_entries: u32::MAX,
                with_attrs: true,
            };
            let _either_way = session.call(Kind::ReadDir(page)).await;
            let itself = pb::Rename {
                parent: root,
                name: b"f".to_vec().into(),
                new_parent: root,
                new_name: b"..".to_vec().into(),
                flags: 0,
            };
            session.error(Kind::Rename(itself)).await;
            session.call(Kind::GetAttr(pb::GetAttr { ino })).await.unwrap();
        });
        assert!(cluster.master().is_running());
        cluster.assert_fsck_clean();
    });
}

#[test]
fn frames_without_sense_end_the_stream_and_not_the_master() {
    within(120, || {
        let mut cluster = Cluster::new();
        block_on(60, async {
            let empty = pb::ClientFrame::default();
            let op = |seq| pb::ClientFrame {
                seq,
                acked_below: u64::MAX,
                body: Some(pb::client_frame::Body::Op(pb::Op::default())),
            };
            for frames in [vec![empty], vec![op(1)], vec![op(u64::MAX), op(0)]] {
                let mut master = inspect::master(&cluster);
                if let Ok(answers) = master.session(tokio_stream::iter(frames)).await {
                    let mut answers = answers.into_inner();
                    while let Ok(Some(_)) = answers.message().await {}
                }
            }
            let mut session = Session::open(&cluster).await;
            let frame = pb::ClientFrame { seq: u64::MAX, ..op(1) };
            session.frames.send(frame).await.unwrap();
            drop(session.frames);
            while let Ok(Some(_)) = session.answers.message().await {}
        });
        assert!(cluster.master().is_running());
        std::fs::write(cluster.mount().join("f"), "works").unwrap();
        cluster.assert_sound();
    });
}
