//! Full disks: applications get ENOSPC at once and nothing else, what is there stays readable and can be
//! removed, and writing works again as soon as there is room, without a restart.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use cairn_tests::{Cluster, Layout, Mount, Rng, inspect, run, scratch, sh, wait_for, within};
use tempfile::TempDir;

/// A small file system of its own, in memory.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(mib: u32) -> Self {
        let place = scratch("disk");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}M"), "cairn-test"]).arg(place.path());
        let ran = run(mount, Duration::from_secs(20));
        assert!(ran.ok(), "{ran}");
        Self(place)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Something else takes all that is left, to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("something else");
        let mut file = File::create(&path).unwrap();
        let block = vec![7; 1 << 20];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..512]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        // The nodes may be on their way out still.
        umount.arg("-l").arg(self.path());
        run(umount, Duration::from_secs(20));
    }
}

fn on(disks: &[SmallDisk], reserve: &str) -> Cluster {
    Cluster::with(Layout {
        nodes: disks.len(),
        node_dirs: disks.iter().map(SmallDisk::data).collect(),
        node_args: vec!["--reserve".into(), reserve.into()],
        ..Layout::default()
    })
}

/// Writes until that fails; the error, which must come promptly.
fn fill_up(mount: &Mount, name: &str, seed: u64) -> std::io::Error {
    let mut rng = Rng::new(seed);
    let mut file = File::create(mount.join(name)).unwrap();
    for _ in 0..2000 {
        let began = Instant::now();
        let result = file.write_all(&rng.bytes(1 << 20)).and_then(|()| file.sync_data());
        assert!(began.elapsed() < Duration::from_secs(20), "a write hangs on a full disk");
        if let Err(error) = result {
            return error;
        }
    }
    panic!("2000 MiB fit on a small disk");
}

fn writes(mount: &Mount, name: &str) -> std::io::Result<()> {
    let mut file = File::create(mount.join(name))?;
    file.write_all(&Rng::new(77).bytes(1 << 20))?;
    file.sync_all()
}

fn disks_failed(cluster: &Cluster) -> bool {
    let status = inspect::status(cluster).unwrap();
    let nodes = status.nodes.into_iter().filter_map(|node| node.status);
    nodes.flat_map(|status| status.disks).any(|disk| disk.failed)
}

#[test]
fn at_the_high_water_mark_writing_fails_reading_and_removing_go_on() {
    within(200, || {
        let disks = [SmallDisk::new(160), SmallDisk::new(160)];
        let cluster = on(&disks, "64MiB");
        let mount = cluster.mount();
        let kept = Rng::new(1).bytes(4 << 20);
        fs::write(mount.join("kept"), &kept).unwrap();
        sh(mount.path(), 30, "sync kept");
        let error = fill_up(&mount, "too much", 9);
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        // Nothing of the reserve is used, so that indexes and compaction have room.
        for disk in &disks {
            let free = free_bytes(disk.path());
            assert!(free >= 60 << 20, "{free} bytes are free");
        }
        // A second writer is told too.
        let error = fill_up(&mount, "one more", 10);
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        let mut read = Vec::new();
        File::open(cluster.mount().join("kept")).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == kept);
        fs::rename(mount.join("kept"), mount.join("renamed")).unwrap();
        fs::remove_file(mount.join("too much")).unwrap();
        fs::create_dir(mount.join("metadata has room")).unwrap();
        assert!(!disks_failed(&cluster), "a full disk is not a failed one");
        // What was removed is collected although the disks are full, and its room taken again.
        let works = wait_for(Duration::from_secs(60), || {
            let ran = cluster.cairn(60, &["gc"]);
            writes(&mount, "again").inspect_err(|e| eprintln!("{e}: {ran}")).is_ok()
        });
        assert!(works, "no write succeeds although most of what there was is removed");
        assert!(fs::read(mount.join("again")).unwrap() == Rng::new(77).bytes(1 << 20));
        cluster.assert_fsck_clean();
    });
}

#[test]
fn a_disk_that_something_else_fills_to_the_last_byte_works_again_when_there_is_room() {
    within(200, || {
        let disks = [SmallDisk::new(256), SmallDisk::new(256)];
        let cluster = on(&disks, "16MiB");
        let mount = cluster.mount();
        let kept = Rng::new(1).bytes(8 << 20);
        fs::write(mount.join("kept"), &kept).unwrap();
        sh(mount.path(), 30, "sync kept");
        let others: Vec<_> = disks.iter().map(SmallDisk::fill).collect();
        assert_eq!(writes(&mount, "now").unwrap_err().kind(), ErrorKind::StorageFull);
        assert!(fs::read(cluster.mount().join("kept")).unwrap() == kept);
        // What is stored already needs no room.
        fs::copy(mount.join("kept"), mount.join("same bytes")).unwrap();
        assert!(!disks_failed(&cluster), "a full disk is not a failed one");
        for other in others {
            fs::remove_file(other).unwrap();
        }
        let works = wait_for(Duration::from_secs(20), || writes(&mount, "again").is_ok());
        assert!(works, "no write succeeds although there is room again");
        assert!(fs::read(mount.join("again")).unwrap() == Rng::new(77).bytes(1 << 20));
        drop(mount);
        cluster.assert_sound();
    });
}

/// Files of which the write was acknowledged.
type Kept = Vec<(String, Vec<u8>)>;

/// Writes a small file; false when there is no room for it.
fn write_one(mount: &Mount, kept: &mut Kept) -> bool {
    let name = format!("file {}", kept.len());
    let content = Rng::new(kept.len() as u64).bytes(5_000);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(mount.join(&name))?;
        file.write_all(&content)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => kept.push((name, content)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            return false;
        }
    }
    true
}

/// Fills the disks to the last byte and writes on until the index on each of them has met that. What
/// fills them.
fn fill_until_met(
    cluster: &Cluster,
    mount: &Mount,
    disks: &[SmallDisk],
    kept: &mut Kept,
) -> Vec<PathBuf> {
    let met = |node: usize| {
        let log = fs::read_to_string(cluster.log_path(&format!("node{}", node + 1))).unwrap();
        log.matches("takes chunks again by itself").count()
    };
    let before: Vec<_> = (0..disks.len()).map(met).collect();
    for _ in 0..20 {
        // So that segments have room that is taken from the disk already, and the index gets to work.
        while !write_one(mount, kept) {}
        let others: Vec<_> = disks.iter().map(SmallDisk::fill).collect();
        for _ in 0..250 {
            write_one(mount, kept);
            if before.iter().enumerate().all(|(node, before)| met(node) > *before) {
                return others;
            }
        }
        others.iter().for_each(|other| fs::remove_file(other).unwrap());
    }
    panic!("no index meets the full disk");
}

#[test]
fn an_index_that_met_a_full_disk_comes_back_with_everything_and_without_a_restart() {
    within(300, || {
        let disks = [SmallDisk::new(96), SmallDisk::new(96)];
        // Nothing keeps the index from the last byte.
        let cluster = on(&disks, "0");
        let mount = cluster.mount();
        let mut kept = Vec::new();
        for filled in [&disks[..1], &disks[..]] {
            let others = fill_until_met(&cluster, &mount, filled, &mut kept);
            assert!(!disks_failed(&cluster), "a full disk is not a failed one");
            let reader = cluster.mount();
            for (name, content) in &kept {
                assert!(fs::read(reader.join(name)).unwrap() == *content, "{name}");
            }
            others.iter().for_each(|other| fs::remove_file(other).unwrap());
            let works = wait_for(Duration::from_secs(30), || writes(&mount, "again").is_ok());
            assert!(works, "no write succeeds although there is room again");
            // Every group has two copies: both nodes take chunks.
            cluster.wait_healthy();
        }
        assert!(!disks_failed(&cluster));
        drop(mount);
        cluster.assert_sound();
        let mount = cluster.mount();
        for (name, content) in &kept {
            assert!(fs::read(mount.join(name)).unwrap() == *content, "{name}");
        }
    });
}

#[test]
fn one_full_node_of_two_does_not_lose_what_the_other_takes() {
    within(200, || {
        let disks = [SmallDisk::new(96), SmallDisk::new(256)];
        let mut cluster = on(&disks, "16MiB");
        let mount = cluster.mount();
        let other = disks[0].fill();
        let content = Rng::new(77).bytes(1 << 20);
        let written = writes(&mount, "f");
        match written {
            // One copy is enough for an acknowledgement, and it is there.
            Ok(()) => assert!(fs::read(cluster.mount().join("f")).unwrap() == content),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}"),
        }
        fs::remove_file(other).unwrap();
        let works = wait_for(Duration::from_secs(20), || writes(&mount, "again").is_ok());
        assert!(works, "no write succeeds although there is room again");
        drop(mount);
        cluster.stop_all();
        cluster.start_all();
        cluster.assert_fsck_clean();
    });
}

#[test]
fn a_full_disk_of_the_master_refuses_changes_and_takes_them_again_when_there_is_room() {
    within(200, || {
        let disk = SmallDisk::new(256);
        let cluster = Cluster::with(Layout { master_dir: Some(disk.data()), ..Layout::default() });
        let mount = cluster.mount_with(&["--deadline", "10"]);
        fs::write(mount.join("kept"), "kept").unwrap();
        sh(mount.path(), 30, "sync kept");
        let other = disk.fill();
        let refused = wait_for(Duration::from_secs(20), || {
            fs::create_dir(mount.join("no room")).is_err_and(|e| e.kind() == ErrorKind::StorageFull)
                || fs::remove_dir(mount.join("no room")).is_err()
        });
        assert!(refused, "a full disk takes directories");
        // A new mount is a session that has to be stored; those that are there go on.
        assert_eq!(fs::read_to_string(mount.join("kept")).unwrap(), "kept");
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);
        fs::remove_file(other).unwrap();
        let works = wait_for(Duration::from_secs(20), || writes(&mount, "again").is_ok());
        assert!(works, "no write succeeds although there is room again");
        drop(mount);
        cluster.assert_sound();
    });
}

fn free_bytes(path: &Path) -> u64 {
    let mut df = Command::new("df");
    df.args(["--output=avail", "-B1"]).arg(path);
    let ran = run(df, Duration::from_secs(10));
    ran.stdout.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}
