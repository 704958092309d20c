//! [`Pipe`]: one long-lived stream to a storage node that carries the requests of many callers.
//!
//! Items queue; when the transport has room, the stream takes what is there as one batch. The first
//! two batches leave at once with whatever they hold; while those are under way, further ones wait
//! until they are full or an answer comes. So a lone request is not delayed and many are not sent one
//! by one. Behind its first run ([`Order`]) a batch has all that is queued of another or nothing of it. Answers are
//! matched by the batch's seq.
//!
//! A stream is opened by the first item that needs it. When it breaks, its items are sent once more
//! over a fresh one (an idle connection may have died long ago); when that fails too, when the node
//! says nothing for [`Cargo::STALL`] with items under way, or when somebody calls [`Pipe::abort`], they
//! fail with `Unreachable`. So every item is answered within a bounded time.
//!
//! Bounds: items are bounded by the budgets of their callers; batches under way by [`FLIGHTS`].
//! Lock order: `state` alone, never across an await.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use cairn_proto::{
    ChunkError,
    bulk::{self, Weighty},
    limits::BATCH_BYTES,
};
use futures_util::{Stream, TryStreamExt as _};
use prost::Message;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use tonic::Status;
use tracing::debug;

use super::Order;
use crate::rpc::connect::NodeWire;

/// Batches under way on one stream.
const FLIGHTS: usize = 4;
/// Batches that leave without being full.
const EAGER: usize = 2;
/// Items of one batch.
const BATCH_ITEMS: usize = 16;
/// How long a stream may take to open, beyond the connection's own limit.
const OPEN: Duration = Duration::from_secs(2);

/// One request of one caller.
pub(super) trait Item: Send + 'static {
    /// Payload bytes, in whichever direction.
    fn bytes(&self) -> usize;
    /// Of those that wait the least leaves first.
    fn order(&self) -> Order;
    /// Whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool;
    /// The answer is `error`.
    fn fail(self, error: ChunkError);
}

/// What a pipe carries and how.
pub(super) trait Cargo: Sized + Send + Sync + 'static {
    /// One request.
    type Item: Item;
    /// A batch of them on the wire.
    type Request: Weighty + 'static;
    /// The answer to a batch.
    type Response: Message + Default + 'static;
    /// The call that it is a stream of.
    const PATH: &str;
    /// Silence with items under way after which the node counts as gone.
    const STALL: Duration;

    /// The batch of `items` on the wire.
    fn request<'a>(&self, seq: u64, items: impl Iterator<Item = &'a Self::Item>) -> Self::Request;

    /// The connection to open the stream on.
    fn wire(&self) -> NodeWire;

    /// The seq of the batch that `response` answers.
    fn seq(response: &Self::Response) -> u64;

    /// Gives each of `items` its part of `response`.
    fn settle(
        &self,
        items: Vec<Self::Item>,
        response: Self::Response,
    ) -> impl Future<Output = ()> + Send;
}

struct Entry<I> {
    item: I,
    /// Was on a stream that broke.
    again: bool,
}

struct Flight<I> {
    seq: u64,
    entries: Vec<Entry<I>>,
}

struct State<I> {
    queue: VecDeque<Entry<I>>,
    queued_bytes: usize,
    flights: VecDeque<Flight<I>>,
    /// Payload bytes queued and under way.
    load: usize,
    next_seq: u64,
    connection: u64,
    running: bool,
    closed: bool,
    /// The present stream is to be given up.
    aborted: bool,
    /// The last answer, or when it began to have something to wait for.
    heard: Instant,
    waker: Option<Waker>,
}

/// See the head of this file.
pub(super) struct Pipe<C: Cargo> {
    cargo: C,
    state: Mutex<State<C::Item>>,
    /// Tells the reader that there is something to wait for.
    busy: Notify,
    /// Tells the reader to look at `aborted`.
    abort: Notify,
}

/// Why a stream ended.
enum End {
    /// It had worked, its items deserve a fresh one.
    Broken,
    /// The node does not answer.
    Gone,
}

impl<C: Cargo> Pipe<C> {
    pub(super) fn new(cargo: C) -> Arc<Self> {
        Arc::new(Self {
            cargo,
            state: Mutex::new(State::new()),
            busy: Notify::new(),
            abort: Notify::new(),
        })
    }

    /// Queues `item`; its answer comes by itself.
    pub(super) fn push(self: &Arc<Self>, item: C::Item) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return item.fail(ChunkError::Unreachable);
        }
        if state.load == 0 {
            state.heard = Instant::now();
        }
        state.load += item.bytes();
        state.queue(Entry { item, again: false });
        let start = !std::mem::replace(&mut state.running, true);
        let waker = state.waker.take();
        drop(state);
        if start {
            tokio::spawn(self.clone().run());
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Payload bytes that wait or are under way.
    pub(super) fn load(&self) -> usize {
        self.lock().load
    }

    /// How long the node has owed an answer without giving any.
    pub(super) fn silence(&self) -> Duration {
        let state = self.lock();
        if state.load == 0 { Duration::ZERO } else { state.heard.elapsed() }
    }

    /// Gives up the stream: everything on it fails now.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        state.aborted = state.running;
        drop(state);
        self.abort.notify_one();
    }

    /// As [`Pipe::abort`], for ever.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.abort();
    }

    async fn run(self: Arc<Self>) {
        loop {
            let end = self.live().await;
            let mut state = self.lock();
            state.connection += 1;
            state.aborted = state.closed;
            let flown = state.flights.drain(..).flat_map(|f| f.entries).collect::<Vec<_>>();
            let mut failed = Vec::new();
            match end {
                End::Broken if !state.closed => {
                    let (dead, retry): (Vec<_>, Vec<_>) = flown.into_iter().partition(|e| e.again);
                    failed = dead;
                    for entry in retry.into_iter().rev() {
                        state.queue(Entry { again: true, ..entry });
                    }
                }
                End::Broken | End::Gone => {
                    failed.extend(flown);
                    failed.extend(state.queue.drain(..));
                    state.queued_bytes = 0;
                }
            }
            state.load = state.queued_bytes;
            state.heard = Instant::now();
            let more = !state.queue.is_empty();
            state.running = more;
            drop(state);
            for entry in failed {
                entry.item.fail(ChunkError::Unreachable);
            }
            if !more {
                return;
            }
        }
    }

    /// One stream, from opening to end.
    async fn live(self: &Arc<Self>) -> End {
        let outgoing = Outgoing { pipe: self.clone(), connection: self.lock().connection };
        let mut wire = self.cargo.wire();
        let opening = bulk::call::<_, _, C::Response>(&mut wire, C::PATH, outgoing);
        let opened = tokio::select! {
            opened = timeout(OPEN, opening) => opened,
            () = self.aborted() => return End::Gone,
        };
        let mut replies = match opened {
            Ok(Ok(replies)) => replies,
            Ok(Err(status)) => {
                debug!(%status, "no stream to the node");
                return End::Gone;
            }
            Err(_) => return End::Gone,
        };
        loop {
            tokio::select! {
                reply = replies.try_next() => match reply {
                    Ok(Some(reply)) => {
                        if let Some(items) = self.landed(C::seq(&reply)) {
                            self.cargo.settle(items, reply).await;
                            // While we were busy the node was not silent.
                            self.lock().heard = Instant::now();
                        }
                    }
                    Ok(None) => return End::Broken,
                    Err(status) => {
                        debug!(%status, "a stream to a node broke");
                        return End::Broken;
                    }
                },
                () = self.stalled() => return End::Gone,
                () = self.aborted() => return End::Gone,
            }
        }
    }

    /// The items of batch `seq`, which has been answered.
    fn landed(&self, seq: u64) -> Option<Vec<C::Item>> {
        let mut state = self.lock();
        state.heard = Instant::now();
        let at = state.flights.iter().position(|f| f.seq == seq)?;
        let flight = state.flights.remove(at)?;
        let bytes: usize = flight.entries.iter().map(|e| e.item.bytes()).sum();
        state.load = state.load.saturating_sub(bytes);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(flight.entries.into_iter().map(|e| e.item).collect())
    }

    async fn aborted(&self) {
        while !self.lock().aborted {
            self.abort.notified().await;
        }
    }

    /// Returns when the node has owed an answer for too long. Sleeps while it owes none.
    async fn stalled(&self) {
        loop {
            let due = {
                let state = self.lock();
                (!state.flights.is_empty()).then(|| state.heard + C::STALL)
            };
            match due {
                None => self.busy.notified().await,
                Some(due) if due <= Instant::now() => return,
                Some(due) => sleep_until(due).await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<C::Item>> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Item> State<I> {
    fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            flights: VecDeque::new(),
            load: 0,
            next_seq: 1,
            connection: 0,
            running: false,
            closed: false,
            aborted: false,
            heard: Instant::now(),
            waker: None,
        }
    }

    /// Mostly at the end; what was on its way before leaves before its equals.
    fn queue(&mut self, entry: Entry<I>) {
        self.queued_bytes += entry.item.bytes();
        let order = entry.item.order();
        let later = |e: &&Entry<I>| {
            let other = e.item.order();
            if entry.again { other >= order } else { other > order }
        };
        let behind = self.queue.iter().rev().take_while(later).count();
        self.queue.insert(self.queue.len() - behind, entry);
    }

    /// How many items the next batch has, and their bytes: those of the first run, and of the next ones as long as all
    /// that is queued of them fits.
    fn next(&self) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        let mut fits = (0, 0);
        let mut run = None;
        for entry in &self.queue {
            let of = entry.item.order().run();
            if run != Some(of) {
                (run, fits) = (Some(of), (count, bytes));
            }
            let full = count == BATCH_ITEMS || bytes + entry.item.bytes() > BATCH_BYTES;
            if count > 0 && full {
                // Nothing of this run leaves, unless it is the first.
                return if fits.0 > 0 { fits } else { (count, bytes) };
            }
            (count, bytes) = (count + 1, bytes + entry.item.bytes());
        }
        (count, bytes)
    }

    /// The next batch, if one may leave.
    fn batch(&mut self) -> Option<(u64, &[Entry<I>])> {
        while self.queue.front().is_some_and(|e| !e.item.is_wanted()) {
            if let Some(entry) = self.queue.pop_front() {
                self.queued_bytes = self.queued_bytes.saturating_sub(entry.item.bytes());
                self.load = self.load.saturating_sub(entry.item.bytes());
            }
        }
        let full = self.queue.len() >= BATCH_ITEMS || self.queued_bytes >= BATCH_BYTES;
        let slots = if full { FLIGHTS } else { EAGER };
        if self.queue.is_empty() || self.flights.len() >= slots {
            return None;
        }
        let (count, bytes) = self.next();
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        if self.flights.is_empty() {
            self.heard = Instant::now();
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let entries = self.queue.drain(..count).collect();
        self.flights.push_back(Flight { seq, entries });
        self.flights.back().map(|f| (seq, f.entries.as_slice()))
    }
}

/// The request stream of one connection, filled from the queue when the transport has room.
pub(super) struct Outgoing<C: Cargo> {
    pipe: Arc<Pipe<C>>,
    connection: u64,
}

impl<C: Cargo> Stream for Outgoing<C> {
    type Item = Result<C::Request, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.pipe.lock();
        if state.connection != self.connection || state.closed {
            return Poll::Ready(None);
        }
        if let Some((seq, entries)) = state.batch() {
            let request = self.pipe.cargo.request(seq, entries.iter().map(|e| &e.item));
            drop(state);
            self.pipe.busy.notify_one();
            return Poll::Ready(Some(Ok(request)));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item of some order.
    struct Numbered(u64);

    impl Item for Numbered {
        fn bytes(&self) -> usize {
            64 * 1024
        }

        fn order(&self) -> Order {
            Order::numbered(self.0)
        }

        fn is_wanted(&self) -> bool {
            true
        }

        fn fail(self, _: ChunkError) {}
    }

    /// The batches that leave, one by one, of what is queued in this order.
    fn batches(queued: &[u64]) -> Vec<Vec<u64>> {
        let mut state = State::new();
        queued.iter().for_each(|n| state.queue(Entry { item: Numbered(*n), again: false }));
        let mut left = Vec::new();
        while let Some((_, entries)) = state.batch() {
            left.push(entries.iter().map(|entry| entry.item.0).collect());
            state.flights.clear();
        }
        assert_eq!(state.queued_bytes, 0);
        left
    }

    #[test]
    fn the_least_leave_first_and_runs_stay_together() {
        let row = |range: std::ops::Range<u64>| range.collect::<Vec<_>>();
        let backwards: Vec<u64> = (0..64).rev().collect();
        assert_eq!(batches(&backwards), [row(0..16), row(16..32), row(32..48), row(48..64)]);
        // A run that is late by a few does not tear the next one.
        assert_eq!(batches(&row(3..36)), [row(3..16), row(16..32), row(32..36)]);
        // Small files, each a run of its own, leave together.
        let files: Vec<u64> = (0..40).map(|n| n * 16).collect();
        let sizes: Vec<_> = batches(&files).iter().map(Vec::len).collect();
        assert_eq!(sizes, [16, 16, 8]);
        // What has no order leaves as it came.
        assert_eq!(batches(&[0; 40]).iter().map(Vec::len).collect::<Vec<_>>(), [16, 16, 8]);
    }

    #[test]
    fn what_was_on_its_way_before_leaves_before_its_equals() {
        let mut state = State::new();
        for (n, again) in [(5, false), (5, false), (7, false), (5, true), (4, false), (7, true)] {
            state.queue(Entry { item: Numbered(n), again });
        }
        let queued = state.queue.iter().map(|entry| (entry.item.0, entry.again));
        let expected = [(4, false), (5, true), (5, false), (5, false), (7, true), (7, false)];
        assert_eq!(queued.collect::<Vec<_>>(), expected);
    }
}
