//! The frames on their way to one client.
//!
//! Who puts a frame in (the op thread, the sync thread, a push) never waits: a client that leaves
//! too much unread is disconnected instead, and what it left is dropped.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use cairn_proto::pb;
use prost::Message;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::Status;

/// Unread bytes at which a client is disconnected.
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// Unread frames at which a client is disconnected.
const FRAMES_MAX: usize = 4 * super::WINDOW_HARD as usize;

type Item = Result<pb::ServerFrame, Status>;

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<(usize, Item)>,
    bytes: usize,
    closed: bool,
    waker: Option<Waker>,
}

/// Where frames for one stream are put.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    closed: watch::Sender<bool>,
}

impl Outbox {
    /// An empty one, and the stream that empties it.
    pub(crate) fn new() -> (Arc<Self>, OutboxStream) {
        let outbox = Arc::new(Self { queue: Mutex::default(), closed: watch::Sender::new(false) });
        (Arc::clone(&outbox), OutboxStream(outbox))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in; it is dropped when the stream has ended.
    pub(crate) fn push(&self, frame: pb::ServerFrame) {
        let size = frame.encoded_len();
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        if queue.bytes + size > BYTES_MAX || queue.items.len() >= FRAMES_MAX {
            drop(queue);
            self.abort(Status::resource_exhausted(
                "the client does not read its replies, so its stream was ended: connect again",
            ));
            return;
        }
        queue.bytes += size;
        queue.items.push_back((size, Ok(frame)));
        wake(queue);
    }

    /// Ends the stream after what is in it.
    pub(crate) fn finish(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        wake(queue);
        self.closed.send_replace(true);
    }

    /// Drops what is in it and ends the stream with `why`.
    pub(crate) fn abort(&self, why: Status) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.closed = true;
            queue.items.clear();
            queue.bytes = 0;
            queue.items.push_back((0, Err(why)));
        }
        wake(queue);
        self.closed.send_replace(true);
    }

    /// Returns when the stream has been ended from this side or dropped by the other.
    pub(crate) async fn closed(&self) {
        // An error would mean that the sender is gone, which `self` holds.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

fn wake(mut queue: MutexGuard<'_, Queue>) {
    let waker = queue.waker.take();
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What tonic sends to the client.
#[derive(Debug)]
pub(crate) struct OutboxStream(Arc<Outbox>);

impl Stream for OutboxStream {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut queue = self.0.queue();
        if let Some((size, item)) = queue.items.pop_front() {
            queue.bytes -= size;
            return Poll::Ready(Some(item));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for OutboxStream {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        queue.items.clear();
        queue.bytes = 0;
        drop(queue);
        self.0.closed.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    fn frame(seq: u64, bytes: usize) -> pb::ServerFrame {
        let value = pb::XattrValue { value: vec![0; bytes].into() };
        let reply = pb::Reply { lease: None, kind: Some(pb::reply::Kind::XattrValue(value)) };
        pb::ServerFrame { seq, durable_below: 0, body: Some(pb::server_frame::Body::Reply(reply)) }
    }

    #[tokio::test]
    async fn frames_come_out_in_order_and_the_end_after_them() {
        let (outbox, mut stream) = Outbox::new();
        outbox.push(frame(1, 0));
        outbox.push(frame(2, 0));
        outbox.finish();
        outbox.push(frame(3, 0));
        assert_eq!(stream.next().await.unwrap().unwrap().seq, 1);
        assert_eq!(stream.next().await.unwrap().unwrap().seq, 2);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_disconnected() {
        let (outbox, mut stream) = Outbox::new();
        for seq in 1..=20 {
            outbox.push(frame(seq, 16 * 1024 * 1024));
        }
        outbox.closed().await;
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(stream.next().await.is_none());
        assert_eq!(outbox.queue().bytes, 0);
    }
}
