//! Pushes that go to every session: a new cluster map.

use std::sync::Arc;

use cairn_proto::{ClusterMap, pb};
use tokio::sync::watch;

use super::registry::Registry;

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
