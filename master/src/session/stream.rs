//! One stream of one session: the greeting, then frames read in order of receipt.
//!
//! Operations go to the op thread in exactly that order. What makes no sense is answered with a typed
//! error or ends the stream with a sentence; it never reaches the namespace half-checked.

use std::{sync::Arc, time::Duration};

use cairn_proto::{FsError, Ino, NodeId, SessionId, pb};
use prost::Message;
use tokio::{sync::watch, time::timeout};
use tonic::{Status, Streaming};

use super::{
    HEARTBEAT, SESSIONS_MAX, WINDOW, expiry,
    outbox::{Outbox, OutboxStream},
    registry::{Connection, Registry, Session},
};
use crate::{
    activity::{Activity, Underway},
    cluster::{Cluster, suspicion},
    engine::EngineError,
    namespace::Namespace,
    op_thread::{CallError, OpQueue, SessionOp, error_reply},
};

/// How long a new stream may take to say who it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of a client that is kept.
const CLIENT_NAME_MAX: usize = 255;

/// What every stream needs.
pub(crate) struct Sessions {
    /// The op thread.
    pub(crate) ops: OpQueue,
    /// The sessions.
    pub(crate) registry: Arc<Registry>,
    /// The nodes.
    pub(crate) cluster: Arc<Cluster>,
    /// Counts operations.
    pub(crate) activity: Arc<Activity>,
    /// Bytes of a whole chunk.
    pub(crate) chunk_size: u32,
    /// Silence that ends a session.
    pub(crate) expiry: Duration,
    /// Grows with every start.
    pub(crate) incarnation: u64,
    /// True as soon as the master stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Sessions {
    /// Serves `frames` on a task of its own; the frames for the client come out of what is returned.
    pub(crate) fn serve(self: &Arc<Self>, frames: Streaming<pb::ClientFrame>) -> OutboxStream {
        let (outbox, stream) = Outbox::new();
        let sessions = Arc::clone(self);
        tokio::spawn(async move { sessions.run(frames, outbox).await });
        stream
    }

    async fn run(&self, mut frames: Streaming<pb::ClientFrame>, outbox: Arc<Outbox>) {
        let mut stopping = self.stopping.clone();
        let opened = tokio::select! {
            opened = self.open(&mut frames, &outbox) => opened,
            () = outbox.closed() => return,
            () = told(&mut stopping) => Err(CallError::Stopping.into()),
        };
        let connection = match opened {
            Ok(connection) => connection,
            Err(refusal) => {
                tracing::debug!(%refusal, "a session stream was refused");
                outbox.abort(refusal);
                return;
            }
        };
        let session = &connection.session;
        tokio::select! {
            ended = self.read(&mut frames, &connection) => {
                if let Err(why) = ended {
                    tracing::debug!(session = %session.id, %why, "a session stream ended");
                    outbox.abort(why);
                } else {
                    outbox.finish();
                }
            }
            () = outbox.closed() => {}
            // What was queued is still answered; the end of the outbox comes after that.
            () = told(&mut stopping) => return outbox.closed().await,
        }
        session.detach(&connection);
    }

    /// The first frame: who it is. Returns with the welcome sent.
    async fn open(
        &self,
        frames: &mut Streaming<pb::ClientFrame>,
        outbox: &Arc<Outbox>,
    ) -> Result<Arc<Connection>, Status> {
        let first = timeout(GREETING_TIMEOUT, frames.message()).await.map_err(|_| {
            Status::deadline_exceeded("no OpenSession came: it is the first frame of every stream")
        })??;
        let Some(pb::ClientFrame { body: Some(pb::client_frame::Body::OpenSession(open)), .. }) =
            first
        else {
            return Err(Status::invalid_argument(
                "the first frame of a session stream is OpenSession",
            ));
        };
        if let Some(bad) = open.open_inodes.iter().find(|ino| Ino::new(**ino).is_none()) {
            return Err(Status::invalid_argument(format!("inode {bad} cannot be open")));
        }
        if self.registry.count() >= SESSIONS_MAX {
            return Err(Status::resource_exhausted(format!(
                "there are {SESSIONS_MAX} sessions already: wait until some have expired"
            )));
        }
        self.cluster.complete().await;
        let (session, resumed) = self.find_or_make(open).await?;
        let connection = session.attach(Arc::clone(outbox), || self.welcome(session.id, resumed));
        tracing::info!(session = %session.id, client = session.client_name, resumed, "connected");
        Ok(connection)
    }

    /// The session that the client names, or a new one. A new one is promised only once it would
    /// survive power loss: the client will come back for it.
    async fn find_or_make(&self, open: pb::OpenSession) -> Result<(Arc<Session>, bool), Status> {
        let registry = Arc::clone(&self.registry);
        let work = move |namespace: &mut Namespace| {
            let mut name = open.client_name;
            if name.len() > CLIENT_NAME_MAX {
                name.truncate(name.floor_char_boundary(CLIENT_NAME_MAX));
            }
            let asked = SessionId(open.session_id);
            let resumed = asked.0 != 0
                && namespace.resume_session(asked, open.next_seq, &open.open_inodes)?;
            let id = if resumed { asked } else { namespace.open_session(&name)? };
            let session = registry.open(id, &name);
            registry.settle_when_complete(namespace);
            Ok::<_, EngineError>((session, resumed))
        };
        self.ops.call(true, work).await?.map_err(|error| match error {
            EngineError::NoSpace => CallError::NoSpace.into(),
            other => Status::internal(format!("the session could not be stored: {other}")),
        })
    }

    fn welcome(&self, id: SessionId, resumed: bool) -> pb::Welcome {
        pb::Welcome {
            session_id: id.0,
            incarnation: self.incarnation,
            resumed,
            heartbeat_ms: milliseconds(HEARTBEAT.min(self.expiry / 4)),
            expiry_ms: milliseconds(self.expiry),
            map: Some(self.cluster.map().as_ref().into()),
            chunk_size: self.chunk_size,
            root_ino: Ino::ROOT.get(),
            window: WINDOW,
        }
    }

    /// Reads until the client ends the session or the stream (`Ok`) or it breaks (`Err`).
    async fn read(
        &self,
        frames: &mut Streaming<pb::ClientFrame>,
        connection: &Arc<Connection>,
    ) -> Result<(), Status> {
        while let Some(frame) = frames.message().await? {
            connection.session.heard();
            if matches!(frame.body, Some(pb::client_frame::Body::EndSession(_))) {
                return Ok(expiry::farewell(&self.registry, &self.ops, connection).await?);
            }
            self.frame(frame, connection).await?;
        }
        Ok(())
    }

    async fn frame(
        &self,
        frame: pb::ClientFrame,
        connection: &Arc<Connection>,
    ) -> Result<(), Status> {
        let size = frame.encoded_len();
        let pb::ClientFrame { seq, acked_below, body } = frame;
        match body {
            Some(pb::client_frame::Body::Op(op)) => {
                self.operation(connection, seq, acked_below, op, size).await
            }
            Some(pb::client_frame::Body::Ping(_)) => {
                connection.send(0, Some(pb::server_frame::Body::Pong(pb::Pong {})));
                Ok(())
            }
            Some(pb::client_frame::Body::OpenSession(_)) => Err(Status::invalid_argument(
                "OpenSession came twice: it is the first frame of a stream and no other",
            )),
            // No push of this version wants an acknowledgement; a frame without a body only carries
            // `acked_below`, which the next operation repeats; the reader looks for the end itself.
            Some(pb::client_frame::Body::PushAck(_) | pb::client_frame::Body::EndSession(_))
            | None => Ok(()),
        }
    }

    async fn operation(
        &self,
        connection: &Arc<Connection>,
        seq: u64,
        acked_below: u64,
        op: pb::Op,
        size: usize,
    ) -> Result<(), Status> {
        if seq == 0 || seq == u64::MAX {
            return Err(Status::invalid_argument(format!(
                "an operation has the number {seq}: they begin at 1 and grow"
            )));
        }
        connection.arrived()?;
        let Some(kind) = op.kind.as_ref() else {
            connection.reply(seq, error_reply(FsError::NotImplemented));
            return Ok(());
        };
        let underway = self.activity.begin(kind);
        if let Some(pb::op::Kind::ReportNode(report)) = op.kind {
            self.report_node(Arc::clone(connection), seq, underway, report);
            return Ok(());
        }
        let permit = self.ops.reserve(size).await;
        let connection = Arc::clone(connection);
        let op = SessionOp { connection, seq, acked_below, op, underway, permit };
        self.ops.submit(op).await.map_err(Status::from)
    }

    /// Answered when the master has looked for itself, beside the other operations.
    fn report_node(
        &self,
        connection: Arc<Connection>,
        seq: u64,
        underway: Underway,
        report: pb::ReportNode,
    ) {
        let answer = move |reply: pb::Reply| {
            underway.end(&reply);
            connection.reply(seq, reply);
        };
        let Ok(id) = report.node_id.parse::<NodeId>() else {
            return answer(error_reply(FsError::InvalidArgument));
        };
        let cluster = Arc::clone(&self.cluster);
        tokio::spawn(async move {
            tracing::debug!(node = %id, why = report.why, "a client cannot reach a node");
            suspicion::reported(&cluster, id).await;
            let done = Some(pb::reply::Kind::Done(pb::Done {}));
            answer(pb::Reply { lease: None, kind: done });
        });
    }
}

/// Returns when the master stops.
pub(crate) async fn told(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and the master with it.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
