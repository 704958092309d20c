//! Every crash point by name: the process dies exactly there, is started again, and nothing that was
//! acknowledged is lost, nothing is executed twice.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::Command,
    time::Duration,
};

use cairn_master::failpoints as master_points;
use cairn_storage::failpoints as storage_points;
use cairn_tests::{Cluster, Layout, Rng, binaries, run, scratch, wait_for, within};

use super::acknowledged::{check, start};

fn with_failpoints() -> Cluster {
    Cluster::with(Layout { failpoints: true, ..Layout::default() })
}

fn master_dies_at(point: &'static str) {
    within(200, move || {
        let mut cluster = with_failpoints();
        let mount = cluster.mount();
        for nth in [2, 9, 30] {
            cluster.kill_master();
            let spec = format!("{point}=exit@{nth}");
            cluster.start_master_with(&[("CAIRN_FAILPOINTS", &spec)]);
            let writer = start(&cluster, &mount.join(format!("files-{nth}")), 0);
            let died = wait_for(Duration::from_secs(20), || !cluster.master().is_running());
            assert!(died, "the master never came to {point} for the {nth}th time");
            cluster.kill_master();
            cluster.start_master();
            let seen = writer.acknowledged();
            assert!(wait_for(Duration::from_secs(30), || writer.acknowledged() > seen + 3));
            let acknowledged = writer.finish();
            check(&mount.join(format!("files-{nth}")), acknowledged);
        }
        drop(mount);
        cluster.assert_sound();
    });
}

fn node_dies_at(point: &'static str) {
    within(200, move || {
        let mut cluster = with_failpoints();
        let mount = cluster.mount();
        for nth in [1, 7] {
            cluster.kill_node(0);
            let spec = format!("{point}=exit@{nth}");
            cluster.start_node_with(0, &[("CAIRN_FAILPOINTS", &spec)]);
            cluster.wait_healthy();
            let writer = start(&cluster, &mount.join(format!("files-{nth}")), 0);
            let died = wait_for(Duration::from_secs(20), || !cluster.node(0).is_running());
            assert!(died, "the node never came to {point} for the {nth}th time");
            let seen = writer.acknowledged();
            assert!(wait_for(Duration::from_secs(40), || writer.acknowledged() > seen + 3));
            cluster.kill_node(0);
            cluster.start_node(0);
            cluster.wait_healthy();
            let acknowledged = writer.finish();
            check(&mount.join(format!("files-{nth}")), acknowledged);
        }
        drop(mount);
        let mount = cluster.mount();
        cluster.assert_fsck_clean();
        drop(mount);
    });
}

#[test]
fn the_master_dies_with_an_executed_operation() {
    master_dies_at(master_points::EXECUTED);
}

#[test]
fn the_master_dies_before_it_commits() {
    master_dies_at(master_points::COMMIT_BEFORE);
}

#[test]
fn the_master_dies_after_the_commit_before_the_replies() {
    master_dies_at(master_points::COMMIT_AFTER);
}

#[test]
fn the_master_dies_before_the_sync() {
    master_dies_at(master_points::SYNC_BEFORE);
}

#[test]
fn the_master_dies_after_the_sync() {
    master_dies_at(master_points::SYNC_AFTER);
}

#[test]
fn every_crash_point_of_the_master_has_a_test() {
    assert_eq!(master_points::ALL.len(), 5);
}

#[test]
fn a_node_dies_with_a_verified_chunk_in_memory() {
    node_dies_at(storage_points::AFTER_HASH);
}

#[test]
fn a_node_dies_with_records_written_but_not_synced() {
    node_dies_at(storage_points::AFTER_APPEND);
}

#[test]
fn a_node_dies_with_records_synced_that_the_index_does_not_know() {
    node_dies_at(storage_points::AFTER_SYNC);
}

#[test]
fn a_node_dies_before_it_answers() {
    node_dies_at(storage_points::AFTER_INDEX);
}

/// Segments are 256 MiB long: one big file makes the node begin its second.
#[test]
fn a_node_dies_between_two_segments() {
    const MIB: usize = 1 << 20;
    within(300, || {
        let mut cluster = with_failpoints();
        cluster.kill_node(0);
        let spec = format!("{}=exit", storage_points::IN_ROLL_OVER);
        cluster.start_node_with(0, &[("CAIRN_FAILPOINTS", &spec)]);
        cluster.wait_healthy();
        let mount = cluster.mount();
        let content = |n: u64| Rng::new(n).bytes(MIB);
        let mut file = File::create(mount.join("big")).unwrap();
        for n in 0..288 {
            file.write_all(&content(n)).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        assert!(!cluster.node(0).is_running(), "the node never began a second segment");
        cluster.kill_node(0);
        cluster.start_node(0);
        cluster.wait_healthy();
        drop(mount);
        let mount = cluster.mount();
        let mut file = File::open(mount.join("big")).unwrap();
        let mut read = vec![0; MIB];
        for n in 0..288 {
            file.read_exact(&mut read).unwrap();
            assert!(read == content(n), "MiB {n}");
        }
        cluster.assert_fsck_clean();
    });
}

#[test]
fn a_format_that_died_is_simply_repeated() {
    let place = scratch("format");
    let format = |spec: &str| {
        let mut command = Command::new(binaries::with_failpoints("cairn-storage"));
        command.arg("format").arg("--data").arg(place.path().join("node"));
        command.args(["--fs", "6f1b7a52-5f0c-4b0e-9d7e-0a1d5f6c7b8e", "--name", "node1"]);
        command.env("CAIRN_FAILPOINTS", spec);
        run(command, Duration::from_secs(30))
    };
    let died = format(&format!("{}=exit", storage_points::IN_FORMAT));
    assert_eq!(died.code(), Some(86), "{died}");
    assert!(!place.path().join("node/FORMAT").exists());
    let again = format("");
    assert!(again.ok(), "{again}");
}

#[test]
fn release_programs_ignore_crash_points() {
    within(120, || {
        let all = |points: &[&str], separator: &str| {
            let rules: Vec<_> = points.iter().map(|point| format!("{point}=exit")).collect();
            rules.join(separator)
        };
        let mut cluster = Cluster::new();
        let of_nodes = [
            storage_points::AFTER_HASH,
            storage_points::AFTER_APPEND,
            storage_points::AFTER_SYNC,
            storage_points::AFTER_INDEX,
        ];
        cluster.kill_node(0);
        cluster.start_node_with(0, &[("CAIRN_FAILPOINTS", &all(&of_nodes, ";"))]);
        cluster.kill_master();
        cluster.start_master_with(&[("CAIRN_FAILPOINTS", &all(master_points::ALL, ","))]);
        cluster.wait_healthy();
        let mount = cluster.mount();
        let mut file = File::create(mount.join("f")).unwrap();
        file.write_all(&[7; 200_000]).unwrap();
        file.sync_all().unwrap();
        drop(file);
        assert!(cluster.master().is_running() && cluster.node(0).is_running());
        cluster.assert_sound();
    });
}
