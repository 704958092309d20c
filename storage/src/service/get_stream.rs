//! The get stream: batches of ids in, batches of chunks out, in the order in which they are read.
//!
//! Bounds: the room for an answer is taken before it is read and given back when it has left the
//! queue; a client that takes no answer for [`PATIENCE`] loses its stream, and while others wait for the
//! room that it holds, after [`CROWDED`] already.

use std::{sync::Arc, time::Duration};

use cairn_proto::{ChunkError, ChunkId, pb};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::Status;

use super::{Caller, Replies, Stopping, ids};
use crate::store::Store;

const UNANSWERED: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);
const CROWDED: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(250);

type Answer = (Result<pb::GetBatchReply, Status>, Option<OwnedSemaphorePermit>);

/// Serves one stream until the client has closed it, is gone or stuck, or the node stops.
pub(super) fn open(
    store: Arc<Store>,
    batches: impl Stream<Item = Result<pb::GetBatch, Status>> + Send + Unpin + 'static,
    caller: Caller,
    mut stopping: Stopping,
) -> Replies<pb::GetBatchReply> {
    let (answers, queue) = mpsc::channel::<Answer>(1);
    let stuck = Arc::new(Notify::new());
    tokio::spawn(async move {
        tokio::select! {
            () = stopping.wait() => {}
            () = answers.closed() => {}
            () = stuck.notified() => {}
            result = accept(&store, batches, caller, &answers, &stuck) => {
                if let Err(status) = result {
                    // A client that is gone cannot be told.
                    let _ = answers.send((Err(status), None)).await;
                }
            }
        }
    });
    Box::pin(ReceiverStream::new(queue).map(|(reply, _room)| reply))
}

async fn accept(
    store: &Arc<Store>,
    mut batches: impl Stream<Item = Result<pb::GetBatch, Status>> + Unpin,
    caller: Caller,
    answers: &mpsc::Sender<Answer>,
    stuck: &Arc<Notify>,
) -> Result<(), Status> {
    let slots = Arc::new(Semaphore::new(UNANSWERED));
    while let Some(batch) = batches.try_next().await? {
        let ids = ids(&batch.ids)?;
        let slot = Arc::clone(&slots).acquire_owned().await.expect("is never closed");
        let room = store.admit_get(ids.len()).await;
        let (store, answers, stuck) = (Arc::clone(store), answers.clone(), Arc::clone(stuck));
        tokio::spawn(async move {
            let items = match caller {
                Caller::Near if batch.places => locate(&store, ids).await,
                Caller::Near | Caller::Far => read(&store, ids).await,
            };
            let reply = pb::GetBatchReply { seq: batch.seq, items };
            if let Delivered::Stuck = deliver(&store, &answers, (Ok(reply), Some(room))).await {
                tracing::warn!("a client takes no answers: its read stream ends");
                stuck.notify_one();
            }
            drop(slot);
        });
    }
    Ok(())
}

enum Delivered {
    /// It is in the queue, or the client is gone.
    Done,
    /// The client takes nothing.
    Stuck,
}

async fn deliver(store: &Store, answers: &mpsc::Sender<Answer>, answer: Answer) -> Delivered {
    let since = Instant::now();
    loop {
        match timeout(LOOK, answers.reserve()).await {
            Ok(Ok(place)) => {
                place.send(answer);
                return Delivered::Done;
            }
            Ok(Err(_)) => return Delivered::Done,
            Err(_) => {
                let patience = if store.gets_wait() { CROWDED } else { PATIENCE };
                if since.elapsed() >= patience {
                    return Delivered::Stuck;
                }
            }
        }
    }
}

async fn read(store: &Arc<Store>, ids: Vec<ChunkId>) -> Vec<pb::GetItem> {
    let found = store.get(ids).await.into_iter();
    found
        .map(|result| match result {
            Ok(data) => pb::GetItem { data, ..pb::GetItem::default() },
            Err(error) => failed(error),
        })
        .collect()
}

/// As [`read`], for a caller who reads our files itself, if it can.
async fn locate(store: &Arc<Store>, ids: Vec<ChunkId>) -> Vec<pb::GetItem> {
    let Some(found) = store.locate(&ids).await else { return read(store, ids).await };
    found
        .into_iter()
        .map(|result| match result {
            Ok(place) => pb::GetItem { place: Some(place), ..pb::GetItem::default() },
            Err(error) => failed(error),
        })
        .collect()
}

fn failed(error: ChunkError) -> pb::GetItem {
    pb::GetItem { error: Some(error.into()), ..pb::GetItem::default() }
}
