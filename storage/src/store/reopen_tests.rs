//! A disk that was full comes back by itself: what was acknowledged is there, and the rules of a
//! restarted node hold.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use cairn_proto::{ChunkError, Group, garbage_filter::GarbageFilter};
use tokio::time::timeout;

use super::{
    Put, Store,
    garbage_tests::{PG_BITS, damaged, ids, plan, sweep},
    sweep::{Sweep, Tally},
    tests::{Rig, assert_all, chunk, put_all},
};
use crate::segment::{SegmentId, format::HEADER_LEN};

fn no_room() -> fjall::Error {
    fjall::Error::Io(io::Error::from_raw_os_error(libc::ENOSPC))
}

/// The engine answers this to every write from now on.
fn breaks(store: &Store, disk: usize, error: fn() -> fjall::Error) {
    let core = store.volumes[disk].core().unwrap();
    *core.index.breaks.lock().unwrap() = Some(error);
}

/// Something else takes all the room of a disk, and a write of its index finds none.
async fn fill(rig: &Rig, disk: usize, error: fn() -> fjall::Error) {
    breaks(rig.store(), disk, error);
    rig.disks[disk].use_elsewhere(64 << 20);
    // The writer thread finds it out by itself.
    until(rig.store(), |store| store.volumes[disk].is_full()).await;
}

/// There is room again, and the disk comes back.
async fn free(rig: &Rig, disk: usize) {
    rig.disks[disk].use_elsewhere(0);
    until(rig.store(), |store| !store.volumes[disk].is_full()).await;
    assert!(!rig.store().volumes[disk].has_failed());
}

async fn until(store: &Arc<Store>, holds: impl Fn(&Store) -> bool) {
    let wait = async {
        while !holds(store) {
            store.disk_change().await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.expect("it happens within a moment");
}

/// Seeds of the chunks that lie on this disk.
fn on_disk(store: &Store, disk: usize, seeds: std::ops::Range<u64>) -> Vec<u64> {
    seeds.filter(|seed| store.volumes[disk].good_entry(&chunk(*seed).0).is_some()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_read_and_comes_back_with_everything() {
    let rig = Rig::new(1);
    let store = rig.store();
    store.learn_epoch(5);
    put_all(store, 0..100).await;
    let before = store.groups().digests(4).unwrap().0;
    breaks(store, 0, no_room);
    rig.disks[0].use_elsewhere(60 << 20);
    assert_eq!(store.put(vec![chunk(100)]).await, [Err(ChunkError::NoSpace)]);
    rig.disks[0].use_elsewhere(64 << 20);
    assert_eq!(store.put(vec![chunk(101)]).await, [Err(ChunkError::NoSpace)]);
    let status = &store.status()[0];
    assert_eq!((status.failed, status.space.free, status.totals.chunks), (false, 0, 100));
    assert_all(store, 0..100).await;
    assert_eq!(store.groups().digests(4).unwrap().0, before, "what is there counts");
    assert!(store.have(vec![chunk(7).0], false).await[0].is_some());
    free(&rig, 0).await;
    // Durable in the segment, though nobody was told.
    assert_all(store, 0..101).await;
    assert_eq!(store.copies(), 101);
    put_all(store, 101..200).await;
    assert_all(store, 0..200).await;
    assert_eq!(store.status()[0].totals.chunks, 200);
    let digests = store.groups().digests(4).unwrap().0;
    assert_eq!(digests.iter().map(|(_, digest)| digest.chunks).sum::<u64>(), 200);
    assert_eq!(damaged(&rig), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_stamped_is_not_said_to_be() {
    let mut rig = Rig::new(2);
    let store = rig.store();
    store.learn_epoch(5);
    put_all(store, 0..60).await;
    let there = on_disk(store, 0, 0..60);
    fill(&rig, 0, no_room).await;
    store.learn_epoch(6);
    assert_eq!(store.epoch(), 6, "the other disk carries it");
    let (id, data) = chunk(there[0]);
    assert_eq!(store.have(vec![id], true).await, [None]);
    assert_eq!(store.put(vec![(id, data)]).await, [Ok(Put::Stored)], "the other disk takes it");
    assert!(store.volumes[1].good_entry(&id).is_some());
    free(&rig, 0).await;
    let core = store.volumes[0].core().unwrap();
    assert_eq!((core.floor, core.index.epoch().unwrap()), (6, 6));
    drop(core);
    for listed in store.list(None, None, 1000).await.unwrap() {
        let seed = there.iter().find(|seed| chunk(**seed).0 == listed.id);
        assert_eq!(listed.epoch, if seed.is_some() { 6 } else { 5 });
    }
    assert_eq!(store.drop_copies(&[(chunk(there[1]).0, 5)]).unwrap().chunks, 0);
    assert!(store.have(vec![chunk(there[1]).0], true).await[0].is_some());
    rig.reopen().await;
    assert_eq!(rig.store().epoch(), 6);
    assert_all(rig.store(), 0..60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_work_that_failed_is_taken_for_a_full_disk_where_it_was_full() {
    let rig = Rig::new(2);
    put_all(rig.store(), 0..60).await;
    fill(&rig, 0, || fjall::Error::Poisoned).await;
    free(&rig, 0).await;
    assert_all(rig.store(), 0..60).await;
    // There is room on the other: something else is wrong with it.
    breaks(rig.store(), 1, || fjall::Error::Poisoned);
    until(rig.store(), |store| store.volumes[1].has_failed()).await;
    breaks(rig.store(), 0, || fjall::Error::Io(io::Error::from_raw_os_error(libc::EIO)));
    until(rig.store(), |store| store.volumes[0].has_failed()).await;
    assert_eq!(rig.store().put(vec![chunk(60)]).await, [Err(ChunkError::DiskFailed)]);
    assert_all(rig.store(), 0..60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantine_from_before_is_not_trusted_and_nothing_erased_is_buried_late() {
    let rig = Rig::new(1);
    let store = rig.store();
    store.learn_epoch(5);
    put_all(store, 0..100).await;
    let none = HashSet::new();
    let (swept, _) = sweep(store, plan(7), &none).await;
    assert_eq!(swept.quarantined.chunks, 100);
    fill(&rig, 0, no_room).await;
    free(&rig, 0).await;
    let (swept, stopped) = sweep(store, plan(8), &none).await;
    assert_eq!((swept.erased, stopped), (Tally::default(), None));
    let (swept, _) = sweep(store, plan(9), &none).await;
    assert_eq!(swept.erased, Tally::default());
    assert_all(store, 0..100).await;
    // Erased in an index that is opened again before the records are buried.
    store.learn_epoch(10);
    let under_way = Arc::clone(store);
    let erase = move || {
        let mut sweep = Sweep::begin(&under_way, plan(10)).unwrap();
        for group in (0..1 << PG_BITS).map(Group) {
            let filter = GarbageFilter::with_room_for(0, 10);
            sweep.group(group, &filter).unwrap();
        }
        sweep
    };
    let mut under_way = tokio::task::spawn_blocking(erase).await.unwrap();
    assert_eq!(under_way.swept().erased.chunks, 100);
    fill(&rig, 0, no_room).await;
    free(&rig, 0).await;
    put_all(store, 0..50).await;
    tokio::task::spawn_blocking(move || under_way.finish(&mut |_| true)).await.unwrap().unwrap();
    assert_all(store, 0..50).await;
    assert_eq!(damaged(&rig), 0);
    let (_, stopped) = sweep(store, plan(11), &ids(0..50)).await;
    assert_eq!(stopped, None);
    assert_all(store, 0..50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_damage_is_not_forgotten_and_whoever_uses_the_index_is_waited_for() {
    let rig = Rig::new(1);
    let store = rig.store();
    put_all(store, 0..40).await;
    fill(&rig, 0, no_room).await;
    // Found while nothing can be noted durably.
    rig.disks[0].flip_bit(&SegmentId(1).file_name(), HEADER_LEN as usize + 64);
    assert_eq!(damaged(&rig), 1);
    let digests = store.groups().digests(4).unwrap().0;
    let held = store.volumes[0].core().unwrap();
    rig.disks[0].use_elsewhere(0);
    while store.volumes[0].core().is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(store.groups().digests(4).is_err(), "nobody knows what is there");
    assert_eq!((store.damaged(), store.copies()), (1, 40));
    assert!(held.index.get(&chunk(3).0).unwrap().is_some());
    drop(held);
    until(store, |store| !store.volumes[0].is_full()).await;
    assert_eq!(store.damaged(), 1);
    assert_eq!(store.groups().digests(4).unwrap().0, digests);
    put_all(store, 0..40).await;
    assert_eq!(store.damaged(), 0);
    assert_all(store, 0..40).await;
}
