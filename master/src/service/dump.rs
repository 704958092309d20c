//! Dump: all metadata as one file, from a snapshot, as fast as the caller takes it.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use cairn_proto::pb;
use tonic::Status;

use super::{
    Service,
    scan::{Caller, Messages, failed},
};
use crate::dump::{
    Head,
    frames::{Piece, Pieces},
    rows::Rows,
};

impl Service {
    /// The parts of the file.
    pub(super) async fn dump(self: &Arc<Self>) -> Result<Messages<pb::DumpPart>, Status> {
        let head = Head::new(&self.format, unix_ms(), self.sessions.incarnation);
        self.scan(move |view, caller: Caller<pb::DumpPart>| {
            for piece in Pieces::new(head, Rows::of(view.reader())) {
                let broken = piece.is_err();
                let part = piece.map(part).map_err(|error| failed(&error));
                if !caller.send(part) || broken {
                    return;
                }
            }
        })
        .await
    }
}

fn part(piece: Piece) -> pb::DumpPart {
    let done = piece.counts.is_some();
    let counts = piece.counts.map(|counts| counts.to_wire()).unwrap_or_default();
    pb::DumpPart { data: piece.bytes, rows: piece.rows, done, counts }
}

/// This moment, for people.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
