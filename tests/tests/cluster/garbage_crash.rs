//! Every crash point of garbage collection: master and nodes die exactly there, are started again, and
//! nothing that is referred to is missing; what is garbage goes afterwards.

use std::{fs, time::Duration};

use cairn_master::failpoints as master_points;
use cairn_storage::failpoints as storage_points;
use cairn_tests::{Cluster, Layout, Mount, inspect, wait_for, within};

use super::garbage::{bytes, collect, make};

const MIB: usize = 1 << 20;
const SMALL: u64 = 2000;

/// A cluster with garbage: large chunks to make holes of, small ones so that a segment is rewritten.
fn with_garbage() -> (Cluster, Mount) {
    let master_args = ["--gc-interval", "0", "--backup-interval", "0"];
    let cluster = Cluster::with(Layout {
        failpoints: true,
        master_args: master_args.map(str::to_owned).into(),
        ..Layout::default()
    });
    let mount = cluster.mount();
    make(mount.path(), 8, MIB);
    fs::create_dir(mount.join("small")).unwrap();
    make(&mount.join("small"), SMALL, 3000);
    for n in (0..8).step_by(2) {
        fs::remove_file(mount.join(n.to_string())).unwrap();
    }
    for n in (0..SMALL).filter(|n| n % 5 != 0) {
        fs::remove_file(mount.join(format!("small/{n}"))).unwrap();
    }
    (cluster, mount)
}

/// What is referred to is there; what is not is gone after another `cairn gc`.
fn assert_right(cluster: &Cluster, mount: Mount) {
    collect(cluster, &[]);
    collect(cluster, &[]);
    let report = collect(cluster, &["--dry-run"]);
    let (live, garbage) = (bytes(&report, "live"), bytes(&report, "unreferenced"));
    // One of two thousand chunks may be taken for referred to.
    assert!(garbage < live / 50, "{report}");
    let rng = |n| cairn_tests::Rng::new(n);
    for n in (1..8).step_by(2) {
        assert!(fs::read(mount.join(n.to_string())).unwrap() == rng(n).bytes(MIB), "file {n}");
    }
    mount.unmount();
    cluster.assert_sound();
    let stored = inspect::stored_bytes(cluster, 2);
    assert!(
        stored < 2 * (4 * MIB as u64 + SMALL / 5 * 3000) * 11 / 10,
        "{stored} bytes are stored"
    );
}

fn node_dies_at(point: &'static str) {
    within(200, move || {
        let (mut cluster, mount) = with_garbage();
        cluster.kill_node(0);
        cluster.start_node_with(0, &[("CAIRN_FAILPOINTS", &format!("{point}=exit"))]);
        cluster.wait_healthy();
        // A node that was started counts everything as touched: its garbage goes a cycle later.
        for _ in 0..3 {
            drop(cluster.cairn(60, &["gc"]));
            if !cluster.node(0).is_running() {
                break;
            }
        }
        let died = wait_for(Duration::from_secs(20), || !cluster.node(0).is_running());
        assert!(died, "the node never came to {point}");
        cluster.kill_node(0);
        cluster.start_node(0);
        cluster.wait_healthy();
        assert_right(&cluster, mount);
    });
}

fn master_dies_at(point: &'static str) {
    within(200, move || {
        let (mut cluster, mount) = with_garbage();
        cluster.kill_master();
        cluster.start_master_with(&[("CAIRN_FAILPOINTS", &format!("{point}=exit@2"))]);
        cluster.wait_healthy();
        drop(cluster.cairn(60, &["gc"]));
        let died = wait_for(Duration::from_secs(20), || !cluster.master().is_running());
        assert!(died, "the master never came to {point} for the second time");
        cluster.kill_master();
        cluster.start_master();
        cluster.wait_healthy();
        assert_right(&cluster, mount);
    });
}

#[test]
fn nodes_that_die_while_they_erase_lose_nothing_else() {
    for point in [
        storage_points::AFTER_ERASE,
        storage_points::AFTER_ERASE_SYNC,
        storage_points::AFTER_TOMBSTONE,
        storage_points::AFTER_PUNCH,
    ] {
        node_dies_at(point);
    }
}

#[test]
fn nodes_that_die_while_they_rewrite_segments_lose_nothing() {
    for point in [
        storage_points::AFTER_COPY,
        storage_points::AFTER_RELOCATE,
        storage_points::BEFORE_REMOVE,
        storage_points::AFTER_REMOVE,
    ] {
        node_dies_at(point);
    }
}

#[test]
fn masters_that_die_within_a_cycle_lose_nothing() {
    for point in master_points::OF_GARBAGE {
        master_dies_at(point);
    }
}
