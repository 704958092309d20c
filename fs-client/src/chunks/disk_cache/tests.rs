//! A cache in a real directory: restarts, damage, bounds, and who may have it.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId};
use tempfile::TempDir;
use tokio::time::sleep;
use uuid::Uuid;

use super::{CacheRefused, DiskCache, QUEUE_BYTES, READERS};
use crate::config::DiskCacheConfig;

const CHUNK: u32 = 64 << 10;
const FS: Uuid = Uuid::from_u128(7);

fn data(n: u32) -> Bytes {
    of_length(n, CHUNK as usize)
}

fn of_length(n: u32, len: usize) -> Bytes {
    let mut data = vec![0x5a; len];
    data[..4].copy_from_slice(&n.to_le_bytes());
    data.into()
}

fn id(n: u32) -> ChunkId {
    ChunkId::of(&data(n))
}

async fn start(dir: &Path, bytes: u64) -> Result<DiskCache, CacheRefused> {
    let config = DiskCacheConfig { dir: dir.to_owned(), bytes };
    DiskCache::start(&config, FS, CHUNK).await
}

/// The chunk if the disk has it.
async fn get(cache: &DiskCache, id: ChunkId) -> Option<Bytes> {
    cache.get_or(id, async { Err(ChunkError::NotFound) }).await.ok()
}

/// Keeps `chunks` and waits until they are written.
async fn fill(cache: &DiskCache, chunks: impl IntoIterator<Item = Bytes>) {
    for data in chunks {
        let before = cache.figures().written_bytes;
        cache.keep(ChunkId::of(&data), &data);
        for _ in 0..2000 {
            if cache.figures().written_bytes > before {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        assert!(cache.figures().written_bytes > before, "not written: {:?}", cache.figures());
    }
}

/// Bytes that the directory takes on the disk.
fn taken(dir: &TempDir) -> u64 {
    let entries = fs::read_dir(dir.path()).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart_and_lru_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let room = 8 * (u64::from(CHUNK) + 64);
    let cache = start(dir.path(), room).await.unwrap();
    fill(&cache, (0..8).map(data)).await;
    assert_eq!(get(&cache, id(0)).await, Some(data(0)), "used");
    cache.close().await;
    assert_eq!(get(&cache, id(1)).await, None, "closed");
    assert_eq!(cache.figures().limit, 0);

    let cache = start(dir.path(), room).await.unwrap();
    assert_eq!(cache.figures().used, room);
    fill(&cache, [data(8)]).await;
    assert_eq!(get(&cache, id(1)).await, None, "the oldest had to go");
    for n in [0, 2, 3, 4, 5, 6, 7, 8] {
        assert_eq!(get(&cache, id(n)).await, Some(data(n)), "{n}");
    }
    let figures = cache.figures();
    assert_eq!((figures.hits, figures.misses, figures.damaged), (8, 1, 0));
    assert_eq!(figures.read_bytes, 8 * u64::from(CHUNK));
}

#[tokio::test]
async fn a_process_that_dies_leaves_its_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let cache = start(dir.path(), 1 << 20).await.unwrap();
    fill(&cache, (0..8).map(data)).await;
    // What is on the disk while it is in use is what is there after kill -9.
    for name in ["FORMAT", "table", "chunks"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let again = start(copy.path(), 1 << 20).await.unwrap();
    for n in 0..8 {
        assert_eq!(get(&again, id(n)).await, Some(data(n)));
    }
}

#[tokio::test]
async fn damage_is_a_miss_and_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let cache = start(dir.path(), 1 << 20).await.unwrap();
    fill(&cache, (0..4).map(data)).await;
    let chunks = OpenOptions::new().write(true).open(dir.path().join("chunks")).unwrap();
    chunks.write_all_at(b"!", u64::from(CHUNK) + 777).unwrap();
    chunks.set_len(3 * u64::from(CHUNK) + 1).unwrap();
    for n in [1, 3] {
        let found = cache.get_or(id(n), async { Ok(data(n)) }).await;
        assert_eq!(found, Ok(data(n)), "from the nodes");
    }
    assert_eq!(cache.figures().damaged, 2);
    assert_eq!((get(&cache, id(1)).await, get(&cache, id(3)).await), (None, None), "gone");
    assert_eq!(cache.figures().damaged, 2, "once each");
    fill(&cache, [data(1), data(3)]).await;
    for n in 0..4 {
        assert_eq!(get(&cache, id(n)).await, Some(data(n)));
    }
}

#[tokio::test]
async fn a_torn_or_lost_table_is_lost_chunks_and_no_wrong_ones() {
    let dir = tempfile::tempdir().unwrap();
    let cache = start(dir.path(), 1 << 20).await.unwrap();
    fill(&cache, (0..8).map(data)).await;
    cache.close().await;
    let table = OpenOptions::new().write(true).open(dir.path().join("table")).unwrap();
    // Nonsense, a record that names another chunk, one that is cut off.
    table.write_all_at(&[0xff; 48], 0).unwrap();
    table.write_all_at(id(2).as_bytes(), 48).unwrap();
    table.set_len(7 * 48 + 20).unwrap();
    let cache = start(dir.path(), 1 << 20).await.unwrap();
    let mut found = Vec::new();
    for n in 0..8 {
        let got = get(&cache, id(n)).await;
        assert!(got.is_none() || got == Some(data(n)));
        found.extend(got.map(|_| n));
    }
    assert_eq!(
        found,
        [3, 4, 5, 6],
        "0, 1 and 7 have lost their records, 2 is said to be elsewhere"
    );
    cache.close().await;
    fs::remove_file(dir.path().join("table")).unwrap();
    let cache = start(dir.path(), 1 << 20).await.unwrap();
    assert_eq!(get(&cache, id(3)).await, None);
    assert!(taken(&dir) < 64 << 10, "{} bytes are lost", taken(&dir));
    fill(&cache, (0..8).map(data)).await;
    assert_eq!(get(&cache, id(3)).await, Some(data(3)));
}

#[tokio::test]
async fn the_directory_stays_within_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 2 << 20;
    let cache = start(dir.path(), limit).await.unwrap();
    // What the directory and its other files take.
    let slack = 64 << 10;
    for round in 0..10 {
        let lengths = [CHUNK as usize, 1000, 30_000, 9000];
        let chunks = (0..40).map(|n| of_length(round * 40 + n, lengths[(n % 4) as usize]));
        fill(&cache, chunks).await;
        assert!(cache.figures().used <= limit);
        assert!(taken(&dir) <= limit + slack, "{} bytes", taken(&dir));
    }
    assert!(cache.figures().used > limit - limit / 8, "it is used: {:?}", cache.figures());
    let newest = of_length(399, 9000);
    assert_eq!(get(&cache, ChunkId::of(&newest)).await, Some(newest.clone()));
    cache.close().await;
    let cache = start(dir.path(), limit / 4).await.unwrap();
    assert!(taken(&dir) <= limit / 4 + slack, "a smaller limit holds at once");
    assert_eq!(get(&cache, ChunkId::of(&newest)).await, Some(newest), "the newest stay");
}

#[tokio::test]
async fn room_that_no_record_accounts_for_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let cache = start(dir.path(), 4 << 20).await.unwrap();
    fill(&cache, (0..48).map(data)).await;
    cache.close().await;
    let table = OpenOptions::new().write(true).open(dir.path().join("table")).unwrap();
    // A power cut has lost all records but the first and the last one.
    table.write_all_at(&[0; 46 * 48], 48).unwrap();
    let cache = start(dir.path(), 4 << 20).await.unwrap();
    assert!(taken(&dir) < 256 << 10, "{} bytes", taken(&dir));
    assert_eq!(get(&cache, id(0)).await, Some(data(0)));
    assert_eq!(get(&cache, id(47)).await, Some(data(47)));
}

#[tokio::test]
async fn a_directory_that_is_in_use_is_refused_and_one_that_cannot_be_used_does_no_harm() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("cache");
    let cache = start(&dir, 1 << 20).await.unwrap();
    let refused = start(&dir, 1 << 20).await.err().map(|refused| refused.to_string());
    assert!(refused.is_some_and(|sentence| sentence.contains("another mount")));
    fill(&cache, [data(1)]).await;
    cache.close().await;
    let again = start(&dir, 1 << 20).await.unwrap();
    assert_eq!(get(&again, id(1)).await, Some(data(1)));

    let file = place.path().join("file");
    fs::write(&file, "x").unwrap();
    let without = start(&file, 1 << 20).await.unwrap();
    without.keep(id(1), &data(1));
    assert_eq!(get(&without, id(1)).await, None);
    assert_eq!(without.figures().limit, 0);
    without.close().await;
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let cache = start(dir.path(), 1 << 20).await.unwrap();
    fill(&cache, [data(1)]).await;
    let readers = u32::try_from(READERS).unwrap();
    let hanging = Arc::clone(&cache.readers).acquire_many_owned(readers).await.unwrap();
    for _ in 0..3 {
        let got = cache.get_or(id(1), async { Ok(data(1)) }).await;
        assert_eq!(got, Ok(data(1)), "from the nodes");
    }
    assert_eq!(cache.figures().hits, 0);
    // The nodes fail, or say nothing; the disk comes back.
    let failing = cache.get_or(id(1), async { Err(ChunkError::Unreachable) });
    let silent = cache.get_or(id(1), std::future::pending());
    let back = async {
        sleep(Duration::from_millis(20)).await;
        drop(hanging);
    };
    assert_eq!(tokio::join!(failing, silent, back), (Ok(data(1)), Ok(data(1)), ()));

    let queue = cache.queued.try_take(QUEUE_BYTES);
    cache.keep(id(2), &data(2));
    drop(queue);
    assert_eq!((cache.figures().skipped, get(&cache, id(2)).await), (1, None));
}

#[tokio::test]
async fn a_cache_with_no_room_for_anything_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = start(dir.path(), 0).await.unwrap();
    cache.keep(id(1), &data(1));
    cache.close().await;
    let cache = start(dir.path(), 0).await.unwrap();
    assert_eq!(get(&cache, id(1)).await, None);
}
