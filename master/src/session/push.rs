//! Pushes: a new cluster map to every session, a lock that has become free to who waits for it.

use std::sync::Arc;

use cairn_proto::{ClusterMap, pb};
use tokio::sync::watch;

use super::registry::Registry;
use crate::namespace::LockFreed;

/// Sends every new map to every connected client, until the sender of the maps is gone.
pub(crate) async fn maps(mut maps: watch::Receiver<Arc<ClusterMap>>, registry: Arc<Registry>) {
    while maps.changed().await.is_ok() {
        let map = Arc::clone(&maps.borrow_and_update());
        let wire = pb::ClusterMap::from(map.as_ref());
        for session in registry.all() {
            if let Some(connection) = session.connection() {
                let kind = Some(pb::push::Kind::Map(wire.clone()));
                let push = pb::Push { push_id: 0, kind };
                connection.send(0, Some(pb::server_frame::Body::Push(push)));
            }
        }
    }
}

/// Tells those who wait that they may ask again. Who is not connected asks by itself when it is.
pub(crate) fn freed_locks(freed: Vec<LockFreed>, registry: &Registry) {
    for LockFreed { session, ino, wait_id } in freed {
        if let Some(connection) = registry.session(session).and_then(|s| s.connection()) {
            let kind = Some(pb::push::Kind::LockFree(pb::LockFree { ino, wait_id }));
            let push = pb::Push { push_id: 0, kind };
            connection.send(0, Some(pb::server_frame::Body::Push(push)));
        }
    }
}
