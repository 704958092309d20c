//! Nodes that people empty, send away for a while, or take away for good.

use std::{fs, time::Duration};

use cairn_proto::pb::NodeState;
use cairn_tests::{Cluster, wait_for, within};

use super::copies::{
    cairn, check, chunks_on, quick, refused, repair, state, wait_state, wait_whole, write,
};

#[test]
fn a_drained_node_is_empty_and_can_be_removed() {
    within(240, || {
        let mut cluster = Cluster::with(quick(3, 2));
        let mount = cluster.mount();
        let files = mount.join("files");
        write(&files, 0, 30);
        assert!(chunks_on(&cluster, 0) > 0);
        let said = cairn(&cluster, &["node", "drain", "node1"]);
        assert!(said.contains("node1 is empty"), "{said}");
        assert_eq!(chunks_on(&cluster, 0), 0);
        assert_eq!(state(&cluster, 0), Some(NodeState::Draining));
        refused(&cluster, &["node", "drain", "node2"], "copies");
        let id = cluster.node_id(0);
        let said = cairn(&cluster, &["node", "remove", &id]);
        assert!(said.contains("removed"), "{said}");
        assert_eq!(state(&cluster, 0), None);
        wait_whole(&cluster);
        check(&files, 0, 30);
        write(&files, 30, 35);
        // It is refused from now on, also by a master that was started again, until it is taken back.
        let log = cluster.log_path("node1");
        let says_so = || fs::read_to_string(&log).unwrap().contains("was removed from the cluster");
        assert!(wait_for(Duration::from_secs(30), says_so), "node1 does not know");
        cluster.kill_master();
        cluster.start_master();
        assert_eq!(state(&cluster, 0), None);
        cairn(&cluster, &["node", "resume", &id]);
        wait_state(&cluster, 0, NodeState::Up);
    });
}

#[test]
fn a_node_with_the_only_copy_is_not_removed_unless_forced() {
    within(240, || {
        let cluster = Cluster::with(quick(2, 1));
        let mount = cluster.mount();
        write(&mount.join("files"), 0, 20);
        let alone = chunks_on(&cluster, 0);
        assert!(alone > 0);
        refused(&cluster, &["node", "remove", "node1"], &format!("only copy of {alone} chunks"));
        refused(&cluster, &["node", "remove", "nobody"], "cairn node list");
        cairn(&cluster, &["node", "drain", "node1"]);
        cairn(&cluster, &["node", "undrain", "node1"]);
        wait_whole(&cluster);
        let alone = chunks_on(&cluster, 0);
        let said = cairn(&cluster, &["node", "remove", "node1", "--force", "--json"]);
        assert!(said.contains(&format!("\"chunks_lost\": {alone}")), "{said}");
    });
}

#[test]
fn a_node_in_maintenance_is_not_made_up_for() {
    within(240, || {
        let mut cluster = Cluster::with(quick(3, 2));
        let mount = cluster.mount();
        let files = mount.join("files");
        write(&files, 0, 15);
        cairn(&cluster, &["node", "maintenance", "node2"]);
        cluster.kill_node(1);
        write(&files, 15, 30);
        check(&files, 0, 30);
        // Far longer than it takes until a node is out.
        assert!(wait_for(Duration::from_secs(30), || repair(&cluster).groups_waiting > 0));
        let away = wait_for(Duration::from_secs(8), || state(&cluster, 1) == Some(NodeState::Out));
        assert!(!away && repair(&cluster).chunks_moved == 0, "{:?}", repair(&cluster));
        cluster.kill_master();
        cluster.start_master();
        assert_eq!(state(&cluster, 1), Some(NodeState::Maintenance), "that is remembered");
        cluster.start_node(1);
        let said = cairn(&cluster, &["node", "resume", "node2"]);
        assert!(said.contains("node2 is"), "{said}");
        wait_state(&cluster, 1, NodeState::Up);
        wait_whole(&cluster);
        check(&files, 0, 30);
    });
}
