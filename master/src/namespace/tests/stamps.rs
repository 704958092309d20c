//! Commits and announcements against the floor of garbage collection.

use super::*;
use crate::namespace::{Announced, Stamps};

fn commit(ino: u64, index: u64, new: Option<ChunkRef>, gc_epoch: u64) -> pb::Commit {
    let size = Some(pb::commit::Size::GrowTo(CHUNK.into()));
    let changes = vec![change(index, None, new)];
    pb::Commit { ino, changes, size, gc_epoch, ..pb::Commit::default() }
}

#[test]
fn a_commit_whose_chunks_may_be_gone_is_refused_and_changes_nothing() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    assert!(store.commit_file(commit(ino, 0, Some(chunk(1, 9)), 0)).unwrap().applied);
    store.ns.raise_stamps(Stamps { epoch: 5, floor: 4 });
    for old in [0, 1, 3] {
        let refused = store.commit_file(commit(ino, 1, Some(chunk(2, 9)), old)).unwrap();
        assert_eq!((refused.applied, refused.verify_again), (false, 4), "stamp {old}");
        assert_eq!(refused.attr.unwrap().data_version, store.attr(ino).unwrap().data_version);
    }
    assert_eq!(store.manifest(ino).len(), 1);
    let mut newer = commit(ino, 1, Some(chunk(2, 9)), 4);
    newer.size = Some(pb::commit::Size::GrowTo(2 * u64::from(CHUNK)));
    let newer = store.commit_file(newer).unwrap();
    assert_eq!((newer.applied, newer.verify_again), (true, 0));
    // What names no new chunk needs no stamp.
    let hole =
        pb::Commit { changes: vec![change(1, Some(chunk(2, 9)), None)], ..commit(ino, 0, None, 0) };
    assert!(store.commit_file(hole).unwrap().applied);
    store.check();
}

#[test]
fn an_announcement_is_told_to_ask_again() {
    let mut store = Store::new();
    store.ns.raise_stamps(Stamps { epoch: 5, floor: 4 });
    let refs = [chunk(1, 9)];
    assert_eq!(store.ns.announce("d/f", &refs, &[], 3), Ok(Announced::VerifyAgain));
    assert_eq!(store.ns.resolve("d"), Err(FsError::NotFound), "nothing may be made");
    assert_eq!(store.ns.announce("d/f", &refs, &[], 4), Ok(Announced::Made));
    assert_eq!(store.ns.announce("empty", &[], &[], 0), Ok(Announced::Made));
    store.check();
}

#[test]
fn epoch_and_floor_only_grow_and_survive_a_restart() {
    let mut store = Store::new();
    assert_eq!(store.ns.stamps(), Stamps { epoch: 1, floor: 0 });
    store.ns.raise_stamps(Stamps { epoch: 7, floor: 6 });
    store.ns.raise_stamps(Stamps { epoch: 3, floor: 2 });
    store.ns.commit().unwrap();
    store.restart();
    assert_eq!(store.ns.stamps(), Stamps { epoch: 7, floor: 6 });
}
