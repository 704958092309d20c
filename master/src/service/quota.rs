//! Quotas of directories: set, removed, shown; and the task that counts what a directory held before.

use std::{sync::Arc, time::Duration};

use cairn_proto::{FsError, pb, status};
use tokio::{sync::Notify, time::timeout};
use tonic::Status;

use super::Service;
use crate::{
    engine::EngineError,
    namespace::{Namespace, QuotaLimits, QuotaWalk},
    op_thread::{CallError, OpQueue},
    tables::rows::{QuotaRow, QuotaState},
};

/// The task looks at least this often: a quota also ends with its directory.
const LOOK: Duration = Duration::from_secs(30);
/// How long it lets go when the metadata disk is full.
const FULL: Duration = Duration::from_secs(1);

impl Service {
    /// Sets or changes the quota of a directory; what it holds is counted in the background.
    pub(super) async fn set_quota(
        &self,
        request: pb::SetQuotaRequest,
    ) -> Result<pb::Quota, Status> {
        let limits = QuotaLimits { bytes: request.bytes_limit, inodes: request.inodes_limit };
        let path = request.path.clone();
        let set = self.ops.call(true, move |namespace| namespace.set_quota(&path, limits)).await?;
        self.quota_work.notify_one();
        set.map(to_wire).map_err(|error| refused(&request.path, error))
    }

    /// Takes the quota of a directory away.
    pub(super) async fn remove_quota(
        &self,
        request: pb::RemoveQuotaRequest,
    ) -> Result<pb::Quota, Status> {
        let path = request.path.clone();
        let removed = self.ops.call(true, move |namespace| namespace.remove_quota(&path)).await?;
        self.quota_work.notify_one();
        removed.map(to_wire).map_err(|error| refused(&request.path, error))
    }

    /// All quotas, or that of one directory.
    pub(super) async fn quotas(
        &self,
        request: pb::QuotasRequest,
    ) -> Result<pb::QuotasResponse, Status> {
        let path = request.path.clone();
        let found = self.ops.call(false, move |namespace| read(namespace, &path)).await?;
        let found = found.map_err(|error| refused(&request.path, error))?;
        Ok(pb::QuotasResponse { quotas: found.into_iter().map(to_wire).collect() })
    }
}

fn read(namespace: &mut Namespace, path: &str) -> Result<Vec<(u64, QuotaRow)>, FsError> {
    let all = namespace.quotas()?;
    if path.is_empty() {
        return Ok(all);
    }
    let ino = namespace.resolve(path)?.ino.get();
    let account = namespace.quota_of(ino)?;
    Ok(all.into_iter().filter(|(found, _)| *found == account).collect())
}

fn to_wire((ino, row): (u64, QuotaRow)) -> pb::Quota {
    let state = row.state();
    pb::Quota {
        ino,
        path: format!("/{}", row.path),
        bytes_limit: row.bytes_limit,
        inodes_limit: row.inodes_limit,
        bytes: row.bytes,
        inodes: row.inodes,
        counting: state == QuotaState::Counting,
        ending: state == QuotaState::Ending,
    }
}

fn refused(path: &str, error: FsError) -> Status {
    let path = path.trim_matches('/');
    let why = match error {
        FsError::NoAttribute => {
            "it has no quota: cairn quota list shows which directories have".into()
        }
        FsError::Busy => {
            "its quota is being counted or removed: try again when that is done".into()
        }
        other => other.to_string(),
    };
    status::from_fs(error, format!("/{path}: {why}"))
}

/// Counts and lets go until the op thread is gone.
pub(crate) async fn work(ops: OpQueue, wanted: Arc<Notify>) {
    loop {
        match settle_all(&ops).await {
            Ok(()) => {}
            Err(Failed::Call(CallError::Stopping)) => return,
            Err(Failed::Call(CallError::NoSpace)) => {
                tokio::time::sleep(FULL).await;
                continue;
            }
            Err(Failed::Engine(error)) => tracing::error!(%error, "a quota cannot be counted"),
        }
        // At the latest after a while it looks anyway.
        let _ = timeout(LOOK, wanted.notified()).await;
    }
}

enum Failed {
    Call(CallError),
    Engine(EngineError),
}

async fn settle_all(ops: &OpQueue) -> Result<(), Failed> {
    let all = ops.call(false, Namespace::quotas).await.map_err(Failed::Call)?;
    for (account, row) in all.map_err(Failed::Engine)? {
        let Some(mut walk) = QuotaWalk::of(account, row.state()) else { continue };
        loop {
            let step = move |namespace: &mut Namespace| {
                let more = namespace.quota_step(&mut walk);
                (walk, more)
            };
            let (back, more) = ops.call(false, step).await.map_err(Failed::Call)?;
            walk = back;
            if !more.map_err(Failed::Engine)? {
                break;
            }
        }
    }
    Ok(())
}
