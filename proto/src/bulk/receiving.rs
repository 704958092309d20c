//! [`Receiving`]: messages from the body of a call or of its answer, decoded where they lie.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf as _;
use futures_core::Stream;
use http_body::{Body as _, Frame};
use prost::Message;
use tonic::{Code, Status, body::Body};

use super::{PREFIX, rope::Rope};
use crate::limits::MESSAGE_MAX;

/// See the module. Ends with what the other side has ended with, or with what is wrong with the stream;
/// nothing follows an error. Holds one message and what the transport had ready behind it.
#[derive(Debug)]
pub struct Receiving<M> {
    body: Body,
    arrived: Rope,
    /// Length of the message whose prefix has been read.
    message: Option<usize>,
    ended: bool,
    kind: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Receiving<M> {
    /// Reads `body`.
    pub fn new(body: Body) -> Self {
        let arrived = Rope::default();
        Self { body, arrived, message: None, ended: false, kind: PhantomData }
    }

    fn take(&mut self, frame: Frame<bytes::Bytes>) -> Result<(), Status> {
        match frame.into_data() {
            Ok(data) => {
                self.arrived.push(data);
                Ok(())
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                match Status::from_header_map(&trailers) {
                    Some(status) if status.code() != Code::Ok => Err(status),
                    Some(_) | None => Ok(()),
                }
            }
        }
    }

    fn decode(&mut self) -> Result<Option<M>, Status> {
        let len = match self.message {
            Some(len) => len,
            None if self.arrived.remaining() < PREFIX => return Ok(None),
            None => {
                if self.arrived.get_u8() != 0 {
                    return Err(Status::unimplemented("compressed messages are not understood"));
                }
                let len = self.arrived.get_u32() as usize;
                if len > MESSAGE_MAX {
                    let why = format!("a message of {len} bytes, at most {MESSAGE_MAX}");
                    return Err(Status::out_of_range(why));
                }
                *self.message.insert(len)
            }
        };
        if self.arrived.remaining() < len {
            return Ok(None);
        }
        self.message = None;
        let message = M::decode((&mut self.arrived).take(len));
        message.map(Some).map_err(|e| Status::internal(format!("cannot decode a message: {e}")))
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<M, Status>>> {
        loop {
            if let Some(message) = self.decode()? {
                return Poll::Ready(Some(Ok(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => self.take(frame.map_err(|e| Status::from_error(Box::new(e)))?)?,
                None if self.message.is_some() || self.arrived.has_remaining() => {
                    return Poll::Ready(Some(Err(Status::internal("a message was cut off"))));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<M: Message + Default> Stream for Receiving<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.step(cx));
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}
