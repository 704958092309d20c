//! Ending the session of a daemon that is dead, so that nobody has to wait until it expires.

use std::time::Duration;

use cairn_proto::{
    handshake::Greeting,
    pb::{self, client_frame::Body},
};
use futures_util::stream;
use tokio::time::timeout;
use uuid::Uuid;

use super::connect;
use crate::config::ClientConfig;

/// It expires by itself when the master has no time for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends session `id` of file system `fs`.
pub(crate) async fn end_session(config: &ClientConfig, fs: Uuid, id: u64) {
    let work = async {
        let channel = connect::dial(config).await.map_err(|e| e.to_string())?;
        let greeting = Greeting::new(Some(fs), config.token.as_ref());
        let mut client = connect::master_client(channel, greeting);
        let hello = pb::OpenSession {
            session_id: id,
            client_name: config.name.clone(),
            ..pb::OpenSession::default()
        };
        let frame = |body| pb::ClientFrame { body: Some(body), ..pb::ClientFrame::default() };
        let frames = [frame(Body::OpenSession(hello)), frame(Body::EndSession(pb::EndSession {}))];
        let answers = client.session(stream::iter(frames)).await;
        let mut answers = answers.map_err(|e| e.to_string())?.into_inner();
        while answers.message().await.map_err(|e| e.to_string())?.is_some() {}
        Ok::<_, String>(())
    };
    match timeout(PATIENCE, work).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::warn!(session = id, why, "an old session is left to expire"),
        Err(_) => tracing::warn!(session = id, "an old session is left to expire: no answer"),
    }
}
