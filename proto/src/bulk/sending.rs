//! [`Sending`]: the body of a call or of its answer, made of messages that carry chunks.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame};
use tonic::Status;

use super::pieces::{Pieces, Weighty};

/// What is still to come.
enum Rest {
    Messages,
    /// A server's last word.
    Trailers(Status),
    Nothing,
}

/// See the module. A message is taken from the stream only when all of the one before has been taken by
/// the transport.
pub struct Sending<S> {
    messages: Pin<Box<S>>,
    /// Pieces of the message that is being sent, the last first.
    pieces: Vec<Bytes>,
    rest: Rest,
    /// Servers end with a status, clients just end.
    ends_with_status: bool,
}

impl<S> Sending<S> {
    /// What a client sends.
    pub fn request(messages: S) -> Self {
        Self::new(messages, false)
    }

    /// What a server answers.
    pub fn answer(messages: S) -> Self {
        Self::new(messages, true)
    }

    fn new(messages: S, ends_with_status: bool) -> Self {
        let pieces = Vec::new();
        Self { messages: Box::pin(messages), pieces, rest: Rest::Messages, ends_with_status }
    }

    fn end(&mut self, status: Status) {
        self.rest = if self.ends_with_status { Rest::Trailers(status) } else { Rest::Nothing };
    }
}

impl<S, M> Body for Sending<S>
where
    S: Stream<Item = Result<M, Status>>,
    M: Weighty,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(piece) = self.pieces.pop() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match std::mem::replace(&mut self.rest, Rest::Nothing) {
                Rest::Nothing => return Poll::Ready(None),
                Rest::Trailers(status) => {
                    let mut trailers = http::HeaderMap::new();
                    if status.add_header(&mut trailers).is_err() {
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Rest::Messages => self.rest = Rest::Messages,
            }
            match self.messages.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.end(Status::new(tonic::Code::Ok, "")),
                Poll::Ready(Some(Err(status))) => self.end(status),
                Poll::Ready(Some(Ok(message))) => match Pieces::of(&message) {
                    Some(mut pieces) => {
                        pieces.reverse();
                        self.pieces = pieces;
                    }
                    None => self.end(Status::out_of_range("a message is too long for gRPC")),
                },
            }
        }
    }
}
