//! Roots of backups of the metadata: kept for the master, told to whoever restores one.

use std::sync::Arc;

use cairn_proto::{FsError, pb, status::from_fs};
use tonic::Status;

use super::ChunkService;
use crate::backups::KeepError;

pub(super) async fn keep(
    service: &ChunkService,
    request: pb::KeepBackupRequest,
) -> Result<pb::KeepBackupResponse, Status> {
    let backup =
        request.backup.ok_or_else(|| Status::invalid_argument("there is no root in it"))?;
    let backups = Arc::clone(&service.backups);
    let keep = move || backups.keep(&backup, request.drop_below);
    match service.store.blocking(keep).await {
        Ok(()) => Ok(pb::KeepBackupResponse {}),
        Err(error @ KeepError::Malformed(_)) => Err(Status::invalid_argument(error.to_string())),
        Err(error @ KeepError::Io(..)) => Err(from_fs(FsError::Io, error.to_string())),
    }
}

pub(super) async fn all(service: &ChunkService) -> pb::BackupsResponse {
    let backups = Arc::clone(&service.backups);
    pb::BackupsResponse { backups: service.store.blocking(move || backups.all()).await }
}
