//! The disk cache of a mount: it outlives the mount, is never believed, stays within its limit, and no
//! fault of its disk is anybody's error.

use std::{
    fs::{self, OpenOptions},
    os::unix::{
        fs::{FileExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cairn_tests::{
    Cluster, Mount, Rng, mount::detach, run, scrape, scrape::Scrape, sh, wait_for, within,
};

const MIB: usize = 1 << 20;

/// Mounts with a cache in `dir` that may take `size`.
fn mount(cluster: &Cluster, dir: &Path, size: &str) -> Mount {
    let dir = dir.to_str().unwrap();
    cluster.mount_with(&["--cache-dir", dir, "--cache-dir-size", size])
}

fn figure(mount: &Mount, name: &str) -> f64 {
    Scrape::mount(mount).value(&format!("cairn_mount_{name}"))
}

/// Waits until what was stored or fetched is in the cache.
fn wait_written(mount: &Mount, bytes: usize) {
    let written = || figure(mount, "disk_cache_written_bytes_total") >= bytes as f64;
    assert!(wait_for(Duration::from_secs(60), written), "{}", Scrape::mount(mount).text);
}

/// A file of `mib` MiB that a mount without a cache has stored.
fn stored(cluster: &Cluster, name: &str, mib: usize) -> Vec<u8> {
    let bytes = Rng::new(mib as u64).bytes(mib * MIB);
    let mount = cluster.mount();
    fs::write(mount.join(name), &bytes).unwrap();
    mount.unmount();
    bytes
}

fn taken(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

fn read(mount: &Mount, name: &str) -> Vec<u8> {
    fs::read(mount.join(name)).unwrap()
}

/// Fails without printing megabytes.
fn assert_same(one: &[u8], other: &[u8]) {
    assert!(one == other, "other bytes");
}

/// A file system in memory, for a disk that is small or fails.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: PathBuf, options: &str) -> Self {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "cairn-test"]).arg(&at);
        let ran = run(mount, Duration::from_secs(20));
        assert!(ran.ok(), "{ran}");
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.0);
        run(umount, Duration::from_secs(20));
    }
}

#[test]
fn what_was_read_and_written_is_there_after_a_remount_without_any_node() {
    within(180, || {
        let mut cluster = Cluster::new();
        let dir = cluster.place().join("cache");
        let fetched = stored(&cluster, "fetched", 4);
        let written = Rng::new(5).bytes(4 * MIB + 1234);
        let first = mount(&cluster, &dir, "64MiB");
        assert_same(&read(&first, "fetched"), &fetched);
        fs::write(first.join("written"), &written).unwrap();
        wait_written(&first, fetched.len() + written.len());
        first.unmount();

        cluster.kill_node(0);
        cluster.kill_node(1);
        let mut again = mount(&cluster, &dir, "64MiB");
        assert_same(&read(&again, "fetched"), &fetched);
        assert_same(&read(&again, "written"), &written);
        assert_eq!(figure(&again, "fetched_bytes_total"), 0.0);
        let hits = figure(&again, "disk_cache_requests_total{result=\"hit\"}");
        assert_eq!(hits, (64 + 65) as f64, "each chunk once");

        // A daemon that follows a killed one takes the cache over.
        again.kill_daemon();
        let copy = cluster.place().join("copy");
        fs::write(&copy, &fetched).unwrap();
        let direct = "dd if=fetched iflag=direct bs=1M status=none | cmp -";
        sh(again.path(), 60, &format!("{direct} '{}'", copy.display()));
        let socket = scrape::socket(&again);
        assert!(wait_for(Duration::from_secs(20), || UnixStream::connect(&socket).is_ok()));
        assert_eq!(figure(&again, "fetched_bytes_total"), 0.0);

        // And so does the mount after one that was killed with its supervisor.
        again.kill9();
        detach(again.path());
        let options = ["--cache-dir", dir.to_str().unwrap()];
        again.start(&cluster.master_address(), &options);
        assert_same(&read(&again, "written"), &written);
        cluster.start_node(0);
        cluster.start_node(1);
        drop(again);
        cluster.assert_sound();
    });
}

#[test]
fn a_damaged_cache_is_made_good_from_the_nodes() {
    within(180, || {
        let mut cluster = Cluster::new();
        let dir = cluster.place().join("cache");
        let bytes = stored(&cluster, "f", 4);
        let first = mount(&cluster, &dir, "64MiB");
        assert_same(&read(&first, "f"), &bytes);
        wait_written(&first, bytes.len());
        first.unmount();
        let chunks = OpenOptions::new().write(true).open(dir.join("chunks")).unwrap();
        for slot in (0..64).step_by(2) {
            chunks.write_all_at(&[slot as u8, 1, 2, 3], slot * 65536 + slot * 1000).unwrap();
        }
        let second = mount(&cluster, &dir, "64MiB");
        assert_same(&read(&second, "f"), &bytes);
        assert_eq!(figure(&second, "disk_cache_damaged_chunks_total"), 32.0);
        assert_eq!(figure(&second, "fetched_bytes_total"), bytes.len() as f64 / 2.0);
        wait_written(&second, bytes.len() / 2);
        second.unmount();
        // A table of nonsense is an empty cache.
        cluster.kill_node(0);
        let third = mount(&cluster, &dir, "64MiB");
        assert_same(&read(&third, "f"), &bytes);
        assert_eq!(figure(&third, "fetched_bytes_total"), 0.0, "all of it is there again");
        third.unmount();
        let length = fs::metadata(dir.join("table")).unwrap().len();
        fs::write(dir.join("table"), Rng::new(3).bytes(length as usize)).unwrap();
        let fourth = mount(&cluster, &dir, "64MiB");
        assert_same(&read(&fourth, "f"), &bytes);
    });
}

#[test]
fn the_cache_stays_within_its_size() {
    within(180, || {
        let cluster = Cluster::new();
        let dir = cluster.place().join("cache");
        let bytes = stored(&cluster, "f", 8);
        let mount = mount(&cluster, &dir, "2MiB");
        // What the directory and its small files take.
        let most = (2 * MIB + (64 << 10)) as u64;
        for _ in 0..3 {
            sh(mount.path(), 60, "dd if=f of=/dev/null bs=1M iflag=direct status=none");
            assert!(taken(&dir) <= most, "{} bytes", taken(&dir));
        }
        assert_same(&read(&mount, "f"), &bytes);
        let busy = || figure(&mount, "disk_cache_written_bytes_total") > (4 * MIB) as f64;
        assert!(wait_for(Duration::from_secs(30), busy), "chunks make room for others");
        assert!(figure(&mount, "disk_cache_used_bytes") <= figure(&mount, "disk_cache_bytes"));
        assert_eq!(figure(&mount, "disk_cache_bytes"), (2 * MIB) as f64);
        mount.unmount();
        assert!(taken(&dir) <= most && taken(&dir) > MIB as u64, "{} bytes", taken(&dir));
    });
}

#[test]
fn a_full_or_read_only_or_vanished_disk_is_gone_on_without() {
    within(240, || {
        let cluster = Cluster::new();
        let bytes = stored(&cluster, "f", 8);
        let disk = SmallDisk::new(cluster.place().join("disk"), "size=2M");
        let dir = disk.0.join("cache");
        let small = mount(&cluster, &dir, "1GiB");
        assert_same(&read(&small, "f"), &bytes);
        let full = || figure(&small, "disk_cache_bytes") < (2 * MIB) as f64;
        assert!(wait_for(Duration::from_secs(30), full), "it knows what the disk takes");
        fs::write(small.join("g"), &bytes[..MIB]).unwrap();
        let used = figure(&small, "disk_cache_used_bytes");
        assert!(used > 0.0 && used < (2 * MIB) as f64, "{used}");
        small.unmount();

        sh(cluster.place(), 20, "mount -o remount,ro disk");
        let mut without = mount(&cluster, &dir, "1GiB");
        assert_same(&read(&without, "f"), &bytes);
        assert_eq!(figure(&without, "disk_cache_bytes"), 0.0);
        let log = without.supervisor().log();
        assert_eq!(log.matches("going on without it").count(), 1, "{log}");
        without.unmount();

        sh(
            cluster.place(),
            20,
            "mount -o remount,rw disk; rm -r disk/cache; ! dd if=/dev/zero of=disk/all bs=4k",
        );
        let mut without = mount(&cluster, &dir, "1GiB");
        assert_same(&read(&without, "f"), &bytes);
        let log = without.supervisor().log();
        assert_eq!(log.matches("No space left").count(), 1, "{log}");
        sh(cluster.place(), 20, "rm disk/all");
        without.unmount();

        let vanishing = mount(&cluster, &dir, "1GiB");
        sh(cluster.place(), 20, "rm -r disk/cache");
        assert_same(&read(&vanishing, "f"), &bytes);
        drop(disk);
        sh(vanishing.path(), 60, "dd if=f of=/dev/null bs=1M iflag=direct status=none");
        assert_same(&read(&vanishing, "f"), &bytes);
        vanishing.unmount();
    });
}

#[test]
fn a_directory_of_somebody_else_is_refused_with_a_sentence() {
    within(120, || {
        let cluster = Cluster::new();
        let at = cluster.place().join("mnt");
        fs::create_dir(&at).unwrap();
        let at = at.to_str().unwrap();
        // In the background, where the daemon works in another directory.
        let mounted = cluster.cairn(30, &["mount", at, "--cache-dir", "cache"]);
        let dir = cluster.place().join("cache");
        let there = dir.join("chunks").exists();
        let busy = cluster.place().join("busy");
        fs::create_dir(&busy).unwrap();
        let try_to = |dir: &Path| {
            let dir = dir.to_str().unwrap();
            let ran = cluster.cairn(60, &["mount", busy.to_str().unwrap(), "--cache-dir", dir]);
            detach(&busy);
            ran
        };
        let in_use = try_to(&dir);
        let unmounted = cluster.cairn(30, &["umount", at]);
        detach(Path::new(at));
        assert!(mounted.ok() && there && unmounted.ok(), "{mounted}\n{unmounted}");
        assert!(!in_use.ok() && in_use.stderr.contains("the cache of another mount"), "{in_use}");

        let format = fs::read_to_string(dir.join("FORMAT")).unwrap();
        let change = |from: &str, to: &str| {
            assert!(format.contains(from));
            fs::write(dir.join("FORMAT"), format.replace(from, to)).unwrap();
            let ran = try_to(&dir);
            assert!(!ran.ok() && ran.stderr.contains(dir.to_str().unwrap()), "{ran}");
            ran.stderr
        };
        let other = "00000000-0000-0000-0000-000000000001";
        assert!(change(cluster.fs_uuid(), other).contains(other));
        assert!(change("\"format_version\": 1", "\"format_version\": 2").contains("newer release"));
        let foreign = try_to(cluster.master_data());
        assert!(!foreign.ok() && foreign.stderr.contains("no cache of a mount"), "{foreign}");
    });
}
