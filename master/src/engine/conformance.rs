//! What every engine must do. Run for each of them, with reopening where there is something to reopen.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::{Batch, Direction, Engine, EngineError, KeyRange, Reader};

/// Opens the same data again; called after the engine was dropped.
pub(super) type Reopen = Box<dyn Fn() -> Arc<dyn Engine>>;
/// Makes an empty engine.
pub(super) type Make<'a> = &'a mut dyn FnMut() -> (Arc<dyn Engine>, Option<Reopen>);

/// Runs the suite.
pub(super) fn run(make: Make<'_>) {
    puts_gets_and_deletes(make().0.as_ref());
    scans_are_ordered_and_bounded(make().0.as_ref());
    snapshots_do_not_move(make().0.as_ref());
    scans_do_not_see_later_commits(make().0.as_ref());
    a_large_batch_is_one_commit(make().0.as_ref());
    random_batches_match_a_map(make().0.as_ref());
    fencing(make());
    everything_is_there_after_reopening(make());
}

fn bytes(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data)
}

fn put(engine: &dyn Engine, pairs: &[(&[u8], Option<&[u8]>)]) {
    let writes = pairs.iter().map(|(k, v)| (bytes(k), v.map(bytes))).collect();
    engine.commit(Batch { writes }, 1).unwrap();
}

fn all(reader: &dyn Reader) -> Vec<(Bytes, Bytes)> {
    let range = KeyRange { from: Bound::Unbounded, to: Bound::Unbounded };
    reader.scan(range, Direction::Forward).collect::<Result<_, _>>().unwrap()
}

fn puts_gets_and_deletes(engine: &dyn Engine) {
    assert_eq!(engine.get(b"a").unwrap(), None);
    put(engine, &[(b"a", Some(b"1")), (b"b", Some(b"")), (&[0, 255, 0], Some(&[0; 3]))]);
    assert_eq!(engine.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(engine.get(b"b").unwrap().as_deref(), Some(&b""[..]), "empty is not absent");
    assert_eq!(engine.get(&[0, 255, 0]).unwrap().as_deref(), Some(&[0; 3][..]));
    put(engine, &[(b"a", None), (b"b", Some(b"2")), (b"never", None)]);
    assert_eq!(engine.get(b"a").unwrap(), None);
    assert_eq!(engine.get(b"b").unwrap().as_deref(), Some(&b"2"[..]));
    engine.commit(Batch::default(), 1).unwrap();
    engine.sync().unwrap();
}

fn scans_are_ordered_and_bounded(engine: &dyn Engine) {
    let keys: Vec<Vec<u8>> =
        vec![vec![1], vec![1, 0], vec![1, 255], vec![2], vec![2, 2], vec![255, 255]];
    for key in keys.iter().rev() {
        put(engine, &[(key, Some(b"v"))]);
    }
    let scan = |from, to, direction| -> Vec<Vec<u8>> {
        engine.scan(KeyRange { from, to }, direction).map(|p| p.unwrap().0.to_vec()).collect()
    };
    use Bound::{Excluded, Included, Unbounded};
    assert_eq!(scan(Unbounded, Unbounded, Direction::Forward), keys);
    let backward: Vec<_> = keys.iter().rev().cloned().collect();
    assert_eq!(scan(Unbounded, Unbounded, Direction::Backward), backward);
    let middle = scan(Included(bytes(&[1, 0])), Excluded(bytes(&[2])), Direction::Forward);
    assert_eq!(middle, keys[1..3]);
    let middle = scan(Excluded(bytes(&[1])), Included(bytes(&[2])), Direction::Backward);
    assert_eq!(middle, [vec![2], vec![1, 255], vec![1, 0]]);
    assert!(scan(Included(bytes(&[3])), Excluded(bytes(&[4])), Direction::Forward).is_empty());
    assert!(scan(Included(bytes(&[2])), Excluded(bytes(&[2])), Direction::Forward).is_empty());
}

fn snapshots_do_not_move(engine: &dyn Engine) {
    put(engine, &[(b"a", Some(b"1")), (b"b", Some(b"1"))]);
    let before = engine.snapshot().unwrap();
    put(engine, &[(b"a", Some(b"2")), (b"b", None), (b"c", Some(b"2"))]);
    let after = engine.snapshot().unwrap();
    assert_eq!(before.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(before.get(b"c").unwrap(), None);
    assert_eq!(all(before.as_ref()), [(bytes(b"a"), bytes(b"1")), (bytes(b"b"), bytes(b"1"))]);
    assert_eq!(all(after.as_ref()), [(bytes(b"a"), bytes(b"2")), (bytes(b"c"), bytes(b"2"))]);
}

fn scans_do_not_see_later_commits(engine: &dyn Engine) {
    for i in 0..1000u32 {
        put(engine, &[(&i.to_be_bytes(), Some(b"v"))]);
    }
    let range = KeyRange { from: Bound::Unbounded, to: Bound::Unbounded };
    let mut scan = engine.scan(range, Direction::Forward);
    scan.next().unwrap().unwrap();
    for i in 0..1000u32 {
        put(engine, &[(&i.to_be_bytes(), None)]);
    }
    assert_eq!(scan.map(Result::unwrap).count(), 999);
}

fn a_large_batch_is_one_commit(engine: &dyn Engine) {
    let writes = (0..50_000u32)
        .map(|i| (bytes(&i.to_be_bytes()), Some(Bytes::from(vec![i as u8; 100]))))
        .collect();
    engine.commit(Batch { writes }, 1).unwrap();
    assert_eq!(all(engine).len(), 50_000);
}

fn random_batches_match_a_map(engine: &dyn Engine) {
    use proptest::prelude::Rng;
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut model = std::collections::BTreeMap::new();
    for _ in 0..200 {
        let mut batch = Batch::default();
        for _ in 0..rng.next_u32() % 20 {
            let key =
                bytes(&rng.next_u32().to_be_bytes()[2..][..1 + (rng.next_u32() % 2) as usize]);
            let value =
                (!rng.next_u32().is_multiple_of(3)).then(|| bytes(&rng.next_u64().to_be_bytes()));
            match &value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(&key),
            };
            batch.writes.insert(key, value);
        }
        engine.commit(batch, 1).unwrap();
    }
    assert_eq!(all(engine), model.into_iter().collect::<Vec<_>>());
}

fn fencing((engine, reopen): (Arc<dyn Engine>, Option<Reopen>)) {
    let write = |engine: &dyn Engine, value: &[u8], epoch| {
        engine.commit(Batch { writes: [(bytes(b"k"), Some(bytes(value)))].into() }, epoch)
    };
    let refused = |engine: &dyn Engine| {
        let error = write(engine, b"old", 6).unwrap_err();
        assert!(matches!(error, EngineError::Fenced { own: 6, newest: 7 }), "{error}");
        assert_eq!(engine.get(b"k").unwrap().as_deref(), Some(&b"new"[..]));
    };
    write(engine.as_ref(), b"first", 3).unwrap();
    write(engine.as_ref(), b"new", 7).unwrap();
    refused(engine.as_ref());
    if let Some(reopen) = reopen {
        drop(engine);
        let engine = reopen();
        refused(engine.as_ref());
        write(engine.as_ref(), b"newer", 7).unwrap();
    }
}

fn everything_is_there_after_reopening((engine, reopen): (Arc<dyn Engine>, Option<Reopen>)) {
    let Some(reopen) = reopen else { return };
    let mut engine = engine;
    for round in 0..3u8 {
        put(engine.as_ref(), &[(&[round], Some(&[round; 5])), (b"gone", Some(b"x"))]);
        put(engine.as_ref(), &[(b"gone", None)]);
        drop(engine);
        engine = reopen();
        assert_eq!(all(engine.as_ref()).len(), usize::from(round) + 1);
    }
}
