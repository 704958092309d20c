//! `kill -9` of one storage node while files are written and read: both go on, and are right.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_tests::{
    Cluster, Rng, inspect, rng::scale, tree_compare::first_difference, wait_for, within,
};

use super::acknowledged::{check, start};

const MIB: usize = 1 << 20;

fn make(path: &Path, seed: u64, mib: u64) {
    let mut rng = Rng::new(seed);
    let mut file = File::create(path).unwrap();
    for _ in 0..mib {
        file.write_all(&rng.bytes(MIB)).unwrap();
    }
    file.sync_all().unwrap();
}

/// Copies in pieces of 1 MiB; the longest that one piece took.
fn copy(from: &Path, to: &Path, moved: &AtomicU64) -> Duration {
    let (mut from, mut to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let mut buffer = vec![0; MIB];
    let mut longest = Duration::ZERO;
    loop {
        let began = Instant::now();
        let n = from.read(&mut buffer).unwrap();
        to.write_all(&buffer[..n]).unwrap();
        longest = longest.max(began.elapsed());
        moved.fetch_add(n as u64, Ordering::Relaxed);
        if n == 0 {
            let began = Instant::now();
            to.sync_all().unwrap();
            return longest.max(began.elapsed());
        }
    }
}

#[test]
fn reader_and_writer_go_on_when_a_node_is_killed() {
    within(500, || {
        let mut cluster = Cluster::new();
        let mib = 192 * scale().min(8);
        let local = cluster.place().join("local");
        make(&local, 1, mib);
        {
            let mount = cluster.mount();
            make(&mount.join("old"), 2, mib);
        }
        let mount = cluster.mount();
        let moved = Arc::new(AtomicU64::new(0));
        let copying = |from: PathBuf, to: PathBuf| {
            let moved = Arc::clone(&moved);
            std::thread::spawn(move || copy(&from, &to, &moved))
        };
        let read_back = cluster.place().join("read-back");
        let reader = copying(mount.join("old"), read_back.clone());
        let writer = copying(local.clone(), mount.join("new"));
        let quarter = mib * MIB as u64 / 4;
        assert!(wait_for(Duration::from_secs(120), || moved.load(Ordering::Relaxed) > quarter));
        cluster.kill_node(0);
        let (read_stall, write_stall) = (reader.join().unwrap(), writer.join().unwrap());
        eprintln!("longest stall: reader {read_stall:?}, writer {write_stall:?}");
        assert!(read_stall < Duration::from_secs(5) && write_stall < Duration::from_secs(5));
        fs::write(mount.join("while it is down"), "new").unwrap();
        assert_eq!(first_difference(&local, &mount.join("new")), None);
        drop(mount);
        let mount = cluster.mount();
        assert_eq!(first_difference(&local, &mount.join("new")), None);
        let old = cluster.place().join("old");
        make(&old, 2, mib);
        assert_eq!(first_difference(&old, &read_back), None);
        let status = inspect::status(&cluster).unwrap();
        assert!(!status.degraded_groups.is_empty(), "status hides that copies are missing");
        cluster.assert_fsck_clean();
        cluster.start_node(0);
        cluster.wait_healthy();
        assert_eq!(fs::read_to_string(mount.join("while it is down")).unwrap(), "new");
    });
}

#[test]
fn a_node_that_hangs_does_not_hang_readers_and_writers() {
    within(300, || {
        let mut cluster = Cluster::new();
        let local = cluster.place().join("local");
        make(&local, 1, 64);
        let mount = cluster.mount();
        let moved = Arc::new(AtomicU64::new(0));
        let writer = std::thread::spawn({
            let (from, to, moved) = (local.clone(), mount.join("new"), Arc::clone(&moved));
            move || copy(&from, &to, &moved)
        });
        assert!(wait_for(Duration::from_secs(60), || moved.load(Ordering::Relaxed) > 8 << 20));
        cluster.node(1).stop();
        let stall = writer.join().unwrap();
        eprintln!("longest stall of a writer with a stopped node: {stall:?}");
        assert!(stall < Duration::from_secs(20));
        drop(mount);
        let mount = cluster.mount();
        assert_eq!(first_difference(&local, &mount.join("new")), None);
        cluster.node(1).cont();
        cluster.assert_fsck_clean();
    });
}

#[test]
fn synced_files_survive_kills_of_nodes_in_turn() {
    within(400, || {
        let mut cluster = Cluster::new();
        let mut rng = Rng::of_run("killed nodes");
        let mount = cluster.mount();
        let writer = start(&cluster, &mount.join("files"), 0);
        for round in 0..6 * scale() {
            let node = usize::from(round % 2 == 1);
            std::thread::sleep(Duration::from_millis(100 + rng.below(500)));
            cluster.kill_node(node);
            std::thread::sleep(Duration::from_millis(rng.below(500)));
            cluster.start_node(node);
            cluster.wait_healthy();
        }
        let acknowledged = writer.finish();
        drop(mount);
        check(cluster.mount().path().join("files").as_path(), acknowledged);
        cluster.assert_fsck_clean();
    });
}
