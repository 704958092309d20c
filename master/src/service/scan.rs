//! Walk and Fsck: long reads of a snapshot, on blocking threads, as fast as the caller takes them.
//! What a check mends goes through the op thread like every other change.

use std::{sync::Arc, time::Duration};

use cairn_proto::{pb, status};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tonic::Status;

use super::Service;
use crate::{
    engine::EngineError,
    namespace::{Finding, FsckProgress, Namespace, View},
    op_thread::{CallError, OpQueue},
};

/// Messages made ahead of the caller.
const AHEAD: usize = 64;
/// Findings that are mended in one go.
const REPAIRS: usize = 64;
/// How long a caller may take for one message.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) type Messages<T> = mpsc::Receiver<Result<T, Status>>;

/// The way to the caller, from a blocking thread.
pub(super) struct Caller<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    runtime: Handle,
    _permit: OwnedSemaphorePermit,
}

impl<T> Caller<T> {
    /// False when the caller is gone or does not read.
    pub(super) fn send(&self, message: Result<T, Status>) -> bool {
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

    /// Checks the whole namespace against itself; mends what it can when asked to.
    pub(super) async fn fsck(
        self: &Arc<Self>,
        request: pb::FsckRequest,
    ) -> Result<Messages<pb::FsckProgress>, Status> {
        let ops = self.ops.clone();
        self.scan(move |view, caller: Caller<pb::FsckProgress>| {
            let mut report = |progress: FsckProgress| {
                let findings = match request.repair {
                    true => caller.runtime.block_on(repair(&ops, &progress.findings)),
                    false => Ok(progress.findings.iter().map(untouched).collect()),
                };
                let broken = findings.is_err();
                let message = findings.map(|findings| pb::FsckProgress {
                    inodes: progress.inodes,
                    dentries: progress.dentries,
                    segments: progress.segments,
                    references: progress.references,
                    findings,
                    done: progress.done,
                });
                caller.send(message.map_err(Status::from)) && !broken
            };
            if let Err(error) = view.fsck(&mut report) {
                caller.send(Err(failed(&error)));
            }
        })
        .await
    }

    pub(super) async fn scan<T: Send + 'static>(
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

fn untouched(finding: &Finding) -> pb::FsckFinding {
    pb::FsckFinding { what: finding.what.clone(), done: String::new() }
}

/// Applies the remedies of findings, some at a time: operations go on in between.
async fn repair(ops: &OpQueue, findings: &[Finding]) -> Result<Vec<pb::FsckFinding>, CallError> {
    let mut all = Vec::with_capacity(findings.len());
    for some in findings.chunks(REPAIRS) {
        let some = some.to_vec();
        let mended = ops.call(true, move |namespace| {
            let mend = |finding: &Finding| pb::FsckFinding {
                done: mend(namespace, finding),
                ..untouched(finding)
            };
            some.iter().map(mend).collect::<Vec<_>>()
        });
        all.extend(mended.await?);
    }
    Ok(all)
}

/// What was done about a finding; empty when nothing was.
fn mend(namespace: &mut Namespace, finding: &Finding) -> String {
    let Some(remedy) = &finding.remedy else { return String::new() };
    match namespace.repair(remedy) {
        Ok(done) => {
            let done = done.unwrap_or_default();
            tracing::warn!(finding = finding.what, done, "repair");
            done
        }
        Err(error) => {
            tracing::error!(finding = finding.what, %error, "the repair failed");
            String::new()
        }
    }
}

pub(super) fn failed(error: &EngineError) -> Status {
    Status::internal(format!("the metadata could not be read: {error}"))
}
