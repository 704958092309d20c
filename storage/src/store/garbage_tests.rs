//! Sweeps over a faulty disk: what is referred to stays, what is not goes, and its room comes back.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use cairn_proto::{ChunkError, ChunkId, Group, garbage_filter::GarbageFilter};

use super::{
    Put, Store,
    sweep::{Plan, Stopped, Sweep, Swept, Tally},
    tests::{Rig, assert_all, chunk, put_all},
};
use crate::disk::{Disk, DiskFile, fault::Random, read_full};
use crate::segment::format::HEADER_LEN;

pub(super) const PG_BITS: u32 = 3;

pub(super) fn plan(epoch: u64) -> Plan {
    Plan {
        epoch,
        floor: epoch - 1,
        pg_bits: PG_BITS,
        erase_from: 0,
        quarantine_bytes_max: u64::MAX,
        dry_run: false,
        reclaim: true,
    }
}

/// One sweep on a thread that may block, as the service has it.
pub(super) async fn sweep(
    store: &Arc<Store>,
    plan: Plan,
    live: &HashSet<ChunkId>,
) -> (Swept, Option<Stopped>) {
    let (store, live) = (Arc::clone(store), live.clone());
    let work = move || {
        store.learn_epoch(plan.epoch);
        let mut sweep = Sweep::begin(&store, plan).unwrap();
        let mut stopped = None;
        for group in (0..1 << PG_BITS).map(Group) {
            let of_group = || live.iter().filter(|id| Group::of(id, PG_BITS) == group);
            let mut filter = GarbageFilter::with_room_for(of_group().count() as u64, plan.epoch);
            of_group().for_each(|id| filter.insert(id));
            stopped = stopped.or_else(|| sweep.group(group, &filter).err());
        }
        let finished = sweep.finish(&mut |_| true);
        (sweep.swept().clone(), stopped.or_else(|| finished.err()))
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

pub(super) fn ids(seeds: impl Iterator<Item = u64>) -> HashSet<ChunkId> {
    seeds.map(|seed| chunk(seed).0).collect()
}

async fn missing(rig: &Rig, seeds: impl Iterator<Item = u64>) -> usize {
    let ids = seeds.map(|seed| chunk(seed).0).collect();
    rig.store().get(ids).await.iter().filter(|r| **r == Err(ChunkError::NotFound)).count()
}

fn taken(rig: &Rig) -> u64 {
    rig.disks.iter().map(|disk| disk.space().unwrap()).map(|s| s.capacity - s.free).sum()
}

pub(super) fn damaged(rig: &Rig) -> u64 {
    let mut damaged = 0;
    rig.store()
        .verify(|c| {
            damaged += u64::from(c.result.is_err());
            true
        })
        .unwrap();
    damaged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_quarantined_then_erased_and_its_room_comes_back() {
    let mut rig = Rig::new(2);
    rig.store().learn_epoch(5);
    put_all(rig.store(), 0..600).await;
    let live = ids((0..600).filter(|seed| seed % 3 == 0));
    let before = taken(&rig);
    let (swept, _) = sweep(rig.store(), plan(6), &live).await;
    assert_eq!(swept.quarantined, Tally::default(), "what was put since the floor stays");
    assert!(swept.young.chunks >= 390 && swept.groups == 1 << PG_BITS);
    let (swept, _) = sweep(rig.store(), plan(7), &live).await;
    assert!(swept.quarantined.chunks >= 390 && swept.erased == Tally::default());
    assert_eq!(missing(&rig, 0..600).await, 0, "quarantined chunks serve");
    let totals = rig.store().status().iter().map(|v| v.totals.quarantined_chunks).sum::<u64>();
    assert_eq!(totals, swept.quarantined.chunks);
    // A touch and a put bring chunks back; the same cycle again erases nothing.
    assert!(rig.store().have(vec![chunk(1).0], true).await[0].is_some());
    assert_eq!(rig.store().put(vec![chunk(2)]).await, [Ok(Put::Known)]);
    let (again, _) = sweep(rig.store(), plan(7), &live).await;
    assert_eq!(
        (again.erased, again.waiting.chunks),
        (Tally::default(), swept.quarantined.chunks - 2)
    );
    let (swept, stopped) = sweep(rig.store(), plan(8), &live).await;
    assert_eq!(stopped, None);
    assert!(swept.erased.chunks >= 385, "{swept:?}");
    assert_all(rig.store(), 1..3).await;
    assert!(missing(&rig, (0..600).filter(|s| s % 3 != 0 && *s > 2)).await >= 385);
    for seed in (0..600).step_by(3) {
        assert_all(rig.store(), seed..seed + 1).await;
    }
    assert!(taken(&rig) < before * 2 / 3, "{} of {before} bytes are still taken", taken(&rig));
    assert_eq!(damaged(&rig), 0);
    // What is made anew from the segments has nothing that was erased.
    let copies = rig.store().copies();
    rig.close().await;
    rig.forget_index();
    rig.open();
    assert_eq!(rig.store().copies(), copies);
    assert_eq!(damaged(&rig), 0);
    put_all(rig.store(), 0..600).await;
    assert_all(rig.store(), 0..600).await;
}

/// Whether the chunk lies where the store says.
async fn is_where_it_is_said_to_be(rig: &Rig, seed: u64) -> bool {
    let (id, data) = chunk(seed);
    let found = rig.store().locate(&[id]).await.unwrap().remove(0).unwrap();
    let Ok(file) = rig.disks[0].open(&found.file) else { return false };
    let mut there = vec![0; found.length as usize];
    read_full(&*file, &mut there, found.offset).unwrap();
    there == data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_of_chunks_that_were_moved_are_told_anew() {
    let rig = Rig::new(1);
    rig.store().learn_epoch(5);
    put_all(rig.store(), 0..600).await;
    // Few of many, so that what holds them is rewritten.
    let live: Vec<u64> = (0..600).filter(|seed| seed % 40 == 0).collect();
    let named = ids(live.iter().copied());
    for seed in &live {
        assert!(is_where_it_is_said_to_be(&rig, *seed).await);
    }
    let before = rig.disks[0].list().unwrap();
    for epoch in 6..=8 {
        sweep(rig.store(), plan(epoch), &named).await;
    }
    let after = rig.disks[0].list().unwrap();
    assert!(before.iter().any(|name| !after.contains(name)), "nothing was rewritten: {after:?}");
    for seed in &live {
        assert!(is_where_it_is_said_to_be(&rig, *seed).await, "chunk {seed}");
    }
    // Whether what held them is gone or was only emptied.
    let gone = ids((0..600).filter(|seed| seed % 40 != 0));
    for id in gone {
        let absent = rig.store().locate(&[id]).await.unwrap();
        assert_eq!(absent, [Err(ChunkError::NotFound)], "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_goes_as_a_whole_is_removed_and_not_emptied_first() {
    let rig = Rig::new(1);
    rig.store().learn_epoch(5);
    put_all(rig.store(), 0..600).await;
    let segments = rig.disks[0].list().unwrap();
    let open: Vec<_> = segments.iter().map(|name| rig.disks[0].open(name).unwrap()).collect();
    let frames = |file: &Arc<dyn DiskFile>| {
        let mut frame = [0; 64];
        read_full(&**file, &mut frame, HEADER_LEN).unwrap();
        frame
    };
    let before: Vec<_> = open.iter().map(frames).collect();
    for epoch in 6..=8 {
        let (swept, stopped) = sweep(rig.store(), plan(epoch), &HashSet::new()).await;
        assert_eq!((stopped, swept.erased.chunks), (None, if epoch == 8 { 600 } else { 0 }));
    }
    let left = rig.disks[0].list().unwrap();
    let gone = |name: &&String| !left.contains(name);
    assert!(segments.iter().filter(gone).count() >= 2, "{segments:?} {left:?}");
    // Their files are still open here.
    let sealed = segments.iter().zip(before.iter().zip(&open)).filter(|(name, _)| gone(name));
    let unchanged = sealed.clone().filter(|(_, (before, file))| **before == frames(file)).count();
    assert!(
        unchanged + 1 >= sealed.count(),
        "only the newest was, before it was sealed: {unchanged}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_a_limit_or_distrust_erases_nothing() {
    let rig = Rig::new(1);
    rig.store().learn_epoch(5);
    put_all(rig.store(), 0..100).await;
    let none = HashSet::new();
    sweep(rig.store(), plan(7), &none).await;
    let before = rig.store().status()[0].totals;
    let dry = Plan { dry_run: true, ..plan(8) };
    let (swept, _) = sweep(rig.store(), dry, &none).await;
    assert_eq!((swept.erased.chunks, rig.store().copies()), (100, 100), "counted, not done");
    assert_eq!(rig.store().status()[0].totals, before);
    let limited = Plan { quarantine_bytes_max: 20_000, erase_from: 9, ..plan(9) };
    let (swept, stopped) = sweep(rig.store(), limited, &none).await;
    assert_eq!(stopped, Some(Stopped::TooMuch(20_000)));
    assert!(swept.quarantined.bytes <= 20_000 && swept.erased.chunks == 0);
    let distrusting = Plan { erase_from: 10, ..plan(10) };
    let (swept, _) = sweep(rig.store(), distrusting, &none).await;
    assert_eq!((swept.erased.chunks, swept.quarantined.chunks), (0, 100));
    // Referred to after all.
    let (swept, _) = sweep(rig.store(), plan(11), &ids(0..50)).await;
    assert_eq!(swept.restored.chunks, 50);
    assert!(swept.erased.chunks >= 45);
    assert_all(rig.store(), 0..50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_started_counts_everything_as_touched() {
    let mut rig = Rig::new(1);
    rig.store().learn_epoch(5);
    put_all(rig.store(), 0..50).await;
    let none = HashSet::new();
    sweep(rig.store(), plan(6), &none).await;
    sweep(rig.store(), plan(7), &none).await;
    assert_eq!(rig.store().status()[0].totals.quarantined_chunks, 50);
    rig.reopen().await;
    let refused = Sweep::begin(rig.store(), plan(7)).err().unwrap();
    assert_eq!(refused, Stopped::Epoch { known: 7, asked: 7 }, "no epoch was learned yet");
    for (epoch, young, quarantined, erased) in
        [(8, 50, 0, 0), (9, 50, 0, 0), (10, 0, 50, 0), (11, 0, 0, 50)]
    {
        let (swept, _) = sweep(rig.store(), plan(epoch), &none).await;
        let found = (swept.young.chunks, swept.quarantined.chunks, swept.erased.chunks);
        assert_eq!(found, (young, quarantined, erased), "epoch {epoch}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_during_sweeps_loses_nothing_that_is_referred_to() {
    for seed in 0..12u64 {
        let mut random = Random::new(seed);
        let mut rig = Rig::new(1);
        rig.store().learn_epoch(5);
        put_all(rig.store(), 0..300).await;
        let live: HashSet<u64> = (0..300).filter(|_| random.below(3) == 0).collect();
        let named = ids(live.iter().copied());
        for epoch in 6..8 {
            sweep(rig.store(), plan(epoch), &named).await;
        }
        assert!(rig.store().status()[0].totals.quarantined_chunks > 150);
        // The power goes while chunks are erased, holes are made and segments are rewritten.
        let (store, disk) = (Arc::clone(rig.store()), rig.disks[0].clone());
        let last = tokio::spawn(async move {
            store.learn_epoch(8);
            sweep(&store, plan(8), &named).await
        });
        for _ in 0..random.below(60) {
            tokio::task::yield_now().await;
            disk.space().unwrap();
        }
        let after = rig.disks[0].power_cut(seed);
        let (_, stopped) = last.await.unwrap();
        rig.close().await;
        if seed % 2 == 0 {
            rig.forget_index();
        }
        rig.disks[0] = after;
        rig.open();
        for seed_of in &live {
            let (id, data) = chunk(*seed_of);
            let found = rig.store().get_verified(id).await;
            assert_eq!(found, Ok(data), "seed {seed}, {id}, stopped: {stopped:?}");
        }
        assert_eq!(damaged(&rig), 0, "seed {seed}");
        put_all(rig.store(), 0..300).await;
        assert_all(rig.store(), 0..300).await;
    }
}

/// What a master knows: the floor, and what was committed.
#[derive(Default)]
struct Ledger {
    floor: u64,
    committed: HashSet<u64>,
}

/// Puts, touches, commits and deletes a few chunks again and again.
async fn commit_and_delete(store: Arc<Store>, ledger: Arc<Mutex<Ledger>>, seed: u64, steps: u64) {
    let mut random = Random::new(seed);
    for _ in 0..steps {
        // Names of this writer only, contents that all writers share.
        let content = random.below(40);
        if random.below(3) == 0 {
            ledger.lock().unwrap().committed.remove(&content);
            continue;
        }
        loop {
            let stamp = store.epoch();
            let (id, data) = chunk(content);
            let here = random.below(2) == 0 && store.have(vec![id], true).await[0].is_some();
            if !here {
                assert!(store.put(vec![(id, data)]).await[0].is_ok());
            }
            for _ in 0..random.below(4) {
                tokio::task::yield_now().await;
            }
            let mut ledger = ledger.lock().unwrap();
            if stamp >= ledger.floor {
                ledger.committed.insert(content);
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_committed_is_never_collected() {
    let rig = Rig::new(2);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let writers: Vec<_> = (0..3)
        .map(|seed| {
            let (store, ledger) = (Arc::clone(rig.store()), Arc::clone(&ledger));
            tokio::spawn(commit_and_delete(store, ledger, seed, 400))
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let collector = {
        let (store, ledger, done) =
            (Arc::clone(rig.store()), Arc::clone(&ledger), Arc::clone(&done));
        tokio::spawn(async move {
            let (mut epoch, mut erased) = (5, 0);
            // Writers that are done before two cycles are through leave their garbage behind.
            while !done.load(Ordering::Relaxed) || (erased == 0 && epoch < 50) {
                epoch += 1;
                store.learn_epoch(epoch);
                let live = {
                    let mut ledger = ledger.lock().unwrap();
                    ledger.floor = epoch - 1;
                    ids(ledger.committed.iter().copied())
                };
                let (swept, stopped) = sweep(&store, plan(epoch), &live).await;
                assert_eq!(stopped, None);
                erased += swept.erased.chunks;
                let committed = ledger.lock().unwrap().committed.clone();
                for content in committed {
                    let (id, data) = chunk(content);
                    let found = store.get_verified(id).await;
                    let still = ledger.lock().unwrap().committed.contains(&content);
                    assert!(found == Ok(data) || !still, "epoch {epoch}: {found:?}");
                }
            }
            erased
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let erased = collector.await.unwrap();
    assert!(erased > 0, "nothing was ever collected: this test shows nothing");
    let committed = ledger.lock().unwrap().committed.clone();
    for content in committed {
        assert_all(rig.store(), content..content + 1).await;
    }
    assert_eq!(damaged(&rig), 0);
}
