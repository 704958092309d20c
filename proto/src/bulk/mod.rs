//! Streams of chunks as ordinary gRPC, without a copy of the payload on either side.
//!
//! The generated code copies each message twice: into one buffer to send it, into another to receive it.
//! Here the parts of a message go out as frames of their own, payloads as the very buffers that hold them,
//! and what arrives is decoded where it lies. On the wire nothing is different: either end may be a
//! generated client or server.
//!
//! - [`pieces`]: a message as a row of buffers. Written by hand for the two messages that carry chunks; a
//!   test holds it against the generated encoding, field by field.
//! - [`rope`]: a row of buffers that is decoded as one; a payload within one of them is a slice of it.
//! - [`Sending`] and [`Receiving`]: the bodies of calls. [`call`]: a call over them.
//!
//! Measured on loopback, messages of 64 KiB: 2.4 GB/s at 0.65 CPU seconds per GiB for both sides, where the
//! generated streams have 1.6 GB/s at 1.0.

mod call;
mod pieces;
mod receiving;
mod rope;
mod sending;

pub use self::{
    call::{answer, call},
    pieces::{Pieces, Weighty},
    receiving::Receiving,
    sending::Sending,
};

/// The stream of chunks to a node.
pub const PUT: &str = "/cairn.v1.StorageService/Put";
/// The stream of chunks from a node.
pub const GET: &str = "/cairn.v1.StorageService/Get";

/// Before each message: whether it is compressed, one byte, and its length, four.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
const PREFIX: usize = 5;
