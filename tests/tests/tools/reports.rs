//! `analyze`, `info`, `df`, `du`: on a tree whose chunks can be counted by hand, and with a node away.

use std::{fs, os::unix::fs::FileExt};

use cairn_tests::{Cluster, Rng, within};
use serde_json::Value;

const CHUNK: usize = 64 * 1024;

/// A tree with 5 distinct chunks, 18 references, 2 holes, a hard link and a symbolic link:
///
/// | path | content |
/// |---|---|
/// | `/a` | chunks A B C |
/// | `/dir/copy` | A B C |
/// | `/dir/deep/short` | 1000 bytes, D |
/// | `/dir/holes` | hole, E, hole, and A's first half |
/// | `/zeros` | ten times Z |
/// | `/again` | another name of `/a` |
/// | `/link` | symbolic link |
fn build(cluster: &Cluster) {
    let mount = cluster.mount();
    let three = Rng::new(7).bytes(3 * CHUNK);
    fs::create_dir_all(mount.join("dir/deep")).unwrap();
    fs::write(mount.join("a"), &three).unwrap();
    fs::write(mount.join("dir/copy"), &three).unwrap();
    fs::write(mount.join("dir/deep/short"), Rng::new(8).bytes(1000)).unwrap();
    let holes = fs::File::create(mount.join("dir/holes")).unwrap();
    holes.write_all_at(&Rng::new(9).bytes(CHUNK), CHUNK as u64).unwrap();
    holes.write_all_at(&three[..CHUNK / 2], 3 * CHUNK as u64).unwrap();
    drop(holes);
    fs::write(mount.join("zeros"), vec![1; 10 * CHUNK]).unwrap();
    fs::hard_link(mount.join("a"), mount.join("again")).unwrap();
    std::os::unix::fs::symlink("a", mount.join("link")).unwrap();
    mount.unmount();
}

/// Bytes of the tree's distinct chunks: A, B, C, D, E, half of A, Z.
const DISTINCT: usize = 5 * CHUNK + CHUNK / 2 + 1000;

/// What a verb prints with `--json`.
fn report(cluster: &Cluster, arguments: &[&str]) -> Value {
    let ran = cluster.cairn(120, &[arguments, &["--json"]].concat());
    assert!(ran.ok(), "{ran}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["version"], 1, "{ran}");
    report
}

#[test]
fn analyze_counts_every_chunk_copy_reference_and_file() {
    within(180, || {
        let cluster = Cluster::new();
        build(&cluster);
        let found = report(&cluster, &["analyze", "--all"]);
        let chunks = &found["chunks"];
        assert_eq!(chunks["complete"], true, "{chunks}");
        assert_eq!(chunks["unique"], 7, "{chunks}");
        assert_eq!(chunks["unique_bytes"], DISTINCT, "{chunks}");
        assert_eq!(chunks["total"], 14, "{chunks}");
        assert_eq!(chunks["copies"], serde_json::json!({ "2": 7 }));
        assert_eq!(chunks["replication_factor"], 2.0);
        assert_eq!(chunks["references"], 3 + 3 + 1 + 2 + 10, "{chunks}");
        assert_eq!(chunks["unreferenced"], 0, "{chunks}");
        let listed = found["distribution"].as_array().unwrap();
        let ids: Vec<_> = listed.iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 7);
        assert!(ids.is_sorted(), "{ids:?}");
        let mut references: Vec<_> = listed.iter().map(|row| row["references"].as_u64()).collect();
        references.sort_unstable();
        assert_eq!(references, [1, 1, 1, 2, 2, 2, 10].map(Some));
        assert!(listed.iter().all(|row| row["replicas"] == serde_json::json!(["node1", "node2"])));
        let files = &found["files"];
        assert_eq!(files["files"], 5, "{files}");
        assert_eq!(files["names"], 6, "{files}");
        assert_eq!(files["others"], 1, "{files}");
        let manifest = found["manifest"].as_array().unwrap();
        let again = manifest.iter().find(|row| row["path"] == "/again").unwrap();
        assert_eq!((&again["chunks"], &again["bytes"]), (&3.into(), &(3 * CHUNK).into()));
        let processes = found["processes"].as_array().unwrap();
        assert_eq!(processes.len(), 3);
        assert!(processes.iter().all(|p| p["resident_bytes"].as_u64() > Some(1 << 20)));
        let location = found["storage"][0]["disks"][0]["path"].as_str().unwrap();
        assert_eq!(location, cluster.node_data(0).to_str().unwrap());

        let shown = cluster.cairn(60, &["analyze", "--chunks", "2"]);
        assert!(shown.ok(), "{shown}");
        for section in [
            "[SYSTEM STATUS]",
            "[STORAGE ANALYSIS]",
            "[CHUNK ANALYSIS - SHA-256]",
            "[FILE MANIFEST]",
            "[NETWORK CONFIGURATION]",
        ] {
            assert!(shown.stdout.contains(section), "{shown}");
        }
        assert!(shown.stdout.contains("the first 2 of 7"), "{shown}");
        assert!(!shown.stdout.contains('\x1b'), "colours in a pipe: {shown}");
    });
}

#[test]
fn analyze_goes_on_without_a_node_and_sees_what_is_left_over_or_lost() {
    within(180, || {
        let mut cluster = Cluster::new();
        build(&cluster);
        assert!(cluster.cairn(60, &["rm", "/zeros"]).ok());
        cluster.kill_node(1);
        let found = report(&cluster, &["analyze", "--all"]);
        let chunks = &found["chunks"];
        assert_eq!(chunks["complete"], false, "{chunks}");
        assert!(chunks["not_counted"]["node2"].is_string(), "{chunks}");
        assert_eq!(chunks["copies"], serde_json::json!({ "1": 7 }));
        assert_eq!(
            (&chunks["unreferenced"], &chunks["unreferenced_bytes"]),
            (&1.into(), &CHUNK.into())
        );
        let node2 = &found["processes"][2];
        assert!(node2["error"].is_string(), "{node2}");
        let shown = cluster.cairn(60, &["analyze"]);
        assert!(shown.ok(), "{shown}");
        assert!(shown.stdout.contains("node2 does not answer"), "{shown}");
        cluster.kill_node(0);
        let found = report(&cluster, &["analyze"]);
        assert_eq!(found["chunks"]["copies"], serde_json::json!({ "0": 6 }));
    });
}
