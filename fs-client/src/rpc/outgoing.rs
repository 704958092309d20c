//! [`Outgoing`]: the request stream of one connection, filled from the shared state when the
//! transport has room for more. So nothing is queued between the log and HTTP/2's own window.
//!
//! Lock order: `Shared::state` is the only lock of the session; callers' wakers run after it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use cairn_proto::pb::{self, client_frame::Body};
use futures_util::Stream;

use super::{log::OpLog, session::Shared};

/// Most acknowledgements of pushes that may wait; a master that sends more is not waiting for them.
const ACKS_MAX: usize = 1024;

/// What the stream's two ends and the callers share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) log: OpLog,
    /// Number of the present connection; streams of earlier ones end when they see it.
    connection: u64,
    /// The first frame of a connection, until it is sent.
    hello: Option<pb::OpenSession>,
    /// Welcomed: operations may flow.
    ready: bool,
    ping: bool,
    acks: Vec<u64>,
    /// No more operations are taken.
    pub(crate) closing: bool,
    /// The stream is to end.
    pub(crate) closed: bool,
    /// The last frame before that tells the master that nobody will come back.
    goodbye: bool,
    /// The driver has ended.
    pub(crate) gone: bool,
    waker: Option<Waker>,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            log: OpLog::new(),
            connection: 0,
            hello: None,
            ready: false,
            ping: false,
            acks: Vec::new(),
            closing: false,
            closed: false,
            goodbye: false,
            gone: false,
            waker: None,
        }
    }

    /// Begins a connection with `hello` and returns its number. Wake the result's waker.
    pub(crate) fn begin(&mut self, hello: pb::OpenSession) -> u64 {
        self.connection += 1;
        self.hello = Some(hello);
        self.ready = false;
        self.ping = false;
        self.acks.clear();
        self.connection
    }

    /// The master has answered the first frame and the log is in step with it.
    pub(crate) fn welcomed(&mut self) -> Option<Waker> {
        self.ready = true;
        self.waker.take()
    }

    /// Whether operations may flow.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The connection is lost; nothing is taken from the log until the next one is welcomed.
    pub(crate) fn lost(&mut self) -> Option<Waker> {
        self.connection += 1;
        self.ready = false;
        self.waker.take()
    }

    /// The next frame is a ping.
    pub(crate) fn ping(&mut self) -> Option<Waker> {
        self.ping = self.ready;
        self.waker.take()
    }

    pub(crate) fn acknowledge(&mut self, push_id: u64) {
        if push_id != 0 && self.acks.len() < ACKS_MAX {
            self.acks.push(push_id);
        }
    }

    /// To be woken after the lock is released, if there is something to send.
    pub(crate) fn wake(&mut self) -> Option<Waker> {
        let idle = !self.closed && self.acks.is_empty() && !self.log.has_unsent();
        if idle { None } else { self.waker.take() }
    }

    /// No more operations are taken, and the stream is to end: with a goodbye when it was asked for and
    /// nothing is left that a master could be asked about again.
    pub(crate) fn end(&mut self, goodbye: bool) -> Option<Waker> {
        self.goodbye = goodbye && !self.closed && self.log.is_idle();
        self.closing = true;
        self.closed = true;
        self.waker.take()
    }

    fn last_frame(&mut self) -> Option<pb::ClientFrame> {
        let goodbye = std::mem::take(&mut self.goodbye) && self.ready;
        goodbye.then(|| self.body(0, Body::EndSession(pb::EndSession {})))
    }

    fn frame(&mut self) -> Option<pb::ClientFrame> {
        if let Some(hello) = self.hello.take() {
            return Some(self.body(0, Body::OpenSession(hello)));
        }
        if !self.ready {
            return None;
        }
        if let Some(push_id) = self.acks.pop() {
            return Some(self.body(0, Body::PushAck(pb::PushAck { push_id })));
        }
        if std::mem::take(&mut self.ping) {
            return Some(self.body(0, Body::Ping(pb::Ping {})));
        }
        let (seq, op) = self.log.next()?;
        Some(self.body(seq, Body::Op(op)))
    }

    fn body(&self, seq: u64, body: Body) -> pb::ClientFrame {
        pb::ClientFrame { seq, acked_below: self.log.acked_below(), body: Some(body) }
    }
}

/// The frames of one connection.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: u64,
}

impl Stream for Outgoing {
    type Item = pb::ClientFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<pb::ClientFrame>> {
        let mut state = self.shared.lock();
        if state.connection != self.connection {
            return Poll::Ready(None);
        }
        if state.closed {
            return Poll::Ready(state.last_frame());
        }
        match state.frame() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
