//! A node that is killed while it pulls or drops loses nothing, and the next pull goes on.

use std::{fs, time::Duration};

use cairn_proto::{Group, pb};
use cairn_tests::{Cluster, Layout, Rng, inspect, wait_for, within};

use super::scrub::pull;

const PG_BITS: u32 = 10;

fn node_of(cluster: &Cluster, n: usize) -> pb::Node {
    let nodes = inspect::status(cluster).unwrap().map.unwrap().nodes;
    let name = format!("node{}", n + 1);
    nodes.into_iter().find(|node| node.name == name).unwrap()
}

fn chunks(cluster: &Cluster, n: usize) -> u64 {
    inspect::block_on(10, async {
        let request = pb::GroupDigestsRequest { pg_bits: PG_BITS };
        let answer = inspect::storage(cluster, n).group_digests(request).await;
        answer.unwrap().into_inner().groups.iter().map(|g| g.chunks).sum()
    })
}

/// Restarts node `n` with a crash point.
fn arm(cluster: &mut Cluster, n: usize, rule: &str) {
    cluster.kill_node(n);
    cluster.start_node_with(n, &[("CAIRN_FAILPOINTS", rule)]);
    cluster.wait_healthy();
}

fn pull_until_death(cluster: &mut Cluster, n: usize, from: usize) {
    let request = pb::PullRequest {
        pg_bits: PG_BITS,
        groups: (0..Group::count(PG_BITS)).collect(),
        sources: vec![node_of(cluster, from)],
        bytes_per_second: 0,
    };
    inspect::block_on(60, async {
        let mut storage = inspect::storage(cluster, n);
        if let Ok(answers) = storage.pull_groups(request).await {
            let mut answers = answers.into_inner();
            while let Ok(Some(_)) = answers.message().await {}
        }
    });
    let died = wait_for(Duration::from_secs(30), || !cluster.node(n).is_running());
    assert!(died, "the point was not met");
}

#[test]
fn a_pull_that_is_killed_at_any_step_is_completed_by_the_next() {
    within(300, || {
        // One copy on either node; then node 1 is to have everything. Repair would take the surplus
        // away again.
        let mut layout = Layout { replicas: 1, failpoints: true, ..Layout::default() };
        layout.master_args.extend(["--repair-concurrency", "0"].map(str::to_owned));
        let mut cluster = Cluster::with(layout);
        let content = Rng::new(3).bytes(4 << 20);
        fs::write(cluster.mount().join("f"), &content).unwrap();
        let all = chunks(&cluster, 0) + chunks(&cluster, 1);
        assert!(all >= 64, "{all}");
        let points = [
            "storage.pull-after-fetch",
            "storage.after-append",
            "storage.after-sync",
            "storage.after-index",
        ];
        for point in points {
            arm(&mut cluster, 0, &format!("{point}=exit@2"));
            pull_until_death(&mut cluster, 0, 1);
            cluster.kill_node(0);
            cluster.start_node(0);
            cluster.wait_healthy();
            assert!(fs::read(cluster.mount().join("f")).unwrap() == content, "{point}");
        }
        let last = pull(&cluster, 0, 1);
        assert_eq!(last.chunks_missing, 0);
        assert_eq!(chunks(&cluster, 0), all);
        cluster.assert_sound();
    });
}

#[test]
fn a_drop_that_is_killed_at_any_step_loses_nothing() {
    within(300, || {
        let mut cluster = Cluster::with(Layout { failpoints: true, ..Layout::default() });
        let content = Rng::new(4).bytes(2 << 20);
        fs::write(cluster.mount().join("f"), &content).unwrap();
        let all = chunks(&cluster, 0);
        for point in ["storage.drop-before-remove", "storage.drop-after-remove"] {
            arm(&mut cluster, 1, &format!("{point}=exit"));
            drop_groups(&cluster, 1, 0);
            let died = wait_for(Duration::from_secs(30), || !cluster.node(1).is_running());
            assert!(died, "{point} was not met");
            cluster.kill_node(1);
            cluster.start_node(1);
            cluster.wait_healthy();
            assert!(fs::read(cluster.mount().join("f")).unwrap() == content, "{point}");
            assert_eq!(chunks(&cluster, 0), all, "{point}");
        }
        // An older map than the node's drops nothing.
        let map_epoch = inspect::status(&cluster).unwrap().map.unwrap().epoch;
        assert!(drop_with(&cluster, 1, 0, map_epoch - 1).is_err());
        // The node is a home of everything here: repair and this bring back what is dropped.
        assert!(drop_with(&cluster, 1, 0, u64::MAX).unwrap() > 0, "nothing was dropped");
        pull(&cluster, 1, 0);
        assert_eq!(chunks(&cluster, 1), all);
        cluster.assert_sound();
    });
}

/// Drops group after group until the node is gone.
fn drop_groups(cluster: &Cluster, n: usize, home: usize) {
    let map_epoch = u64::MAX;
    let _dies = drop_with(cluster, n, home, map_epoch);
}

/// Chunks that were dropped.
fn drop_with(cluster: &Cluster, n: usize, home: usize, map_epoch: u64) -> Result<u64, String> {
    let homes = vec![node_of(cluster, home)];
    inspect::block_on(60, async {
        let mut storage = inspect::storage(cluster, n);
        let mut dropped = 0;
        for group in 0..Group::count(PG_BITS) {
            let request =
                pb::DropRequest { pg_bits: PG_BITS, group, homes: homes.clone(), map_epoch };
            let answer = storage.drop_group(request).await.map_err(|e| e.to_string())?;
            dropped += answer.into_inner().chunks_dropped;
        }
        Ok(dropped)
    })
}
