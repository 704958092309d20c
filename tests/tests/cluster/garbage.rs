//! What nothing refers to goes, its room comes back, and everything else stays.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use cairn_tests::{Cluster, Layout, Rng, inspect, mount::store, within};
use serde_json::Value;

const MIB: usize = 1 << 20;

/// A cluster that collects only when it is told to.
pub(crate) fn cluster(nodes: usize) -> Cluster {
    let master_args = ["--gc-interval", "0", "--backup-interval", "0"];
    Cluster::with(Layout {
        nodes,
        master_args: master_args.map(str::to_owned).into(),
        ..Layout::default()
    })
}

/// `cairn gc --json` with further arguments; it must succeed.
pub(crate) fn collect(cluster: &Cluster, arguments: &[&str]) -> Value {
    let ran = cluster.cairn(120, &[&["gc", "--json"], arguments].concat());
    assert!(ran.ok(), "{ran}");
    serde_json::from_str(&ran.stdout).unwrap()
}

pub(crate) fn bytes(report: &Value, tally: &str) -> u64 {
    report[tally]["bytes"].as_u64().unwrap()
}

/// Files `0..count` of `size` bytes, each of its own content.
pub(crate) fn make(directory: &Path, count: u64, size: usize) {
    for n in 0..count {
        let (at, content) = (directory.join(n.to_string()), Rng::new(n).bytes(size));
        // Parts of large ones would be garbage too.
        if size < MIB { fs::write(at, content).unwrap() } else { store(&at, &content) }
    }
}

#[test]
fn rm_of_half_the_data_gives_its_room_back() {
    within(200, || {
        let mut cluster = cluster(3);
        let mount = cluster.mount();
        make(mount.path(), 16, 3 * MIB + 12_345);
        // Small ones leave holes too small to punch: their segments are rewritten.
        fs::create_dir(mount.join("small")).unwrap();
        make(&mount.join("small"), 600, 3000);
        mount.unmount();
        let before = inspect::segment_bytes(&cluster, 3);
        let mount = cluster.mount();
        for n in (0..16).step_by(2) {
            fs::remove_file(mount.join(n.to_string())).unwrap();
        }
        for n in (0..600).filter(|n| n % 10 != 0) {
            fs::remove_file(mount.join(format!("small/{n}"))).unwrap();
        }
        let report = collect(&cluster, &[]);
        let expected = 2 * 8 * (3 * MIB + 12_345) as u64;
        let erased = bytes(&report, "erased");
        assert!(erased > expected * 99 / 100, "{report}");
        assert!(report["ok"] == true && report["nodes_swept"] == 3, "{report}");
        let after = inspect::segment_bytes(&cluster, 3);
        let gone = before.saturating_sub(after);
        assert!(gone > expected * 9 / 10, "{before} bytes before, {after} after; {report}");
        for n in (1..16).step_by(2) {
            let content = fs::read(mount.join(n.to_string())).unwrap();
            assert!(content == Rng::new(n).bytes(3 * MIB + 12_345), "file {n}");
        }
        drop(mount);
        cluster.assert_sound();
        // What was erased does not come back when an index is made anew, and is stored again when put.
        cluster.kill_node(0);
        fs::remove_dir_all(cluster.node_data(0).join("index")).unwrap();
        cluster.start_node(0);
        cluster.wait_healthy();
        let mount = cluster.mount();
        make(mount.path(), 16, 3 * MIB + 12_345);
        mount.unmount();
        cluster.assert_sound();
    });
}

#[test]
fn a_dry_run_says_what_would_go_and_deletes_nothing() {
    within(100, || {
        let cluster = cluster(2);
        let mount = cluster.mount();
        make(mount.path(), 4, MIB);
        mount.unmount();
        let stored = inspect::stored_bytes(&cluster, 2);
        let mount = cluster.mount();
        fs::remove_file(mount.join("1")).unwrap();
        // A filter may spare a chunk in one cycle, and not the same one in the next.
        let garbage = 2 * MIB as u64;
        let but_one_chunk = garbage - 2 * 65_536..=garbage;
        let mut found = 0;
        for _ in 0..4 {
            let report = collect(&cluster, &["--dry-run"]);
            assert!(but_one_chunk.contains(&bytes(&report, "unreferenced")), "{report}");
            assert_eq!(bytes(&report, "erased"), 0, "{report}");
            found = found.max(bytes(&report, "unreferenced"));
        }
        assert_eq!(found, garbage);
        assert_eq!(inspect::stored_bytes(&cluster, 2), stored);
        let erased = bytes(&collect(&cluster, &[]), "erased");
        assert!(but_one_chunk.contains(&erased), "{erased}");
        assert_eq!(erased + bytes(&collect(&cluster, &[]), "erased"), garbage);
        assert_eq!(inspect::stored_bytes(&cluster, 2), stored - garbage);
    });
}

#[test]
fn what_waits_for_its_commit_while_cycles_pass_is_committed_all_the_same() {
    within(100, || {
        let cluster = cluster(2);
        let mount = cluster.mount();
        let content = Rng::new(1).bytes(2 * MIB);
        let mut file = File::create(mount.join("written")).unwrap();
        let mut log = File::options().create(true).append(true).open(mount.join("log")).unwrap();
        for round in 0..3 {
            // Whole chunks are sent at once; their commit waits for the fsync.
            file.write_all(&content[round * MIB / 2..(round + 1) * MIB / 2]).unwrap();
            log.write_all(&content[round * 1000..(round + 1) * 1000]).unwrap();
            collect(&cluster, &[]);
            collect(&cluster, &[]);
            file.sync_all().unwrap();
            log.sync_all().unwrap();
        }
        collect(&cluster, &[]);
        assert!(fs::read(mount.join("written")).unwrap() == content[..3 * MIB / 2]);
        assert!(fs::read(mount.join("log")).unwrap() == content[..3000]);
        drop((file, log));
        mount.unmount();
        let mount = cluster.mount();
        assert!(fs::read(mount.join("written")).unwrap() == content[..3 * MIB / 2]);
        drop(mount);
        cluster.assert_sound();
    });
}

#[test]
fn open_files_without_a_name_keep_their_chunks() {
    use std::os::unix::fs::FileExt as _;
    within(100, || {
        let mut cluster = cluster(2);
        let mount = cluster.mount_with(&["--cache-size", "1M"]);
        let content = Rng::new(5).bytes(3 * MIB);
        fs::write(mount.join("gone"), &content).unwrap();
        let file = File::open(mount.join("gone")).unwrap();
        fs::remove_file(mount.join("gone")).unwrap();
        assert_eq!(bytes(&collect(&cluster, &[]), "erased"), 0);
        cluster.kill_node(1);
        cluster.start_node(1);
        cluster.wait_healthy();
        collect(&cluster, &[]);
        let mut read = vec![0; content.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == content);
        drop(file);
        drop(mount);
    });
}
