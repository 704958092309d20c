//! Who belongs to the cluster, and how many copies there are: decided by people, kept by the master.

use std::{fs, process::Command, time::Duration};

use cairn_proto::pb::NodeState;
use cairn_tests::{Cluster, binaries, command::run, inspect, wait_for, within};

use super::copies::{cairn, check, chunks_on, quick, refused, wait_state, wait_whole, write};

#[test]
fn other_numbers_of_copies_hold_at_once_for_new_and_soon_for_old_data() {
    within(240, || {
        let mut cluster = Cluster::with(quick(3, 1));
        let mount = cluster.mount();
        let files = mount.join("files");
        write(&files, 0, 15);
        let once = inspect::stored_chunks(&cluster, 3);
        refused(&cluster, &["cluster", "set", "--replicas", "2", "--min-replicas", "3"], "3 of 2");
        let said = cairn(&cluster, &["cluster", "set", "--replicas", "3"]);
        assert!(said.contains("3 copies"), "{said}");
        wait_whole(&cluster);
        for n in 0..3 {
            assert_eq!(chunks_on(&cluster, n), once);
        }
        cluster.kill_master();
        cluster.start_master();
        cluster.wait_healthy();
        let map = inspect::status(&cluster).unwrap().map.unwrap();
        assert_eq!((map.replicas, map.min_replicas), (3, 1), "that is remembered");
        cairn(&cluster, &["cluster", "set", "--replicas", "2"]);
        wait_whole(&cluster);
        let held: u64 = (0..3).map(|n| chunks_on(&cluster, n)).sum();
        assert_eq!(held, 2 * once, "the third copies are dropped");
        check(&files, 0, 15);
    });
}

#[test]
fn a_second_process_with_an_id_and_a_node_of_another_file_system_are_refused() {
    within(120, || {
        let cluster = Cluster::new();
        let twin = cluster.place().join("twin");
        let ran = run(
            {
                let mut command = Command::new("cp");
                command.arg("-r").arg(cluster.node_data(0)).arg(&twin);
                command
            },
            Duration::from_secs(30),
        );
        assert!(ran.ok(), "{ran}");
        let foreign = cluster.place().join("foreign");
        let other = "6a1f0e9c-3b1d-4f43-9a0e-2b6a4f0c9d11";
        assert!(cluster.format_node(&foreign, other, "foreign").ok());
        for (data, why) in [(twin, "two nodes cannot have one id"), (foreign, "file system")] {
            let log = data.with_extension("log");
            let mut command = Command::new(binaries::storage());
            command.arg("serve").arg("--data").arg(&data).args(["--listen", "127.0.0.1:0"]);
            command.args(["--master", &cluster.master_address()]);
            let mut daemon = cairn_tests::daemon::Daemon::start("intruder", command, &log);
            let refused = wait_for(Duration::from_secs(30), || {
                fs::read_to_string(&log).is_ok_and(|log| log.contains(why))
            });
            daemon.kill9();
            assert!(refused, "{}", daemon.log_tail(20));
        }
        assert_eq!(inspect::status(&cluster).unwrap().map.unwrap().nodes.len(), 2);
    });
}

#[test]
fn a_node_that_was_out_is_up_again_when_it_is_back_at_another_address() {
    within(180, || {
        let mut cluster = Cluster::with(quick(3, 2));
        let mount = cluster.mount();
        write(&mount.join("files"), 0, 15);
        cluster.kill_node(1);
        wait_state(&cluster, 1, NodeState::Out);
        wait_whole(&cluster);
        cluster.move_node(1);
        cluster.start_node(1);
        wait_state(&cluster, 1, NodeState::Up);
        wait_whole(&cluster);
        assert!(chunks_on(&cluster, 1) > 0);
        check(&mount.join("files"), 0, 15);
        let listed = cairn(&cluster, &["node", "list"]);
        let port = cluster.node_address(1).port().to_string();
        assert!(listed.contains(&port) && listed.contains("node2"), "{listed}");
    });
}
