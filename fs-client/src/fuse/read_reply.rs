//! [`ReadReply`]: the answer to a read, handed to the kernel from where its bytes lie.
//!
//! fuser takes one buffer, so that a read of many chunks would be copied together first: a quarter of a
//! second of processor time per GiB read. What has several pieces is written to the connection here, in
//! the kernel's format (`struct fuse_out_header` of `linux/fuse.h`); everything else is left to fuser.

use std::{
    io::IoSlice,
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use fuser::{Errno, ReplyData, Request};

use super::answer::Answer;
use crate::file::Slices;

/// The connection to the kernel, once there is one.
pub(super) type Device = Arc<OnceLock<OwnedFd>>;

/// See the module.
pub(super) struct ReadReply {
    reply: ReplyData,
    unique: u64,
    device: Device,
}

impl ReadReply {
    /// The answer that is owed to `req`.
    pub(super) fn new(req: &Request, reply: ReplyData, device: &Device) -> Self {
        Self { reply, unique: req.unique().0, device: Arc::clone(device) }
    }
}

impl Answer for ReadReply {
    type Value = Slices;

    fn ok(self, value: Slices) {
        match (value.pieces(), self.device.get()) {
            ([_, _, ..], Some(device)) => {
                write(device, self.unique, &value);
                // It has been answered. Dropped, it would answer an error; it owns nothing but a count
                // of the connection's users, which lasts as long as this process.
                std::mem::forget(self.reply);
            }
            _ => self.reply.data(&value.joined()),
        }
    }

    fn fail(self, errno: Errno) {
        self.reply.error(errno);
    }

    fn bytes(value: &Slices) -> u64 {
        value.len() as u64
    }
}

fn write(device: &OwnedFd, unique: u64, value: &Slices) {
    let head = header(unique, value.len());
    let mut parts = Vec::with_capacity(1 + value.pieces().len());
    parts.push(IoSlice::new(&head));
    parts.extend(value.pieces().iter().map(Bytes::as_ref).map(IoSlice::new));
    // The kernel takes an answer whole or not at all: not when nobody waits for it any more.
    if let Err(error) = rustix::io::writev(device, &parts) {
        tracing::debug!(%error, "the kernel did not take what was read");
    }
}

const HEADER: usize = 16;

/// Length of all, no error, whom it answers: in the machine's byte order.
fn header(unique: u64, len: usize) -> [u8; HEADER] {
    let mut head = [0; HEADER];
    let all = u32::try_from(HEADER + len).expect("the kernel asks for a few MiB at most");
    head[..4].copy_from_slice(&all.to_ne_bytes());
    head[8..].copy_from_slice(&unique.to_ne_bytes());
    head
}
