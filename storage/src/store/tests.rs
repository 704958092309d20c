//! The store over a faulty disk: what was acknowledged is there, whatever happens.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId, pb};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::{index::Counting, *};
use crate::{
    disk::{
        Disk,
        fault::{Call, FaultDisk, Random},
        read_full,
    },
    segment::{
        SegmentId,
        format::{FRAME_LEN, HEADER_LEN},
        writer::SegmentShape,
    },
};

const CHUNK_SIZE: u32 = 4096;
const FS: Uuid = Uuid::from_u128(77);

pub(super) fn limits() -> StoreLimits {
    StoreLimits { chunk_size: CHUNK_SIZE, put_bytes: 1 << 20, get_bytes: 1 << 20 }
}

fn volume(disk: &FaultDisk, index: &Path, counting: Counting) -> Volume {
    Volume::open(VolumeSetup {
        name: index.display().to_string(),
        disk: Arc::new(disk.clone()),
        index_dir: index.into(),
        index_cache: 1 << 20,
        shape: SegmentShape { bytes: 128 * 1024, chunk_size: CHUNK_SIZE },
        reserve: Some(0),
        fs: FS,
        counting,
    })
    .unwrap()
}

/// A store on fault disks, their indexes in a temporary directory.
pub(super) struct Rig {
    tmp: TempDir,
    pub(super) disks: Vec<FaultDisk>,
    store: Option<(Arc<Store>, oneshot::Receiver<()>)>,
}

impl Rig {
    pub(super) fn new(disks: usize) -> Self {
        let disks = (0..disks).map(|_| FaultDisk::new(64 << 20)).collect();
        let mut rig = Self { tmp: tempfile::tempdir().unwrap(), disks, store: None };
        rig.open();
        rig
    }

    pub(super) fn index(&self, disk: usize) -> PathBuf {
        self.tmp.path().join(format!("index{disk}"))
    }

    pub(super) fn open(&mut self) {
        let groups = Arc::new(Groups::default());
        let counting = |volume| Counting { groups: Arc::clone(&groups), volume };
        let disks = self.disks.iter().enumerate();
        let volumes = disks.map(|(i, d)| volume(d, &self.index(i), counting(i))).collect();
        let (store, gone) = Store::new(volumes, limits());
        self.store = Some((Arc::new(store), gone));
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store.as_ref().unwrap().0
    }

    pub(super) async fn close(&mut self) {
        let (store, gone) = self.store.take().unwrap();
        store.close();
        drop(store);
        gone.await.unwrap_err();
    }

    pub(super) async fn reopen(&mut self) {
        self.close().await;
        self.open();
    }

    pub(super) fn forget_index(&self) {
        for i in 0..self.disks.len() {
            fs::remove_dir_all(self.index(i)).unwrap();
        }
    }
}

pub(super) fn chunk(seed: u64) -> (ChunkId, Bytes) {
    let mut random = Random::new(seed);
    let len = 1 + random.below(u64::from(CHUNK_SIZE));
    let data: Vec<u8> = (0..len).map(|_| random.draw() as u8).collect();
    (ChunkId::of(&data), data.into())
}

pub(super) async fn put_all(store: &Arc<Store>, seeds: std::ops::Range<u64>) {
    for at in seeds.clone().step_by(16) {
        let batch = (at..seeds.end.min(at + 16)).map(chunk).collect();
        assert!(store.put(batch).await.iter().all(Result::is_ok));
    }
}

pub(super) async fn assert_all(store: &Arc<Store>, seeds: std::ops::Range<u64>) {
    for (id, data) in seeds.map(chunk) {
        assert_eq!(store.get_verified(id).await, Ok(data), "{id}");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_survive_restarts_and_the_loss_of_the_index() {
    let mut rig = Rig::new(2);
    put_all(rig.store(), 0..300).await;
    let before = rig.store().copies();
    assert_eq!(before, 300);
    rig.reopen().await;
    assert_all(rig.store(), 0..300).await;
    rig.close().await;
    rig.forget_index();
    rig.open();
    assert_all(rig.store(), 0..300).await;
    assert_eq!(rig.store().copies(), before);
    rig.close().await;
    for i in 0..2 {
        for entry in fs::read_dir(rig.index(i)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "jnl") || path.ends_with("version") {
                fs::write(path, b"not what was here").unwrap();
            }
        }
    }
    rig.open();
    assert_all(rig.store(), 0..300).await;
    put_all(rig.store(), 300..310).await;
    assert_all(rig.store(), 300..310).await;
}

/// Puts from several tasks until the disk is gone; what was acknowledged goes into `acked`.
async fn put_until_failure(
    store: Arc<Store>,
    mut random: Random,
    acked: Arc<Mutex<HashMap<ChunkId, Bytes>>>,
    progress: Arc<Notify>,
) {
    loop {
        // A small range, so that tasks put the same chunks at the same time.
        let batch: Vec<_> = (0..1 + random.below(8)).map(|_| chunk(random.below(400))).collect();
        let outcome = store.put(batch.clone()).await;
        let failed = outcome.iter().any(Result::is_err);
        for ((id, data), result) in batch.into_iter().zip(outcome) {
            if result.is_ok() {
                acked.lock().unwrap().insert(id, data);
            }
        }
        progress.notify_one();
        if failed {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    for seed in 0..15 {
        let mut random = Random::new(seed);
        let mut rig = Rig::new(1);
        put_all(rig.store(), 1000..1000 + random.below(60)).await;
        rig.reopen().await;
        let old_index = rig.tmp.path().join("old-index");
        copy_dir(&rig.index(0), &old_index);

        let acked = Arc::new(Mutex::new(HashMap::new()));
        let progress = Arc::new(Notify::new());
        let tasks: Vec<_> = (0..4)
            .map(|i| {
                let random = Random::new(seed * 100 + i);
                let (store, acked) = (Arc::clone(rig.store()), Arc::clone(&acked));
                tokio::spawn(put_until_failure(store, random, acked, Arc::clone(&progress)))
            })
            .collect();
        for _ in 0..random.below(40) {
            progress.notified().await;
        }
        let after = rig.disks[0].power_cut(seed);
        for task in tasks {
            task.await.unwrap();
        }
        rig.close().await;
        match seed % 3 {
            0 => {}
            1 => rig.forget_index(),
            _ => {
                rig.forget_index();
                copy_dir(&old_index, &rig.index(0));
            }
        }
        rig.disks[0] = after;
        rig.open();
        let acked = Arc::into_inner(acked).unwrap().into_inner().unwrap();
        for (id, data) in &acked {
            let store = rig.store();
            assert_eq!(store.get_verified(*id).await.as_ref(), Ok(data), "seed {seed}, {id}");
        }
        let have = rig.store().have(acked.keys().copied().collect(), true).await;
        assert!(have.iter().all(Option::is_some));
        // It goes on where it was, and a clean restart agrees.
        put_all(rig.store(), 2000..2040).await;
        let copies = rig.store().copies();
        rig.close().await;
        rig.forget_index();
        rig.open();
        assert_all(rig.store(), 2000..2040).await;
        assert_eq!(rig.store().copies(), copies, "seed {seed}");
        let mut damaged = 0;
        rig.store()
            .verify(|c| {
                damaged += u64::from(c.result.is_err());
                true
            })
            .unwrap();
        assert_eq!(damaged, 0, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_chunk_from_many_at_once_is_stored_once() {
    let rig = Rig::new(2);
    let (id, data) = chunk(1);
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (store, batch) = (Arc::clone(rig.store()), vec![(id, data.clone()); 3]);
            tokio::spawn(async move { store.put(batch).await })
        })
        .collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.extend(task.await.unwrap());
    }
    let known = outcomes.iter().filter(|outcome| **outcome == Ok(Put::Known)).count();
    assert_eq!((outcomes.len(), known), (96, 95), "{outcomes:?}");
    assert_eq!(rig.store().copies(), 1);
    assert_eq!(
        rig.store().have(vec![id, chunk(2).0], false).await,
        [Some(data.len() as u32), None]
    );
}

#[tokio::test]
async fn wrong_data_is_refused_and_not_stored() {
    let rig = Rig::new(1);
    let (id, data) = chunk(1);
    let too_long = Bytes::from(vec![7; CHUNK_SIZE as usize + 1]);
    let outcome = rig
        .store()
        .put(vec![
            (chunk(2).0, data.clone()),
            (ChunkId::of(b""), Bytes::new()),
            (ChunkId::of(&too_long), too_long),
            (id, data.clone()),
        ])
        .await;
    let expected = [
        Err(ChunkError::Mismatch),
        Err(ChunkError::BadLength),
        Err(ChunkError::BadLength),
        Ok(Put::Stored),
    ];
    assert_eq!(outcome, expected);
    assert_eq!(rig.store().copies(), 1);
    // Also when the id names a chunk that is stored.
    assert_eq!(rig.store().put(vec![(id, chunk(3).1)]).await, [Err(ChunkError::Mismatch)]);
    assert_eq!(rig.store().get(vec![chunk(2).0]).await, [Err(ChunkError::NotFound)]);
}

#[tokio::test]
async fn what_was_put_and_got_is_counted() {
    let rig = Rig::new(2);
    let (id, data) = chunk(1);
    let len = data.len() as u64;
    let wrong = (chunk(2).0, data.clone());
    rig.store().put(vec![(id, data.clone()), wrong, (id, data.clone())]).await;
    rig.store().put(vec![(id, data)]).await;
    rig.store().get(vec![id, id, chunk(3).0]).await;
    rig.store().get_verified(id).await.unwrap();
    let activity = rig.store().activity();
    let expected = pb::NodeActivity {
        chunks_put: 1,
        bytes_put: len,
        chunks_known: 2,
        bytes_known: 2 * len,
        chunks_got: 3,
        bytes_got: 3 * len,
        failures: 2,
    };
    assert_eq!(pb::NodeActivity::from(activity), expected);
    assert_eq!((activity.puts.count(), activity.gets.count()), (2, 2));
}

#[tokio::test]
async fn a_failed_sync_ends_puts_on_that_disk_only() {
    let mut rig = Rig::new(2);
    put_all(rig.store(), 0..20).await;
    rig.disks[0].fail_nth(Call::Sync, 1, libc::EIO);
    // One of these meets the fault; its chunk goes to the other disk.
    put_all(rig.store(), 20..60).await;
    let status = rig.store().status();
    assert_eq!((status[0].failed, status[1].failed), (true, false));
    assert_all(rig.store(), 0..60).await;
    rig.disks[1].fail_always(Call::Sync, libc::EIO);
    assert_eq!(rig.store().put(vec![chunk(60)]).await, [Err(ChunkError::DiskFailed)]);
    rig.disks[1].heal();
    // The kernel may have dropped the pages: a later success proves nothing.
    assert_eq!(rig.store().put(vec![chunk(60)]).await, [Err(ChunkError::DiskFailed)]);
    assert_all(rig.store(), 0..60).await;
    rig.reopen().await;
    assert_all(rig.store(), 0..60).await;
    put_all(rig.store(), 60..61).await;
}

#[tokio::test]
async fn short_transfers_and_full_disks_are_lived_with() {
    let mut rig = Rig::new(1);
    rig.disks[0].shorten_transfers(5);
    put_all(rig.store(), 0..50).await;
    assert_all(rig.store(), 0..50).await;
    rig.disks[0].heal();
    rig.disks[0].fail_nth(Call::Write, 1, libc::ENOSPC);
    assert_eq!(rig.store().put(vec![chunk(50)]).await, [Err(ChunkError::NoSpace)]);
    put_all(rig.store(), 50..60).await;
    // Also where only the sync finds out: what it was for is not acknowledged, nothing else is lost.
    for nth in 1..4 {
        rig.disks[0].fail_nth(Call::Sync, nth, libc::ENOSPC);
        let outcomes = join_all((1000..1040).map(|s| rig.store().put(vec![chunk(s * nth)]))).await;
        assert!(outcomes.iter().any(|o| o[0] == Err(ChunkError::NoSpace)), "{outcomes:?}");
        rig.disks[0].heal();
        put_all(rig.store(), 1000..1040).await;
        assert!(!rig.store().status()[0].failed);
    }
    rig.reopen().await;
    assert_all(rig.store(), 1000..1040).await;
    // Full before the disk is: what is allocated may still be used, then nothing.
    rig.disks[0].use_elsewhere(64 << 20);
    let mut refused = 0;
    for seed in 60..200 {
        match rig.store().put(vec![chunk(seed)]).await[..] {
            [Ok(_)] => {}
            [Err(ChunkError::NoSpace)] => refused += 1,
            ref other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
    assert_all(rig.store(), 0..60).await;
    assert_eq!(
        rig.store().put(vec![chunk(0)]).await,
        [Ok(Put::Known)],
        "what is stored needs no room"
    );
    rig.disks[0].use_elsewhere(0);
    put_all(rig.store(), 60..200).await;
    rig.reopen().await;
    assert_all(rig.store(), 0..200).await;
}

#[tokio::test]
async fn damage_is_found_named_and_healed_by_the_next_put() {
    let mut rig = Rig::new(1);
    put_all(rig.store(), 0..40).await;
    let name = SegmentId(1).file_name();
    // The first record of the first segment is one of the first batch; find out which.
    let mut frame = [0; FRAME_LEN];
    read_full(&*rig.disks[0].open(&name).unwrap(), &mut frame, HEADER_LEN).unwrap();
    let id = ChunkId::try_from(&frame[16..48]).unwrap();
    let data = (0..40).map(chunk).find(|(i, _)| *i == id).unwrap().1;
    rig.disks[0].flip_bit(&name, HEADER_LEN as usize + FRAME_LEN);
    let mut damaged = Vec::new();
    let mut checked = 0;
    let note = |c: Checked| {
        checked += 1;
        damaged.extend(c.result.is_err().then_some(c.id));
        true
    };
    rig.store().verify(note).unwrap();
    assert_eq!((checked, damaged), (40, vec![id]));
    assert_eq!(rig.store().get_verified(id).await, Err(ChunkError::Damaged));
    assert_eq!(rig.store().have(vec![id], true).await, [None]);
    assert_eq!(rig.store().put(vec![(id, data.clone())]).await, [Ok(Put::Stored)]);
    assert_eq!(rig.store().get_verified(id).await, Ok(data));
    assert_eq!(rig.store().copies(), 40);
    rig.close().await;
    rig.forget_index();
    rig.open();
    assert_all(rig.store(), 0..40).await;
    assert_eq!(rig.store().copies(), 40);
}

#[tokio::test]
async fn damage_in_the_middle_takes_only_the_records_it_hits() {
    let mut rig = Rig::new(1);
    put_all(rig.store(), 0..200).await;
    rig.close().await;
    // Frames of the first record of the first (sealed) and of the newest segment.
    let names = rig.disks[0].list().unwrap();
    assert!(names.len() > 2, "{names:?}");
    for name in [names.first().unwrap(), names.last().unwrap()] {
        rig.disks[0].flip_bit(name, HEADER_LEN as usize + 20);
    }
    rig.forget_index();
    rig.open();
    assert_eq!(rig.store().copies(), 198);
    let mut lost = 0;
    for (id, data) in (0..200).map(chunk) {
        match rig.store().get_verified(id).await {
            Ok(found) => assert_eq!(found, data),
            Err(e) => {
                assert_eq!(e, ChunkError::NotFound);
                lost += 1;
            }
        }
    }
    assert_eq!(lost, 2);
    put_all(rig.store(), 0..200).await;
    rig.reopen().await;
    assert_all(rig.store(), 0..200).await;
}

#[tokio::test]
async fn listing_pages_through_all_disks_in_order_and_epochs_are_kept() {
    let mut rig = Rig::new(3);
    put_all(rig.store(), 0..100).await;
    rig.store().learn_epoch(7);
    rig.store().learn_epoch(5);
    assert_eq!(rig.store().epoch(), 7);
    put_all(rig.store(), 90..100).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = rig.store().list(after, None, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page);
    }
    assert_eq!(seen.len(), 100);
    assert!(seen.is_sorted_by_key(|c| c.id));
    assert!(seen.iter().all(|c| c.epoch == 7), "a started node counts everything as touched now");
    rig.store().learn_epoch(8);
    let (id, _) = chunk(3);
    rig.store().have(vec![id], false).await;
    let epoch_of = |list: &[list::Listed]| list.iter().find(|c| c.id == id).unwrap().epoch;
    assert_eq!(epoch_of(&rig.store().list(None, None, 1000).await.unwrap()), 7);
    rig.store().have(vec![id], true).await;
    assert_eq!(epoch_of(&rig.store().list(None, None, 1000).await.unwrap()), 8);
    rig.reopen().await;
    assert_eq!(rig.store().epoch(), 8);
}

#[tokio::test]
async fn a_segment_of_another_file_system_is_refused() {
    let mut rig = Rig::new(1);
    put_all(rig.store(), 0..3).await;
    rig.close().await;
    rig.forget_index();
    let other = Volume::open(VolumeSetup {
        name: "other".into(),
        disk: Arc::new(rig.disks[0].clone()),
        index_dir: rig.index(0),
        index_cache: 1 << 20,
        shape: SegmentShape { bytes: 128 * 1024, chunk_size: CHUNK_SIZE },
        reserve: Some(0),
        fs: Uuid::from_u128(78),
        counting: Counting::default(),
    });
    let sentence = other.err().unwrap().to_string();
    assert!(sentence.contains("belongs to file system"), "{sentence}");
}
