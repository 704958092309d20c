//! What the tests of nodes, repair, drain and join look at: the master's account of the copies, and files
//! whose content is known.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::Duration,
};

use cairn_proto::pb;
use cairn_tests::{Cluster, Layout, Rng, inspect, wait_for};

/// Timings that tests need not wait for.
pub(crate) fn quick(nodes: usize, replicas: u32) -> Layout {
    let arguments = ["--suspect-after", "1000", "--down-after", "2", "--out-after", "1"];
    Layout {
        nodes,
        replicas,
        master_args: arguments.iter().map(ToString::to_string).collect(),
        ..Layout::default()
    }
}

/// Files of a few chunks each, `from..to`, synced.
pub(crate) fn write(directory: &Path, from: u64, to: u64) {
    fs::create_dir_all(directory).unwrap();
    for n in from..to {
        let mut file = File::create(directory.join(n.to_string())).unwrap();
        file.write_all(&content(n)).unwrap();
        file.sync_all().unwrap();
    }
}

fn content(n: u64) -> Vec<u8> {
    Rng::new(n).bytes(150_000 + usize::try_from(n).unwrap() * 100)
}

/// Every one of them reads as it was written.
pub(crate) fn check(directory: &Path, from: u64, to: u64) {
    for n in from..to {
        assert!(fs::read(directory.join(n.to_string())).unwrap() == content(n), "file {n}");
    }
}

/// What the master says about the copies.
pub(crate) fn repair(cluster: &Cluster) -> pb::RepairStatus {
    inspect::status(cluster).unwrap().repair.unwrap()
}

/// Whether every copy is where it belongs and nowhere else.
pub(crate) fn is_whole(cluster: &Cluster) -> bool {
    let status = inspect::status(cluster).unwrap();
    let repair = status.repair.unwrap();
    repair.known
        && status.safe_mode.is_empty()
        && status.degraded_groups.is_empty()
        && repair.groups_not_whole + repair.groups_waiting + repair.groups_to_drop == 0
}

/// Waits for that. `cairn verify` is the judge afterwards: it looks at every chunk on every node.
pub(crate) fn wait_whole(cluster: &Cluster) {
    let whole = wait_for(Duration::from_secs(90), || is_whole(cluster));
    assert!(whole, "not whole after 90 s: {:?}", inspect::status(cluster).unwrap());
    let ran = cluster.cairn(120, &["verify"]);
    assert!(ran.ok(), "{ran}");
}

/// The state of node `n` in the map.
pub(crate) fn state(cluster: &Cluster, n: usize) -> Option<pb::NodeState> {
    let map = inspect::status(cluster).unwrap().map.unwrap();
    let name = format!("node{}", n + 1);
    map.nodes.iter().find(|node| node.name == name).map(pb::Node::state)
}

/// Waits until the map says so.
pub(crate) fn wait_state(cluster: &Cluster, n: usize, wanted: pb::NodeState) {
    let reached = wait_for(Duration::from_secs(30), || state(cluster, n) == Some(wanted));
    assert!(reached, "node{} is {:?}, not {wanted:?}", n + 1, state(cluster, n));
}

/// Chunks on node `n` that count, as the node itself says.
pub(crate) fn chunks_on(cluster: &Cluster, n: usize) -> u64 {
    inspect::block_on(15, async {
        let request = pb::GroupDigestsRequest { pg_bits: 10 };
        let answer = inspect::storage(cluster, n).group_digests(request).await.unwrap();
        answer.into_inner().groups.iter().map(|group| group.chunks).sum()
    })
}

/// A verb that must succeed.
pub(crate) fn cairn(cluster: &Cluster, arguments: &[&str]) -> String {
    let ran = cluster.cairn(120, arguments);
    assert!(ran.ok(), "{ran}");
    ran.stdout
}

/// A verb that must be refused with a sentence that says `why`.
pub(crate) fn refused(cluster: &Cluster, arguments: &[&str], why: &str) {
    let ran = cluster.cairn(120, arguments);
    assert!(ran.code() == Some(1) && ran.stderr.contains(why), "{ran}");
}
