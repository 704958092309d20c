//! Dumps of real namespaces: they come back whole, and nothing that was changed is taken for one.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Head,
    frames::{Frames, Pieces},
    load::{Least, Loader},
    rows::{Counts, Parser, Rows},
};
use crate::{
    engine::{Batch, Direction, Engine, Pair, Reader, memory::MemoryEngine},
    format::Format,
    namespace::Namespace,
    server,
    tables::keys::{self, Mark},
    testing,
};

fn format() -> Format {
    Format {
        fs_uuid: uuid::Uuid::from_u128(5),
        chunk_size: testing::CHUNK,
        replicas: 2,
        min_replicas: 1,
        pg_bits: 10,
        compression: cairn_proto::Compression::Zstd(5),
    }
}

fn namespace(engine: Arc<dyn Engine>) -> Namespace {
    Namespace::open(engine, server::params(&format())).unwrap()
}

/// A namespace with some files, and long rows.
fn engine() -> Arc<MemoryEngine> {
    let engine = Arc::new(MemoryEngine::new());
    drop(namespace(Arc::clone(&engine) as Arc<dyn Engine>));
    let rows = (0..20_000u64).map(|i| {
        let long = vec![i as u8; if i % 500 == 0 { 60_000 } else { 20 }];
        (keys::xattr(i, b"user.some"), Some(Bytes::from(long)))
    });
    engine.commit(Batch { writes: rows.collect() }, u64::MAX).unwrap();
    // As after a load: what is raised is what was there, not where numbers begin.
    let high = Bytes::copy_from_slice(&(1u64 << 40).to_be_bytes());
    engine
        .commit(Batch { writes: [(keys::mark(Mark::Ino), Some(high))].into() }, u64::MAX)
        .unwrap();
    let session = (keys::session(9), Some(Bytes::new()));
    engine.commit(Batch { writes: [session].into() }, u64::MAX).unwrap();
    engine
}

fn dump(reader: &dyn Reader) -> Vec<u8> {
    let head = Head::new(&format(), 77, 3);
    Pieces::new(head, Rows::of(reader)).flat_map(|piece| piece.unwrap().bytes).collect()
}

fn load(dump: &[u8], into: &dyn Engine) -> Result<Counts, String> {
    let mut frames = Frames::open(dump).map_err(|e| e.to_string())?;
    let mut loader = Loader::new(into, frames.head.chunk_size);
    let mut parser = Parser::default();
    while let Some(bytes) = frames.rows().map_err(|e| e.to_string())? {
        parser.push(&bytes);
        while let Some(row) = parser.row()? {
            loader.row(row).map_err(|e| e.to_string())?;
        }
    }
    frames.check(loader.counts()).map_err(|e| e.to_string())?;
    loader.finish(Least::default()).map_err(|e| e.to_string())
}

fn rows(reader: &dyn Reader) -> Vec<Pair> {
    reader.scan(keys::everything(), Direction::Forward).map(Result::unwrap).collect()
}

#[test]
fn a_dump_comes_back_without_sessions_and_with_raised_numbers() {
    let (from, to) = (engine(), MemoryEngine::new());
    let counts = load(&dump(from.as_ref()), &to).unwrap();
    assert_eq!(counts.of(b'x'), 20_000);
    let ours = |(key, _): &Pair| !keys::is_mark(key) && keys::is_portable(key);
    let (before, after) = (rows(from.as_ref()), rows(&to));
    assert!(before.iter().filter(|row| ours(row)).eq(after.iter().filter(|row| ours(row))));
    assert!(to.get(&keys::session(9)).unwrap().is_none());
    let number = |reader: &dyn Reader, mark| {
        let value = reader.get(&keys::mark(mark)).unwrap();
        value.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
    };
    for mark in [Mark::Ino, Mark::Segment, Mark::Session, Mark::MapEpoch, Mark::Incarnation] {
        assert!(number(&to, mark) > number(from.as_ref(), mark) + 65_535, "{mark:?}");
    }
    drop(namespace(Arc::new(to)));
}

#[test]
fn what_is_not_whole_is_refused_and_says_where() {
    let whole = dump(engine().as_ref());
    for length in [0, 7, 11, 12, 20, 300, whole.len() / 2, whole.len() - 1] {
        let why = load(&whole[..length], &MemoryEngine::new()).unwrap_err();
        let expected = if length < 12 { "no dump" } else { "cut off at byte" };
        assert!(why.contains(expected), "{length}: {why}");
    }
    for at in [13, 40, 4000, whole.len() / 2, whole.len() - 10] {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        let why = load(&changed, &MemoryEngine::new()).unwrap_err();
        assert!(why.contains("altered") || why.contains("cut off"), "{at}: {why}");
    }
    let why = load(&[&whole[..], b"x"].concat(), &MemoryEngine::new()).unwrap_err();
    assert!(why.contains("bytes follow the end"), "{why}");
    let mut newer = whole.clone();
    newer[11] = 2;
    assert!(load(&newer, &MemoryEngine::new()).unwrap_err().contains("newer release"));
}

#[test]
fn a_frame_that_was_left_out_is_missed() {
    let head = Head::new(&format(), 77, 3);
    let from = engine();
    let pieces: Vec<_> =
        Pieces::new(head, Rows::of(from.as_ref())).map(|p| p.unwrap().bytes).collect();
    assert!(pieces.len() > 5);
    let without: Vec<u8> =
        pieces.iter().enumerate().filter(|(n, _)| *n != 3).flat_map(|(_, p)| p.to_vec()).collect();
    assert!(load(&without, &MemoryEngine::new()).is_err());
}
