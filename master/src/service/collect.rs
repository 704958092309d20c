//! CollectGarbage: cycles on request. They go on when the caller leaves.

use std::{sync::Arc, time::Duration};

use cairn_proto::pb;
use tokio::{sync::mpsc, time::timeout};
use tonic::Status;

use super::Service;
use crate::gc::Wish;

/// Messages made ahead of the caller.
const AHEAD: usize = 64;
/// A caller hears something at least this often.
const STILL_HERE: Duration = Duration::from_secs(2);

impl Service {
    /// Starts collecting; refused while no cycle may begin.
    pub(super) async fn collect(
        self: &Arc<Self>,
        request: pb::CollectRequest,
    ) -> Result<mpsc::Receiver<Result<pb::CollectProgress, Status>>, Status> {
        self.collector.ready().await.map_err(|why| {
            Status::unavailable(format!(
                "{why}: no garbage is collected yet, try again in a moment"
            ))
        })?;
        let (steps, mut said) = mpsc::channel(AHEAD);
        let (messages, receiver) = mpsc::channel(AHEAD);
        let collector = Arc::clone(&self.collector);
        let wish = Wish { dry_run: request.dry_run, force: request.force };
        tokio::spawn(async move { collector.collect(wish, Some(&steps)).await });
        tokio::spawn(async move {
            let mut now = pb::CollectProgress::default();
            loop {
                match timeout(STILL_HERE, said.recv()).await {
                    Ok(Some(progress)) => now = progress,
                    Ok(None) => return,
                    // The same again: a long step goes on.
                    Err(_) => now.finished = None,
                }
                if messages.send(Ok(now.clone())).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}
