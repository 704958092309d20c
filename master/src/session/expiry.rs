//! The end of sessions: of those that fell silent, and of those whose client says goodbye.
//!
//! Time is monotonic and stands still while the machine sleeps; the clients on it sleep as well. When
//! this process was not run for a while (stopped, starved), what it did not hear in that time is not
//! held against anybody.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::registry::{Connection, Registry, Session};
use crate::{
    namespace::Namespace,
    op_thread::{CallError, OpQueue},
};

/// Looks for silent sessions until the op thread is gone.
pub(crate) async fn run(registry: Arc<Registry>, ops: OpQueue, expiry: Duration) {
    settle(&registry, &ops).await;
    let period = (expiry / 20).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(period).await;
        let away = last.elapsed();
        if away > 2 * period + expiry / 10 {
            registry.forgive(away);
        }
        last = Instant::now();
        for session in registry.all() {
            if session.silence(last) >= expiry && !end(&registry, &ops, session, expiry).await {
                return;
            }
        }
    }
}

/// Without sessions from before, the namespace settles at once.
async fn settle(registry: &Arc<Registry>, ops: &OpQueue) {
    let registry = Arc::clone(registry);
    let work = move |namespace: &mut Namespace| registry.settle_when_complete(namespace);
    if let Err(error) = ops.call(false, work).await {
        tracing::warn!(%error, "orphans stay until the next session ends");
    }
}

/// False when the op thread is gone.
async fn end(
    registry: &Arc<Registry>,
    ops: &OpQueue,
    session: Arc<Session>,
    expiry: Duration,
) -> bool {
    let work = {
        let (registry, session) = (Arc::clone(registry), Arc::clone(&session));
        move |namespace: &mut Namespace| {
            if registry.end_if_silent(&session, expiry) {
                tracing::info!(session = %session.id, client = session.client_name, "session expired");
                take_out(&registry, namespace, &session);
            }
        }
    };
    match ops.call(false, work).await {
        Ok(()) => true,
        Err(CallError::NoSpace) => {
            registry.take_back(session);
            true
        }
        Err(CallError::Stopping) => false,
    }
}

/// The client says over `connection` that it will not come back: as an expiry, at once, after the
/// operations before it. Returns when that would survive power loss.
pub(crate) async fn farewell(
    registry: &Arc<Registry>,
    ops: &OpQueue,
    connection: &Arc<Connection>,
) -> Result<(), CallError> {
    let session = &connection.session;
    let work = {
        let (registry, connection) = (Arc::clone(registry), Arc::clone(connection));
        move |namespace: &mut Namespace| {
            if registry.end_by(&connection) {
                take_out(&registry, namespace, &connection.session);
            }
        }
    };
    let ended = ops.call(true, work).await;
    match ended {
        Ok(()) => {
            tracing::info!(session = %session.id, client = session.client_name, "session ended");
        }
        Err(CallError::NoSpace) => registry.take_back(Arc::clone(session)),
        Err(CallError::Stopping) => {}
    }
    ended
}

fn take_out(registry: &Registry, namespace: &mut Namespace, session: &Session) {
    if let Err(error) = namespace.expire_session(session.id) {
        // Its row stays: the next start of the master takes it up and ends it again.
        tracing::warn!(session = %session.id, %error, "the end of a session was not stored");
    }
    registry.settle_when_complete(namespace);
}
