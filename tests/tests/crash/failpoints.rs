//! Every crash point by name: the process dies exactly there, is started again, and nothing that was
//! acknowledged is lost, nothing is executed twice.

use std::time::Duration;

use cairn_master::failpoints as master_points;
use cairn_storage::failpoints as storage_points;
use cairn_tests::{Cluster, Layout, wait_for, within};

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
