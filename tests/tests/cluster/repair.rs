//! Nodes die for good, come back, come back empty: every group has its copies again, by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cairn_proto::pb::NodeState;
use cairn_tests::{Cluster, wait_for, within};

use super::copies::{
    cairn, check, chunks_on, is_whole, quick, repair, state, wait_state, wait_whole, write,
};

#[test]
fn a_node_lost_for_good_is_made_up_for_while_a_client_goes_on() {
    within(240, || {
        let mut cluster = Cluster::with(quick(3, 2));
        let mount = cluster.mount();
        let files = mount.join("files");
        write(&files, 0, 30);
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(30)));
        let client = thread::spawn({
            let (files, stop, written) = (files.clone(), Arc::clone(&stop), Arc::clone(&written));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let n = written.load(Ordering::Relaxed);
                    write(&files, n, n + 1);
                    check(&files, n / 2, n / 2 + 1);
                    written.store(n + 1, Ordering::Relaxed);
                }
            }
        });
        cluster.kill_node(0);
        wait_state(&cluster, 0, NodeState::Out);
        let whole = wait_for(Duration::from_secs(60), || {
            let repair = repair(&cluster);
            repair.known && repair.chunks_moved > 0 && repair.groups_not_whole == 0
        });
        stop.store(true, Ordering::Relaxed);
        client.join().unwrap();
        assert!(whole, "{:?}", repair(&cluster));
        wait_whole(&cluster);
        drop(mount);
        check(&cluster.mount().join("files"), 0, written.load(Ordering::Relaxed));
        let status = cairn(&cluster, &["rebalance", "status"]);
        assert!(status.contains("everything is where it belongs"), "{status}");
        // It comes back with all it had: its share stays, nothing is copied twice.
        let moved = repair(&cluster).chunks_moved;
        cluster.start_node(0);
        wait_state(&cluster, 0, NodeState::Up);
        wait_whole(&cluster);
        let again = repair(&cluster).chunks_moved - moved;
        let held = chunks_on(&cluster, 0);
        assert!(again < held, "{again} chunks were copied to a node that has {held} now");
    });
}

#[test]
fn a_node_that_was_away_is_topped_up_so_that_the_other_may_die() {
    within(180, || {
        let mut cluster = Cluster::new();
        {
            let mount = cluster.mount();
            let files = mount.join("files");
            write(&files, 0, 10);
            cluster.kill_node(0);
            write(&files, 10, 30);
            assert!(!is_whole(&cluster), "one copy is missing");
        }
        let before = chunks_on(&cluster, 1);
        cluster.start_node(0);
        wait_whole(&cluster);
        assert_eq!(chunks_on(&cluster, 0), before);
        let moved = repair(&cluster).chunks_moved;
        assert!(moved > 0 && moved < before, "topped up, not filled again: {moved} of {before}");
        cluster.kill_node(1);
        check(&cluster.mount().join("files"), 0, 30);
    });
}

#[test]
fn a_node_that_comes_back_empty_under_its_id_and_another_address_is_filled() {
    within(180, || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount();
        write(&mount.join("files"), 0, 20);
        let (had, id) = (chunks_on(&cluster, 0), cluster.node_id(0));
        cluster.kill_node(0);
        cluster.empty_node(0);
        cluster.move_node(0);
        cluster.start_node(0);
        let port = u32::from(cluster.node_address(0).port());
        let moved = wait_for(Duration::from_secs(30), || {
            let map = cairn_tests::inspect::status(&cluster).unwrap().map.unwrap();
            map.nodes.iter().any(|node| node.node_id == id && node.port == port)
        });
        assert!(moved, "the master still thinks it is where it was");
        wait_state(&cluster, 0, NodeState::Up);
        wait_whole(&cluster);
        assert_eq!(chunks_on(&cluster, 0), had);
        cluster.kill_node(1);
        check(&mount.join("files"), 0, 20);
    });
}

#[test]
fn a_master_that_is_killed_in_the_middle_of_a_repair_goes_on_with_it() {
    within(240, || {
        let mut layout = quick(3, 2);
        layout.master_args.extend(["--repair-bandwidth", "2MiB"].map(String::from));
        let mut cluster = Cluster::with(layout);
        let mount = cluster.mount();
        write(&mount.join("files"), 0, 60);
        cluster.kill_node(2);
        let begun = wait_for(Duration::from_secs(60), || repair(&cluster).chunks_moved > 5);
        assert!(begun, "{:?}", repair(&cluster));
        cluster.kill_master();
        cluster.start_master();
        wait_whole(&cluster);
        assert_eq!(state(&cluster, 2), Some(NodeState::Out), "that is remembered");
        check(&mount.join("files"), 0, 60);
    });
}

#[test]
fn a_master_that_misses_too_many_nodes_touches_nothing() {
    within(180, || {
        let mut layout = quick(4, 2);
        layout.master_args.extend(["--safe-mode-grace", "1"].map(String::from));
        let mut cluster = Cluster::with(layout);
        let mount = cluster.mount();
        write(&mount.join("files"), 0, 20);
        wait_whole(&cluster);
        cluster.kill_master();
        cluster.kill_node(0);
        cluster.kill_node(1);
        cluster.start_master();
        let held = chunks_on(&cluster, 2) + chunks_on(&cluster, 3);
        wait_state(&cluster, 0, NodeState::Out);
        wait_state(&cluster, 1, NodeState::Out);
        let status = cairn(&cluster, &["status"]);
        assert!(status.contains("safe mode") && status.contains("node1"), "{status}");
        let moved = wait_for(Duration::from_secs(5), || repair(&cluster).chunks_moved > 0);
        assert!(!moved, "two of four nodes are missing, and there are two copies");
        assert_eq!(chunks_on(&cluster, 2) + chunks_on(&cluster, 3), held);
        // One of them is enough: at least one copy of everything is there.
        cluster.start_node(0);
        let repaired = wait_for(Duration::from_secs(60), || repair(&cluster).chunks_moved > 0);
        assert!(repaired, "{}", cairn(&cluster, &["status"]));
        wait_whole(&cluster);
        check(&mount.join("files"), 0, 20);
    });
}
