//! Getting one chunk: the node that is likely to answer first, then the others, verified bytes only.
//!
//! A node that has not answered after [`HEDGE`] and three times its usual latency, and is not busy
//! answering others either, gets company: the next one is asked too and the first good answer wins.
//! Rounds over all nodes go on to the deadline as long as one of them could not be asked; only when all
//! have said "not found" or sent damaged bytes is that the result.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkRef, ClusterMap};
use futures_util::FutureExt as _;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, warn};

use super::{
    Inner, Turn,
    fleet::NodeLink,
    gets::{Answer, GetItem, Gets},
    pipe::{Cargo as _, Pipe},
};

/// Least time before a second node is asked.
const HEDGE: Duration = Duration::from_millis(150);
/// Most time before a second node is asked, however slow the first usually is.
const HEDGE_MAX: Duration = Duration::from_secs(1);
/// A node that answered something within this time is working, and the request is in its queue.
const WORKING: Duration = Duration::from_millis(100);
/// How soon a working node is looked at again.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes of load that outweigh whose turn it is.
const LOAD_STEP: usize = 2 << 20;
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

pub(super) async fn get(
    inner: &Inner,
    chunk: &ChunkRef,
    turn: Turn,
    wanted: impl Fn() -> bool,
) -> Result<Bytes, ChunkError> {
    let deadline = Instant::now() + inner.deadline;
    let budget = timeout_at(deadline, inner.download.take(inner.room(chunk))).await;
    let _budget = budget.map_err(|_| ChunkError::Unreachable)?;
    let mut backoff = BACKOFF;
    loop {
        let map = inner.session.map();
        match timeout_at(deadline, round(inner, &map, chunk, turn)).await {
            Ok(Ok(data)) => return Ok(data),
            Ok(Err(error)) if !error.may_retry() => return Err(error),
            Ok(Err(error)) => debug!(chunk = %chunk.id, %error, "no node gave it"),
            Err(_) => return Err(ChunkError::Unreachable),
        }
        let now = Instant::now();
        if now >= deadline || !wanted() {
            return Err(ChunkError::Unreachable);
        }
        inner.newer_map(map.epoch, backoff.min(deadline - now)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Asks every node that may hold the chunk, at most once.
async fn round(
    inner: &Inner,
    map: &ClusterMap,
    chunk: &ChunkRef,
    turn: Turn,
) -> Result<Bytes, ChunkError> {
    let mut waiting = order(inner, map, chunk, turn).into_iter();
    let mut asked = Answers::default();
    let mut verdict = Verdict::default();
    let Some(first) = waiting.next() else { return Err(ChunkError::TooFewNodes) };
    let mut last = asked.ask(inner, first, chunk, turn);
    let mut look_at = last.hedge_at();
    loop {
        tokio::select! {
            biased;
            answer = asked.next() => {
                let Some((link, result)) = answer else { return Err(verdict.error()) };
                match result {
                    Ok(data) => return Ok(data),
                    Err(error) => verdict.note(inner, map, chunk, &link, error),
                }
                // A failed node is replaced at once.
                if let Some(next) = waiting.next() {
                    last = asked.ask(inner, next, chunk, turn);
                    look_at = last.hedge_at();
                }
            }
            () = sleep_until(look_at) => {
                if waiting.len() == 0 {
                    // Of what is asked of the node itself the pipe says so.
                    if last.link.reading_silently() >= Gets::STALL {
                        verdict.note(inner, map, chunk, &last.link, ChunkError::Unreachable);
                        return Err(verdict.error());
                    }
                    look_at = Instant::now() + HEDGE_MAX;
                    continue;
                }
                if last.is_working() {
                    look_at = Instant::now() + LOOK;
                    continue;
                }
                last.link.avoid();
                if let Some(next) = waiting.next() {
                    debug!(chunk = %chunk.id, late = last.link.name, "asking another node too");
                    last = asked.ask(inner, next, chunk, turn);
                    look_at = last.hedge_at();
                }
            }
        }
    }
}

/// A node that was asked last.
struct Asked {
    link: Arc<NodeLink>,
    pipe: Arc<Pipe<Gets>>,
    at: Instant,
}

impl Asked {
    fn hedge_at(&self) -> Instant {
        self.at + (HEDGE + 3 * self.link.latency()).min(HEDGE_MAX)
    }

    /// Answering others, so that ours is in its queue; nobody's patience lasts for ever, though.
    fn is_working(&self) -> bool {
        let silence = self.pipe.silence().max(self.link.reading_silently());
        silence < WORKING && self.at.elapsed() < 2 * HEDGE_MAX
    }
}

/// The nodes that were asked and have not answered yet. Never more than a few: each is looked at whenever one is heard
/// of. (`FuturesUnordered` wakes its task once more for each that it is given.)
#[derive(Default)]
struct Answers {
    due: Vec<(Arc<NodeLink>, oneshot::Receiver<Answer>)>,
}

impl Answers {
    fn ask(&mut self, inner: &Inner, link: Arc<NodeLink>, chunk: &ChunkRef, turn: Turn) -> Asked {
        let (reply, answer) = oneshot::channel();
        let pipe = link.gets(turn);
        let at = Instant::now();
        pipe.push(GetItem { order: inner.place_of(turn), chunk: *chunk, asked: at, reply });
        self.due.push((link.clone(), answer));
        Asked { link, pipe, at }
    }

    /// The next one; `None` when none is due. Cancel-safe.
    async fn next(&mut self) -> Option<(Arc<NodeLink>, Result<Bytes, ChunkError>)> {
        poll_fn(|context| {
            for n in 0..self.due.len() {
                if let Poll::Ready(answer) = self.due[n].1.poll_unpin(context) {
                    let (link, _) = self.due.swap_remove(n);
                    let answer = answer.unwrap_or(Err(ChunkError::Unreachable));
                    let data = answer.map(|(data, took)| {
                        link.answered(took);
                        data
                    });
                    return Poll::Ready(Some((link, data)));
                }
            }
            if self.due.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

/// What the nodes said that did not have the chunk.
#[derive(Default)]
struct Verdict {
    unreachable: bool,
    damaged: bool,
}

impl Verdict {
    fn note(
        &mut self,
        inner: &Inner,
        map: &ClusterMap,
        chunk: &ChunkRef,
        link: &NodeLink,
        error: ChunkError,
    ) {
        match error {
            ChunkError::NotFound => debug!(chunk = %chunk.id, node = link.name, "not there"),
            ChunkError::Damaged => {
                self.damaged = true;
                warn!(chunk = %chunk.id, node = link.name, "damaged copy, trying another node");
            }
            ChunkError::Unreachable | ChunkError::DiskFailed => {
                self.unreachable = true;
                link.avoid();
                inner.report(map, link, &error.to_string());
            }
            ChunkError::Mismatch
            | ChunkError::BadLength
            | ChunkError::NoSpace
            | ChunkError::Overloaded
            | ChunkError::TooFewNodes
            | ChunkError::Malformed => {
                self.unreachable = true;
                warn!(chunk = %chunk.id, node = link.name, %error, "cannot read from this node");
            }
        }
    }

    fn error(&self) -> ChunkError {
        if self.unreachable {
            ChunkError::Unreachable
        } else if self.damaged {
            ChunkError::Damaged
        } else {
            ChunkError::NotFound
        }
    }
}

/// All nodes, the best first: those that should hold the chunk and are well, the one with less to do
/// before the other; then as the map says; those that failed a moment ago last.
fn order(inner: &Inner, map: &ClusterMap, chunk: &ChunkRef, turn: Turn) -> Vec<Arc<NodeLink>> {
    let nodes = map.read_order(map.group(&chunk.id));
    let mut links = Vec::with_capacity(nodes.len());
    let mut well = 0;
    for node in nodes {
        let Some(link) = inner.fleet.link(map, node) else { continue };
        let good = node.state.reads_first() && !link.is_avoided();
        if good && links.len() < map.replicas as usize {
            well += 1;
        }
        links.push((!good, link));
    }
    links.sort_by_key(|(bad, _)| *bad);
    let mut links: Vec<_> = links.into_iter().map(|(_, link)| link).collect();
    if well > 1 {
        // Equal load: they take turns, so that their disks and caches are used evenly.
        links[..well].sort_unstable_by_key(|link| link.id);
        links[..well].rotate_left((turn.run % well as u64) as usize);
        links[..well].sort_by_key(|link| link.reading() / LOAD_STEP);
    }
    links
}
