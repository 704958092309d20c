//! A bit that turns over on a node's disk, in a chunk that another node has too.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use cairn_proto::{ChunkId, pb};
use cairn_storage::segment::format::{FRAME_LEN, Frame, HEADER_LEN, Header, record_len};

use crate::{Cluster, Rng, inspect};

/// Chunks that are tried before it is given up: others may be nowhere else.
const TRIES: usize = 20;

struct Record {
    segment: PathBuf,
    payload: u64,
    len: u32,
    id: ChunkId,
}

/// The records of the segments below `data`, as far as they can be read.
fn records(data: &Path) -> Vec<Record> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data.join("segments")).into_iter().flatten().flatten() {
        let segment = entry.path();
        let Ok(bytes) = fs::read(&segment) else { continue };
        let header = bytes.first_chunk::<64>().and_then(|b| Header::decode(b).ok());
        let Some(header) = header else { continue };
        let mut at = HEADER_LEN;
        while let Some(frame) = usize::try_from(at).ok().and_then(|at| bytes.get(at..)) {
            let Some(frame) = frame.first_chunk::<FRAME_LEN>() else { break };
            match Frame::decode(frame, header.salt, at) {
                Some(Frame { id, len, .. }) => {
                    let payload = at + FRAME_LEN as u64;
                    found.push(Record { segment: segment.clone(), payload, len, id });
                    at += record_len(len);
                }
                None => at += 64,
            }
        }
    }
    found
}

/// Whether a node other than `n` says that it has the chunk.
fn is_elsewhere(cluster: &Cluster, n: usize, nodes: usize, id: &ChunkId) -> bool {
    (0..nodes).filter(|other| *other != n).any(|other| {
        let request = pb::HaveRequest { ids: vec![id.to_wire()], ..Default::default() };
        let answer =
            inspect::block_on(10, async { inspect::storage(cluster, other).have(request).await });
        answer.is_ok_and(|a| a.into_inner().stored_len_plus_one.first().is_some_and(|l| *l > 0))
    })
}

/// Turns over a bit on node `n`; says which chunk it is in. Nothing when no chunk will do.
pub fn rot(cluster: &Cluster, n: usize, nodes: usize, rng: &mut Rng) -> Option<ChunkId> {
    let records = records(cluster.node_data(n));
    for _ in 0..TRIES.min(records.len()) {
        let record = &records[rng.index(records.len())];
        let file = File::options().read(true).write(true).open(&record.segment).ok()?;
        let mut payload = vec![0; record.len as usize];
        if file.read_exact_at(&mut payload, record.payload).is_err()
            || !record.id.verify(&payload)
            || !is_elsewhere(cluster, n, nodes, &record.id)
        {
            continue;
        }
        let at = rng.index(payload.len());
        let turned = payload[at] ^ (1 << rng.below(8));
        file.write_all_at(&[turned], record.payload + at as u64).ok()?;
        return Some(record.id);
    }
    None
}
