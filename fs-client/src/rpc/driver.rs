//! The one task that owns a session's stream: opens it, reads it, notices when it is dead, resumes it.
//!
//! It ends when the session is closed or its last handle is dropped. Reconnections back off from
//! 50 ms to 1 s. A master that has said nothing for [`SILENCE`] counts as gone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cairn_proto::{
    ClusterMap,
    handshake::Greeting,
    pb::{self, push, server_frame::Body},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Streaming, transport::Channel};
use tracing::{debug, error, info, warn};

use super::{
    connect::{self, ConnectError},
    outgoing::Outgoing,
    session::Shared,
};

/// A ping goes out at least this often, so that silence means something.
const PING: Duration = Duration::from_millis(1_000);
/// Silence after which the connection is given up. A master that hangs for a moment keeps it.
const SILENCE: Duration = Duration::from_secs(5);
/// Connect timeouts that a welcome may take: a master that has just started waits for its nodes first.
const WELCOME: u32 = 3;
/// How long the master may take to end the stream after we did.
const FAREWELL: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// An open stream and what the master said about the session.
pub(super) struct Link {
    frames: Streaming<pb::ServerFrame>,
    ping: Duration,
}

/// Who we are to the master, from connection to connection.
#[derive(Default)]
pub(super) struct Identity {
    session_id: u64,
    incarnation: u64,
}

/// Opens the stream over `channel` and brings the log in step with the master.
pub(super) async fn open(
    shared: &Arc<Shared>,
    identity: &mut Identity,
    channel: Channel,
) -> Result<(Link, pb::Welcome), ConnectError> {
    let config = &shared.config;
    let connection = {
        let mut state = shared.lock();
        let hello = pb::OpenSession {
            session_id: identity.session_id,
            client_name: config.name.clone(),
            next_seq: state.log.next_seq(),
            open_inodes: state.log.open_inodes(),
        };
        state.begin(hello)
    };
    let greeting = Greeting::new(Some(shared.fs), config.token.as_ref());
    let mut client = connect::master_client(channel, greeting);
    let outgoing = Outgoing { shared: shared.clone(), connection };
    let first = async {
        let mut frames = client.session(outgoing).await?.into_inner();
        let first = frames.message().await?;
        Ok((frames, first))
    };
    let (frames, first) = match timeout(config.connect_timeout * WELCOME, first).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(status)) => return Err(connect::refusal(config, &status)),
        Err(_) => {
            let why = "it does not welcome us to a session".to_owned();
            return Err(ConnectError::Unreachable { address: config.master.clone(), why });
        }
    };
    let not_cairn =
        |why: &str| ConnectError::NotCairn { address: config.master.clone(), why: why.to_owned() };
    let Some(pb::ServerFrame { body: Some(Body::Welcome(welcome)), durable_below, .. }) = first
    else {
        return Err(not_cairn("it does not welcome us to a session"));
    };
    if shared.chunk_size != 0 && welcome.chunk_size != shared.chunk_size {
        return Err(not_cairn("it has changed its chunk size"));
    }
    let map = welcome.map.as_ref().and_then(|map| ClusterMap::try_from(map).ok());
    let map = map.ok_or_else(|| not_cairn("it sends no valid cluster map"))?;
    enter(shared, identity, &welcome, durable_below);
    shared.take_map(map, identity.incarnation != welcome.incarnation);
    identity.session_id = welcome.session_id;
    if let Some(record) = &config.record {
        record.set_session(welcome.session_id);
    }
    identity.incarnation = welcome.incarnation;
    let ping = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(100))).min(PING);
    Ok((Link { frames, ping }, welcome))
}

/// Resumes the session in the log, or begins a new one.
fn enter(shared: &Shared, identity: &Identity, welcome: &pb::Welcome, durable_below: u64) {
    let first = identity.session_id == 0;
    let mut state = shared.lock();
    let lost = if welcome.resumed || first {
        let restarted = !first && welcome.incarnation != identity.incarnation;
        state.log.durable(durable_below);
        state.log.resumed(welcome.window, restarted);
        None
    } else {
        // First: who is told that his operation was lost finds the new generation.
        shared.generation.send_modify(|generation| *generation += 1);
        Some(state.log.replaced(welcome.window))
    };
    let waker = state.welcomed();
    drop(state);
    if let Some(lost) = lost {
        warn!(
            failed = lost.failed,
            unconfirmed = lost.unconfirmed,
            "the master had ended this session: a new one was opened, cached state is dropped"
        );
    }
    wake(waker);
}

/// Lives as long as the session.
pub(super) async fn run(shared: Arc<Shared>, mut identity: Identity, mut link: Link) {
    loop {
        let why = read(&shared, &mut link).await;
        let waker = shared.lock().lost();
        wake(waker);
        drop(link);
        if shared.is_closed() {
            break;
        }
        warn!(master = shared.config.master, why, "lost the master, reconnecting");
        match reconnect(&shared, &mut identity).await {
            Some(next) => link = next,
            None => break,
        }
    }
    {
        let mut state = shared.lock();
        state.log.abandon();
        state.gone = true;
    }
    shared.quiet.notify_waiters();
}

async fn reconnect(shared: &Arc<Shared>, identity: &mut Identity) -> Option<Link> {
    let mut backoff = BACKOFF_MIN;
    let mut said = String::new();
    loop {
        let attempt = async {
            let channel = connect::dial(&shared.config).await?;
            open(shared, identity, channel).await
        };
        let attempt = tokio::select! {
            attempt = attempt => attempt,
            () = shared.stop.notified() => return None,
        };
        match attempt {
            Ok((link, welcome)) => {
                shared.reconnects.fetch_add(1, Ordering::Relaxed);
                info!(resumed = welcome.resumed, "connected to the master again");
                return Some(link);
            }
            Err(failure) => {
                let failure = failure.to_string();
                if failure == said {
                    debug!(failure, "still no master");
                } else {
                    warn!("{failure}");
                    said = failure;
                }
            }
        }
        tokio::select! {
            () = sleep(backoff) => {}
            () = shared.stop.notified() => return None,
        }
        if shared.is_closed() {
            return None;
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Reads until the connection is of no use any more; says why.
async fn read(shared: &Shared, link: &mut Link) -> String {
    let mut heard = Instant::now();
    let mut ping_at = heard + link.ping;
    loop {
        tokio::select! {
            frame = link.frames.message() => match frame {
                Ok(Some(frame)) => {
                    heard = Instant::now();
                    take(shared, frame);
                }
                Ok(None) => return "it ended the session's stream".to_owned(),
                Err(status) => return cairn_proto::status::sentence(&status),
            },
            () = sleep_until(ping_at) => {
                if heard.elapsed() >= SILENCE {
                    return format!("it was silent for {} s", SILENCE.as_secs());
                }
                let waker = shared.lock().ping();
                wake(waker);
                ping_at = Instant::now() + link.ping;
            }
            () = shared.stop.notified() => {
                let end = async { while let Ok(Some(_)) = link.frames.message().await {} };
                let _ = timeout(FAREWELL, end).await;
                return "closed".to_owned();
            }
        }
    }
}

fn take(shared: &Shared, frame: pb::ServerFrame) {
    let mut state = shared.lock();
    state.log.durable(frame.durable_below);
    let (mut map, mut freed) = (None, None);
    match frame.body {
        Some(Body::Reply(reply)) => state.log.answer(frame.seq, reply),
        Some(Body::Push(push)) => {
            match push.kind {
                Some(push::Kind::Map(pushed)) => map = Some(ClusterMap::try_from(&pushed)),
                Some(push::Kind::LockFree(lock)) => freed = Some(lock),
                // No lease is asked for in this version, so nothing is cached that could be invalid.
                Some(push::Kind::Invalidate(_)) | None => {}
            }
            state.acknowledge(push.push_id);
        }
        Some(Body::Pong(_) | Body::Welcome(_)) | None => {}
    }
    let idle = state.closing && state.log.is_idle();
    // A reply moves the window and `acked_below`.
    let waker = state.wake();
    drop(state);
    wake(waker);
    if idle {
        shared.quiet.notify_waiters();
    }
    if let Some(lock) = freed
        && !shared.lock_waits.freed(lock.wait_id)
    {
        shared.decline_lock(lock);
    }
    match map {
        Some(Ok(map)) => shared.take_map(map, false),
        Some(Err(malformed)) => error!(%malformed, "the master pushed a map that makes no sense"),
        None => {}
    }
}

fn wake(waker: Option<std::task::Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
