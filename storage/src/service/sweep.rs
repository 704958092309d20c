//! The sweep stream: a plan and filters in, what was found and done out.
//!
//! Bounds: one group's filter is decided about while the next arrives. A stream that breaks, or says
//! nothing for [`SILENCE`], ends the sweep; what was decided stands, which is safe at every point.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use cairn_proto::{
    Group,
    garbage_filter::{GarbageFilter, filter_bytes},
    limits::PG_BITS_MAX,
    pb::{self, sweep_part::Part},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Replies, Stopping};
use crate::store::{
    Store,
    sweep::{Plan, Stopped, Sweep, Swept, Tally},
};

/// How long the master may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two reports.
const EVERY: Duration = Duration::from_millis(500);
/// Largest filter of one group: a billion references.
const FILTER_MAX: usize = 2 << 30;

type Progress = mpsc::Sender<Result<pb::SweepProgress, Status>>;
/// A group and what is referred to of it, or why no more come.
type Arrived = Result<(Group, GarbageFilter), Status>;

/// Serves one sweep.
pub(super) async fn open(
    store: &Arc<Store>,
    mut parts: Streaming<pb::SweepPart>,
    stopping: Stopping,
) -> Result<Replies<pb::SweepProgress>, Status> {
    let Some(Part::Plan(plan)) = next(&mut parts).await?.and_then(|part| part.part) else {
        return Err(Status::invalid_argument("a sweep begins with its plan"));
    };
    let (salt, plan) = (plan.salt, check(&plan)?);
    let sweep = Sweep::begin(store, plan).map_err(|e| refusal(&e))?;
    let (filters, arrived) = mpsc::channel(1);
    let (progress, queue) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(broken) = receive(&mut parts, salt, plan.pg_bits, &filters).await {
            // A sweep that has ended does not want to know.
            let _ = filters.send(Err(broken)).await;
        }
    });
    tokio::task::spawn_blocking(move || run(sweep, arrived, &stopping, &progress));
    Ok(Box::pin(ReceiverStream::new(queue)))
}

fn check(plan: &pb::SweepPlan) -> Result<Plan, Status> {
    if plan.pg_bits > PG_BITS_MAX {
        return Err(Status::invalid_argument(format!("groups of {} bits", plan.pg_bits)));
    }
    Ok(Plan {
        epoch: plan.epoch,
        floor: plan.floor,
        pg_bits: plan.pg_bits,
        erase_from: plan.erase_from,
        quarantine_bytes_max: plan.quarantine_bytes_max,
        dry_run: plan.dry_run,
        reclaim: plan.reclaim,
    })
}

fn refusal(why: &Stopped) -> Status {
    Status::failed_precondition(why.to_string())
}

async fn next(parts: &mut Streaming<pb::SweepPart>) -> Result<Option<pb::SweepPart>, Status> {
    let silent = |_| Status::deadline_exceeded("the master says nothing");
    timeout(SILENCE, parts.message()).await.map_err(silent)?
}

/// Puts filters together and hands them on, until the stream ends.
async fn receive(
    parts: &mut Streaming<pb::SweepPart>,
    salt: u64,
    pg_bits: u32,
    filters: &mpsc::Sender<Arrived>,
) -> Result<(), Status> {
    let nonsense = |what: &str| Status::invalid_argument(format!("a sweep with {what}"));
    let mut bits = BytesMut::new();
    let mut expected = None;
    let mut following = 0;
    while let Some(part) = next(parts).await? {
        let Some(Part::Group(group)) = part.part else { return Err(nonsense("two plans")) };
        if expected.is_some_and(|expected| expected != group.group) {
            return Err(nonsense("a filter that is not complete"));
        }
        if group.group < following || u64::from(group.group) >= 1 << pg_bits {
            return Err(nonsense("groups out of order"));
        }
        if bits.len() + group.bits.len() > FILTER_MAX {
            return Err(nonsense("a filter that is too large"));
        }
        bits.extend_from_slice(&group.bits);
        expected = group.more.then_some(group.group);
        if group.more {
            continue;
        }
        // A filter that is too small would name garbage what is not.
        if bits.len() as u64 != filter_bytes(group.references) {
            return Err(nonsense("a filter of a wrong size"));
        }
        following = group.group + 1;
        let filter = GarbageFilter::from_bits(std::mem::take(&mut bits), salt);
        if filters.send(Ok((Group(group.group), filter))).await.is_err() {
            return Ok(());
        }
    }
    if expected.is_some() { Err(nonsense("a filter that is not complete")) } else { Ok(()) }
}

/// The sweep on its thread.
fn run(mut sweep: Sweep, mut arrived: mpsc::Receiver<Arrived>, stopping: &Stopping, to: &Progress) {
    let mut last = Instant::now();
    let mut tick = |swept: &Swept| {
        if last.elapsed() >= EVERY {
            last = Instant::now();
            return to.blocking_send(Ok(message(swept))).is_ok() && !stopping.is_stopping();
        }
        !stopping.is_stopping()
    };
    let outcome = loop {
        match arrived.blocking_recv() {
            None => break sweep.finish(&mut tick).map_err(|e| e.to_string()),
            Some(Err(broken)) => break Err(broken.message().to_owned()),
            Some(Ok((group, filter))) => {
                if let Err(stopped) = sweep.group(group, &filter) {
                    break Err(stopped.to_string());
                }
                if !tick(sweep.swept()) {
                    break Err("the storage node is being stopped".to_owned());
                }
            }
        }
    };
    let stopped = match outcome {
        Ok(()) => String::new(),
        Err(why) => {
            // What is erased in the index is buried all the same.
            match sweep.finish(&mut |_| false) {
                Ok(()) => why,
                Err(also) => format!("{why}; {also}"),
            }
        }
    };
    let last = pb::SweepProgress { done: true, stopped, ..message(sweep.swept()) };
    // The end of the sweep is visible to whoever begins the next one.
    drop(sweep);
    // A master that is gone does not want to know.
    let _ = to.blocking_send(Ok(last));
}

fn message(swept: &Swept) -> pb::SweepProgress {
    let tally = |t: Tally| Some(pb::ChunkTally { chunks: t.chunks, bytes: t.bytes });
    pb::SweepProgress {
        groups: swept.groups,
        live: tally(swept.live),
        young: tally(swept.young),
        quarantined: tally(swept.quarantined),
        waiting: tally(swept.waiting),
        restored: tally(swept.restored),
        erased: tally(swept.erased),
        returned_bytes: swept.returned_bytes,
        done: false,
        stopped: String::new(),
    }
}
