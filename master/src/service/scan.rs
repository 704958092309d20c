//! Walk and Fsck: long reads of a snapshot, on blocking threads, as fast as the caller takes them.

use std::{sync::Arc, time::Duration};

use cairn_proto::{pb, status};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tonic::Status;

use super::Service;
use crate::{engine::EngineError, namespace::View};

/// Messages made ahead of the caller.
const AHEAD: usize = 64;
/// How long a caller may take for one message.
const PATIENCE: Duration = Duration::from_secs(60);

type Messages<T> = mpsc::Receiver<Result<T, Status>>;

/// The way to the caller, from a blocking thread.
struct Caller<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    runtime: Handle,
    _permit: OwnedSemaphorePermit,
}

impl<T> Caller<T> {
    /// False when the caller is gone or does not read.
    fn send(&self, message: Result<T, Status>) -> bool {
        self.runtime
            .block_on(async { timeout(PATIENCE, self.messages.send(message)).await })
            .is_ok_and(|sent| sent.is_ok())
    }
}

impl Service {
    /// Every inode under a path, depth first.
    pub(super) async fn walk(
        self: &Arc<Self>,
        request: pb::WalkRequest,
    ) -> Result<Messages<pb::WalkEntry>, Status> {
        self.scan(move |view, caller: Caller<pb::WalkEntry>| {
            let path = request.path.trim_matches('/');
            let entries = match view.walk(path, request.with_refs) {
                Ok(entries) => entries,
                Err(error) => {
                    let why = format!("/{path}: {error}");
                    caller.send(Err(status::from_fs(error, why)));
                    return;
                }
            };
            for entry in entries {
                let broken = entry.is_err();
                if !caller.send(entry.map_err(Status::from)) || broken {
                    return;
                }
            }
        })
        .await
    }

    /// Checks the whole namespace against itself.
    pub(super) async fn fsck(self: &Arc<Self>) -> Result<Messages<pb::FsckProgress>, Status> {
        self.scan(|view, caller: Caller<pb::FsckProgress>| {
            let checked = view.fsck(&mut |progress| caller.send(Ok(progress)));
            if let Err(error) = checked {
                caller.send(Err(failed(&error)));
            }
        })
        .await
    }

    async fn scan<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(View, Caller<T>) + Send + 'static,
    ) -> Result<Messages<T>, Status> {
        let permit = Arc::clone(&self.scans).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("enough walks and checks are running: try again later")
        })?;
        let view = self.ops.call(false, |namespace| namespace.view()).await?;
        let view = view.map_err(|error| failed(&error))?;
        let (messages, receiver) = mpsc::channel(AHEAD);
        let caller = Caller { messages, runtime: Handle::current(), _permit: permit };
        tokio::task::spawn_blocking(move || work(view, caller));
        Ok(receiver)
    }
}

fn failed(error: &EngineError) -> Status {
    Status::internal(format!("the metadata could not be read: {error}"))
}
