//! The verify stream: what has been checked so far, about once a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Replies, Stopping};
use crate::store::{Checked, Store};

const EVERY: Duration = Duration::from_secs(1);
/// A message is sent early when it names this many chunks.
const DAMAGED_PER_MESSAGE: usize = 1024;

/// Starts the check on a thread of its own; it ends when the client is gone or the node stops.
pub(super) fn open(store: Arc<Store>, stopping: Stopping) -> Replies<pb::VerifyProgress> {
    let (progress, queue) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || run(&store, &stopping, &progress));
    Box::pin(ReceiverStream::new(queue))
}

fn run(
    store: &Store,
    stopping: &Stopping,
    progress: &mpsc::Sender<Result<pb::VerifyProgress, Status>>,
) {
    let mut now = pb::VerifyProgress { chunks_total: store.copies(), ..Default::default() };
    let mut last = Instant::now();
    let result = store.verify(|checked| {
        note(&mut now, checked);
        if last.elapsed() >= EVERY || now.damaged.len() >= DAMAGED_PER_MESSAGE {
            last = Instant::now();
            let message = now.clone();
            now.damaged.clear();
            return !stopping.is_stopping() && progress.blocking_send(Ok(message)).is_ok();
        }
        !progress.is_closed()
    });
    let message = match result {
        Ok(()) if stopping.is_stopping() => {
            Err(Status::unavailable("the storage node is being stopped: verify again later"))
        }
        Ok(()) => {
            now.done = true;
            Ok(now)
        }
        Err(e) => Err(e.into()),
    };
    // A client that is gone does not want to know.
    let _ = progress.blocking_send(message);
}

fn note(now: &mut pb::VerifyProgress, checked: Checked) {
    now.chunks_checked += 1;
    now.bytes_checked += u64::from(checked.len);
    if let Err(e) = checked.result {
        now.damaged.push(pb::DamagedChunk { id: checked.id.to_wire(), why: e.to_string() });
    }
}
