//! The calls by which the master has copies made and dropped.

use std::sync::Arc;

use cairn_proto::{Group, Malformed, Node, limits::NODES_MAX, pb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Replies, Stopping, admin::group_bits};
use crate::repair::{
    Repair,
    letting_go::{Leave, LeaveError},
    pull::Pull,
    tally::Tally,
};

const MESSAGES_QUEUED: usize = 16;

/// Serves one pull until it is done, the caller is gone, or the node stops.
pub(super) fn pull(
    repair: &Arc<Repair>,
    request: &pb::PullRequest,
    mut stopping: Stopping,
) -> Result<Replies<pb::PullProgress>, Status> {
    let pg_bits = group_bits(request.pg_bits)?;
    let groups = request.groups.iter().map(|g| group(*g, pg_bits)).collect::<Result<_, _>>()?;
    let pull = Pull {
        pg_bits,
        groups,
        sources: nodes(&request.sources)?,
        bytes_per_second: request.bytes_per_second,
    };
    let Some(turn) = repair.begin_pull() else {
        return Err(Status::resource_exhausted("this node pulls for several callers already"));
    };
    let (progress, queue) = mpsc::channel(MESSAGES_QUEUED);
    let repair = Arc::clone(repair);
    tokio::spawn(async move {
        let tally = Tally::new(progress);
        tokio::select! {
            () = stopping.wait() => {}
            () = tally.abandoned() => {}
            () = tally.tick() => {}
            () = repair.pull(pull, &tally) => tally.done().await,
        }
        drop(turn);
    });
    Ok(Box::pin(ReceiverStream::new(queue)))
}

/// Drops what the homes confirm.
pub(super) async fn leave(
    repair: &Repair,
    request: &pb::DropRequest,
) -> Result<pb::DropResponse, Status> {
    let pg_bits = group_bits(request.pg_bits)?;
    let leave = Leave {
        pg_bits,
        group: group(request.group, pg_bits)?,
        homes: nodes(&request.homes)?,
        map_epoch: request.map_epoch,
    };
    match repair.leave(&leave).await {
        Ok(left) => Ok(pb::DropResponse {
            chunks_dropped: left.chunks,
            bytes_dropped: left.bytes,
            chunks_kept: left.kept,
        }),
        Err(LeaveError::Chunk(e)) => Err(e.into()),
        Err(e @ LeaveError::OldMap { .. }) => Err(Status::failed_precondition(e.to_string())),
        Err(e @ LeaveError::Home) => Err(Status::invalid_argument(e.to_string())),
        Err(e @ LeaveError::Peer(_)) => Err(Status::unavailable(e.to_string())),
    }
}

fn group(wire: u32, pg_bits: u32) -> Result<Group, Malformed> {
    if wire >= Group::count(pg_bits) {
        return Err(Malformed::new("group", format!("{wire} of {pg_bits} bits")));
    }
    Ok(Group(wire))
}

fn nodes(wire: &[pb::Node]) -> Result<Vec<Node>, Malformed> {
    if wire.len() > NODES_MAX {
        return Err(Malformed::new("nodes", format!("{}, at most {NODES_MAX}", wire.len())));
    }
    wire.iter().map(Node::try_from).collect()
}
