//! Waiting until a node that is drained is empty. Ends by itself, with Ctrl+C (the draining goes on), or when
//! somebody stops the draining.

use std::time::Duration;

use crate::{
    cli::{failure::Failure, progress::Progress, status::report::StatusReport},
    rpc::Admin,
};

/// How often the master is asked.
const LOOK: Duration = Duration::from_millis(500);

/// A node that is silent for longer is not waited for.
const SILENT_MS: u64 = 30_000;

/// Waits until the node `id` holds nothing; shows how far that is unless `quiet`.
///
/// # Errors
/// When the master cannot be asked any more, or the node is no longer being drained.
pub(super) async fn wait(admin: &Admin, id: &str, name: &str, quiet: bool) -> Result<(), Failure> {
    let progress = Progress::bytes(!quiet);
    let mut most = 0;
    loop {
        let status = StatusReport::from(admin.status().await?);
        let Some(node) = status.nodes.iter().find(|node| node.id == id) else {
            return Err(Failure::new(format!("{name} was removed while it was being drained")));
        };
        if node.state != "draining" {
            return Err(Failure::new(format!(
                "{name} is no longer being drained, it is {}",
                node.state
            )));
        }
        if node.silent_ms > SILENT_MS {
            progress.end();
            return Err(Failure::new(format!(
                "{name} does not answer: start it, and it is emptied further"
            )));
        }
        let share = status.repair.share(id).filter(|_| status.repair.known);
        let left = share.map_or(most, |share| share.bytes);
        if share.is_some_and(|share| share.chunks == 0) {
            progress.end();
            return Ok(());
        }
        if left > most {
            most = left;
            progress.begin(&format!("draining {name}"), Some(most));
        }
        progress.reach(most - left);
        tokio::time::sleep(LOOK).await;
    }
}
