//! Bits that change on a node's disk are found by scrub and healed from the other copy; files read right
//! all the time.

use std::{fs, os::unix::fs::FileExt as _, path::Path, time::Duration};

use cairn_proto::{Group, pb};
use cairn_tests::{Cluster, Layout, Rng, inspect, sh, wait_for, within};
use serde_json::Value;

const PG_BITS: u32 = 10;

/// Flips a bit in the stored copy of every chunk of `content` that `choose` wants; how many it found.
fn flip(data: &Path, content: &[u8], choose: impl Fn(usize) -> bool) -> usize {
    let mut flipped = 0;
    for entry in fs::read_dir(data.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        for (_, chunk) in content.chunks(65_536).enumerate().filter(|(n, _)| choose(*n)) {
            let needle = &chunk[500..564];
            // Record payloads begin at multiples of 64.
            let at = (0..bytes.len()).step_by(64).map(|start| start + 500);
            for at in at.filter(|at| bytes.get(*at..at + 64) == Some(needle)) {
                file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
                flipped += 1;
            }
        }
    }
    flipped
}

fn json(cluster: &Cluster, seconds: u64, arguments: &[&str]) -> (Option<i32>, Value) {
    let ran = cluster.cairn(seconds, arguments);
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"));
    (ran.code(), report)
}

fn damaged(report: &Value) -> Vec<u64> {
    let nodes = report["nodes"].as_array().unwrap();
    nodes.iter().map(|n| n["damaged_chunks"].as_u64().unwrap()).collect()
}

/// Has node `n` pull everything that it lacks from the other.
pub(super) fn pull(cluster: &Cluster, n: usize, from: usize) -> pb::PullProgress {
    let nodes = inspect::status(cluster).unwrap().map.unwrap().nodes;
    let name = format!("node{}", from + 1);
    let source = nodes.into_iter().find(|node| node.name == name).unwrap();
    let request = pb::PullRequest {
        pg_bits: PG_BITS,
        groups: (0..Group::count(PG_BITS)).collect(),
        sources: vec![source],
        bytes_per_second: 0,
    };
    inspect::block_on(60, async {
        let answers = inspect::storage(cluster, n).pull_groups(request).await;
        let mut answers = answers.unwrap().into_inner();
        let mut last = pb::PullProgress::default();
        while let Some(progress) = answers.message().await.unwrap() {
            assert!(progress.failures.is_empty(), "{:?}", progress.failures);
            last = progress;
        }
        assert!(last.done);
        last
    })
}

#[test]
fn flipped_bits_are_found_and_healed_while_the_file_reads_right() {
    within(200, || {
        let cluster = Cluster::new();
        let content = Rng::new(5).bytes(4 << 20);
        let mount = cluster.mount();
        fs::write(mount.join("precious"), &content).unwrap();
        let clean = cluster.cairn(60, &["scrub", "--now", "--wait"]);
        assert!(clean.ok(), "{clean}");
        // Different chunks on each node, so that every chunk has one good copy.
        assert_eq!(flip(cluster.node_data(0), &content, |n| n % 4 == 0), 16);
        assert_eq!(flip(cluster.node_data(1), &content, |n| n % 4 == 2), 16);
        let (_, found) = json(&cluster, 60, &["scrub", "--now", "--wait", "--json"]);
        let passes = found["nodes"].as_array().unwrap().iter();
        for scrub in passes.map(|node| &node["scrub"]) {
            assert_eq!(scrub["damaged_found"], 16, "{found}");
            assert!(scrub["chunks_checked"].as_u64() >= Some(64), "{found}");
        }
        // A new mount has nothing cached.
        assert!(fs::read(cluster.mount().join("precious")).unwrap() == content);
        pull(&cluster, 0, 1);
        pull(&cluster, 1, 0);
        let healed = wait_for(Duration::from_secs(20), || {
            damaged(&json(&cluster, 20, &["scrub", "--json"]).1) == [0, 0]
        });
        assert!(healed, "{}", cluster.cairn(20, &["scrub"]));
        assert!(fs::read(cluster.mount().join("precious")).unwrap() == content);
        let (code, report) = json(&cluster, 60, &["scrub", "--now", "--wait", "--json"]);
        assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{report}");
        cluster.assert_sound();
    });
}

#[test]
fn a_reader_that_is_sent_wrong_bytes_gets_the_right_ones_and_the_node_learns_of_it() {
    within(200, || {
        let cluster = Cluster::new();
        // Longer than what is read from one node before the other has its turn: both are asked.
        let content = Rng::new(6).bytes(4 << 20);
        fs::write(cluster.mount().join("f"), &content).unwrap();
        assert_eq!(flip(cluster.node_data(0), &content, |_| true), 64);
        // A new mount has nothing cached.
        assert!(fs::read(cluster.mount().join("f")).unwrap() == content);
        let found = wait_for(Duration::from_secs(20), || {
            let log = fs::read_to_string(cluster.log_path("node1")).unwrap();
            log.contains("damaged: its bytes")
        });
        assert!(found, "no reader has told the node of its damage");
    });
}

#[test]
fn what_is_damaged_is_known_after_kill_9_at_every_step() {
    within(300, || {
        let mut cluster = Cluster::with(Layout { failpoints: true, ..Layout::default() });
        let content = Rng::new(7).bytes(1 << 20);
        fs::write(cluster.mount().join("f"), &content).unwrap();
        assert_eq!(flip(cluster.node_data(0), &content, |n| n < 4), 4);
        for point in ["storage.damage-before-note", "storage.damage-after-note@2"] {
            let (name, nth) = point.split_once('@').unwrap_or((point, "1"));
            cluster.kill_node(0);
            let rule = format!("{name}=exit@{nth}");
            cluster.start_node_with(0, &[("CAIRN_FAILPOINTS", &rule)]);
            // A pass that was begun before goes on by itself, and may have killed it already.
            let _dies = cluster.cairn(30, &["scrub", "--now"]);
            let died = wait_for(Duration::from_secs(30), || !cluster.node(0).is_running());
            assert!(died, "{point} was not met");
        }
        cluster.kill_node(0);
        cluster.start_node(0);
        cluster.wait_healthy();
        // What was noted is known; the pass that it was in goes on by itself and finds the rest.
        let through = wait_for(Duration::from_secs(30), || {
            let (_, report) = json(&cluster, 20, &["scrub", "--json"]);
            report["nodes"][0]["scrub"]["running"] == Value::Bool(false)
        });
        assert!(through, "{}", cluster.cairn(20, &["scrub"]));
        pull(&cluster, 0, 1);
        assert_eq!(damaged(&json(&cluster, 20, &["scrub", "--json"]).1), [0, 0]);
        assert!(fs::read(cluster.mount().join("f")).unwrap() == content);
        cluster.assert_sound();
    });
}

#[test]
fn a_disk_that_rots_is_read_again_by_itself_and_healed_by_itself() {
    within(300, || {
        // A pass begins as soon as the one before it is a second old.
        let node_args = ["--scrub-period", "1s"].map(str::to_owned).to_vec();
        let cluster = Cluster::with(Layout { node_args, ..Layout::default() });
        let content = Rng::new(11).bytes(2 << 20);
        let mount = cluster.mount();
        fs::write(mount.join("precious"), &content).unwrap();
        sh(mount.path(), 30, "sync precious");
        assert_eq!(flip(cluster.node_data(0), &content, |n| n % 2 == 0), 16);
        assert_eq!(flip(cluster.node_data(1), &content, |n| n % 2 == 1), 16);
        let healed = wait_for(Duration::from_secs(120), || {
            assert!(fs::read(cluster.mount().join("precious")).unwrap() == content);
            let status = inspect::status(&cluster).unwrap();
            let nodes: Vec<_> = status.nodes.into_iter().filter_map(|node| node.status).collect();
            let found = |name: &str| {
                fs::read_to_string(cluster.log_path(name)).unwrap().contains("damaged: its bytes")
            };
            found("node1") && found("node2") && nodes.iter().all(|node| node.damaged_chunks == 0)
        });
        assert!(healed, "{}", cluster.cairn(20, &["scrub"]));
        let sound = wait_for(Duration::from_secs(60), || cluster.cairn(60, &["verify"]).ok());
        assert!(sound, "{}", cluster.cairn(60, &["verify"]));
        cluster.assert_sound();
    });
}
