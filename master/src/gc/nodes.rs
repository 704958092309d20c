//! The nodes' part of a cycle: who has the epoch, and one sweep of one node.
//!
//! Every wait has a deadline; a node that misses one is left out of the cycle, which is safe at every
//! point: what it has decided stands, what it has not decided stays.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    Node, NodeId, NodeState,
    handshake::Greeting,
    limits::{BATCH_BYTES, MESSAGE_MAX},
    pb::{self, storage_service_client::StorageServiceClient, sweep_part::Part},
    status::{innermost, sentence},
    transport,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{Collector, mark::Marked};
use crate::cluster::membership::Member;

/// How long nodes have to hear of an epoch.
const HEAR: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);
const CONNECT: Duration = Duration::from_secs(2);
/// How long a node may take for one step of a sweep.
const STEP: Duration = Duration::from_secs(60);
/// Parts of a sweep that wait for the node.
const AHEAD: usize = 4;

/// A node that takes part in a cycle.
#[derive(Clone, Debug)]
pub(super) struct Participant {
    pub(super) node: Node,
    /// Bytes of chunks that it holds.
    pub(super) stored: u64,
}

/// Who takes part, and who does not: name and reason.
pub(super) type Choice = (Vec<Participant>, Vec<String>);

/// What people call it.
fn name(node: &Node) -> String {
    if node.name.is_empty() { node.address() } else { node.name.clone() }
}

fn participant(member: &Member, epoch: u64) -> Result<Participant, String> {
    let out = |why: &str| Err(format!("{}: {why}", name(&member.node)));
    match member.node.state {
        NodeState::Up | NodeState::Suspect | NodeState::Draining | NodeState::Maintenance => {}
        NodeState::Down | NodeState::Out => return out(member.node.state.word()),
    }
    let Some(status) = &member.status else { return out("it does not report") };
    if status.gc_epoch < epoch {
        return out("it has not heard of the epoch");
    }
    let stored = status.disks.iter().map(|disk| disk.chunk_bytes).sum();
    Ok(Participant { node: member.node.clone(), stored })
}

impl Collector {
    /// The greatest epoch that a node has.
    pub(super) fn greatest_epoch(&self) -> u64 {
        self.cluster.with(|members, _| {
            members
                .members()
                .filter_map(|m| m.status.as_ref())
                .map(|s| s.gc_epoch)
                .max()
                .unwrap_or(0)
        })
    }

    /// Waits until every node that is up has `epoch`, for a bounded time; who has it then.
    pub(super) async fn choose(&self, epoch: u64) -> Choice {
        let end = Instant::now() + HEAR;
        loop {
            let (choice, waiting) = self.cluster.with(|members, _| {
                let mut choice: Choice = (Vec::new(), Vec::new());
                let mut waiting = false;
                for member in members.members().filter(|member| !member.is_foreign()) {
                    match participant(member, epoch) {
                        Ok(participant) => choice.0.push(participant),
                        Err(why) => {
                            waiting |= member.node.state == NodeState::Up;
                            choice.1.push(why);
                        }
                    }
                }
                (choice, waiting)
            });
            if !waiting || Instant::now() >= end {
                return choice;
            }
            sleep(LOOK).await;
        }
    }
}

/// Sweeps one node; what it found and did, or why there is no answer.
pub(super) async fn sweep(
    greeting: Greeting,
    node: Node,
    plan: pb::SweepPlan,
    marked: Arc<Vec<Marked>>,
) -> (NodeId, Result<pb::SweepProgress, String>) {
    let result = sweep_node(greeting, &node, plan, marked).await;
    (node.id, result.map_err(|why| format!("{}: {why}", name(&node))))
}

async fn sweep_node(
    greeting: Greeting,
    node: &Node,
    plan: pb::SweepPlan,
    marked: Arc<Vec<Marked>>,
) -> Result<pb::SweepProgress, String> {
    let late = |_| "no answer in time".to_owned();
    let endpoint = transport::endpoint(&node.address(), CONNECT).map_err(|e| e.to_string())?;
    let channel = timeout(CONNECT, endpoint.connect()).await.map_err(late)?;
    let channel = channel.map_err(|e| innermost(&e))?;
    let mut client = StorageServiceClient::with_interceptor(channel, greeting)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let (parts, queue) = mpsc::channel(AHEAD);
    let feeder = tokio::spawn(feed(parts, plan, marked));
    let answer = async {
        let call = client.sweep(Request::new(ReceiverStream::new(queue)));
        let opened = timeout(STEP, call).await.map_err(late)?;
        let mut progress = opened.map_err(|status| sentence(&status))?.into_inner();
        loop {
            let message = timeout(STEP, progress.message()).await.map_err(late)?;
            match message.map_err(|status| sentence(&status))? {
                Some(message) if message.done => return Ok(message),
                Some(_) => {}
                None => return Err("it ended the sweep without a result".to_owned()),
            }
        }
    };
    let answer = answer.await;
    feeder.abort();
    answer
}

/// The messages of one sweep, as the node takes them.
async fn feed(parts: mpsc::Sender<pb::SweepPart>, plan: pb::SweepPlan, marked: Arc<Vec<Marked>>) {
    let part = |part| pb::SweepPart { part: Some(part) };
    let groups = marked.iter().flat_map(pieces).map(Part::Group);
    for message in std::iter::once(Part::Plan(plan)).chain(groups) {
        // An error means that the node takes no more.
        if parts.send(part(message)).await.is_err() {
            return;
        }
    }
}

/// One group in messages of a bounded size, at least one.
fn pieces(marked: &Marked) -> Vec<pb::SweepGroup> {
    let Marked { group, references, bits } = marked;
    let count = bits.len().div_ceil(BATCH_BYTES).max(1);
    let piece = |n: usize| {
        let range = n * BATCH_BYTES..bits.len().min((n + 1) * BATCH_BYTES);
        pb::SweepGroup {
            group: *group,
            references: *references,
            bits: if range.is_empty() { Bytes::new() } else { bits.slice(range) },
            more: n + 1 < count,
        }
    };
    (0..count).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_travels_in_pieces_that_make_it_again() {
        for len in [0, 8, BATCH_BYTES, 2 * BATCH_BYTES + 8] {
            let bits: Bytes = (0..len).map(|i| i as u8).collect::<Vec<_>>().into();
            let all = pieces(&Marked { group: 7, references: 3, bits: bits.clone() });
            assert!(all.iter().all(|piece| piece.group == 7 && piece.references == 3));
            let (last, others) = all.split_last().unwrap();
            assert!(!last.more && others.iter().all(|piece| piece.more));
            let again: Vec<u8> = all.iter().flat_map(|piece| piece.bits.to_vec()).collect();
            assert_eq!(again, bits);
        }
    }
}
