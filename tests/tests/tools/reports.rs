//! `analyze`, `info`, `df`, `du`: on a tree whose chunks can be counted by hand, and with a node away.

use std::{fs, os::unix::fs::FileExt, time::Duration};

use cairn_tests::{Cluster, Rng, wait_for, within};
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

#[test]
fn info_shows_chunks_holes_and_the_state_of_every_copy() {
    within(180, || {
        let mut cluster = Cluster::new();
        build(&cluster);
        let found = report(&cluster, &["info", "/dir/holes", "link", "/dir", "--all"]);
        let [holes, link, dir] = &found["files"].as_array().unwrap()[..] else { panic!("{found}") };
        assert_eq!((&holes["kind"], &holes["size"]), (&"file".into(), &(7 * CHUNK / 2).into()));
        let content = &holes["content"];
        for (field, expected) in
            [("chunks", 2), ("holes", 2), ("distinct", 2), ("complete", 2), ("lost", 0)]
        {
            assert_eq!(content[field], expected, "{field}: {content}");
        }
        assert_eq!(content["distinct_bytes"], CHUNK + CHUNK / 2);
        let list = content["list"].as_array().unwrap();
        assert_eq!((&list[0]["index"], &list[1]["index"]), (&1.into(), &3.into()));
        assert_eq!(
            list[0]["copies"],
            serde_json::json!([
                { "node": "node1", "state": "present" },
                { "node": "node2", "state": "present" },
            ])
        );
        assert_eq!(link["target"], "a");
        assert_eq!((&dir["kind"], &dir["entries"]), (&"directory".into(), &3.into()));
        let zeros = &report(&cluster, &["info", "/zeros"])["files"][0]["content"];
        assert_eq!((&zeros["chunks"], &zeros["distinct"]), (&10.into(), &1.into()));
        let short = cluster.cairn(60, &["info", "/zeros", "--chunks", "4"]);
        assert!(short.stdout.contains("and 6 more"), "{short}");

        cluster.kill_node(1);
        let content = &report(&cluster, &["info", "/a"])["files"][0]["content"];
        assert_eq!((&content["complete"], &content["fewer"]), (&0.into(), &3.into()), "{content}");
        assert!(content["away"]["node2"].is_string(), "{content}");
        assert_eq!(content["list"][0]["copies"][1]["state"], "node-away");
        cluster.kill_node(0);
        let content = &report(&cluster, &["info", "/a"])["files"][0]["content"];
        assert_eq!(content["unknown"], 3, "{content}");
        let none = cluster.cairn(60, &["info", "/none"]);
        assert_eq!(none.code(), Some(1), "{none}");
        assert!(none.stderr.contains("/none"), "{none}");
    });
}

#[test]
fn info_and_du_take_local_paths_inside_a_mount() {
    within(180, || {
        let cluster = Cluster::new();
        build(&cluster);
        let mount = cluster.mount();
        let path = mount.join("dir/copy");
        // The master is the mount's, whatever the environment says.
        let arguments = ["--master", "127.0.0.1:1", "info", "--json", path.to_str().unwrap()];
        let ran = cluster.cairn(60, &arguments);
        assert!(ran.ok(), "{ran}");
        assert!(ran.stdout.contains("\"/dir/copy\""), "{ran}");
        let dir = mount.join("dir");
        let ran =
            cluster.cairn(60, &["--master", "127.0.0.1:1", "du", "-s", dir.to_str().unwrap()]);
        assert!(ran.ok() && ran.stdout.contains("/dir"), "{ran}");
        mount.unmount();
    });
}

#[test]
fn du_counts_lengths_distinct_chunks_and_what_others_share() {
    within(180, || {
        let cluster = Cluster::new();
        build(&cluster);
        let found = report(&cluster, &["du"]);
        let rows = found["rows"].as_array().unwrap();
        let row = |path: &str| {
            let row = rows.iter().find(|row| row["path"] == path).unwrap();
            ["files", "logical_bytes", "stored_bytes", "shared_bytes"]
                .map(|f| row[f].as_u64().unwrap())
        };
        let [c, half] = [CHUNK as u64, CHUNK as u64 / 2];
        assert_eq!(row("/"), [5, 3 * c + 3 * c + 1000 + 3 * c + half + 10 * c, DISTINCT as u64, 0]);
        assert_eq!(row("/dir"), [3, 6 * c + half + 1000, 4 * c + half + 1000, 3 * c]);
        assert_eq!(row("/dir/deep"), [1, 1000, 1000, 0]);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2]["path"], "/", "the sum comes last");

        let found = report(&cluster, &["du", "-s", "/a", "zeros"]);
        let rows = found["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        let a = rows.iter().find(|row| row["path"] == "/a").unwrap();
        assert_eq!((&a["stored_bytes"], &a["shared_bytes"]), (&(3 * c).into(), &(3 * c).into()));
        let zeros = rows.iter().find(|row| row["path"] == "/zeros").unwrap();
        assert_eq!((&zeros["stored_bytes"], &zeros["shared_bytes"]), (&c.into(), &0.into()));
        let exact = cluster.cairn(60, &["du", "-b", "-d", "1", "/dir"]);
        assert!(exact.ok() && exact.stdout.lines().count() == 3, "{exact}");
        assert!(exact.stdout.contains(&(6 * c + half + 1000).to_string()), "{exact}");
        let none = cluster.cairn(60, &["du", "/dir/none"]);
        assert_eq!(none.code(), Some(1), "{none}");
    });
}

#[test]
fn df_says_what_the_mount_says() {
    within(180, || {
        let cluster = Cluster::new();
        build(&cluster);
        let mount = cluster.mount();
        // The master knows what the nodes reported last, and adds it up for mounts now and then.
        let agree = || {
            let found = report(&cluster, &["df"]);
            let stat = rustix::fs::statvfs(mount.path()).unwrap();
            let close = |field: &str, blocks: u64| {
                let (here, there) = (found[field].as_u64().unwrap(), blocks * stat.f_frsize);
                here.abs_diff(there) <= there / 20
            };
            found["store"]["chunk_bytes"] == 2 * DISTINCT
                && close("usable_capacity_bytes", stat.f_blocks)
                && close("usable_free_bytes", stat.f_bfree)
        };
        let found = || report(&cluster, &["df"]);
        assert!(wait_for(Duration::from_secs(20), agree), "{}", found());
        let found = found();
        assert_eq!(found["nodes"].as_array().unwrap().len(), 2);
        let inodes = found["inodes"].as_u64().unwrap();
        assert_eq!(inodes, 5 + 3 + 1, "{found}");
        let shown = cluster.cairn(60, &["df", "-n"]);
        assert!(shown.ok() && shown.stdout.contains("node2"), "{shown}");
        mount.unmount();
    });
}

#[test]
fn verify_names_a_node_that_is_away_once_and_counts_its_chunks() {
    within(180, || {
        let mut cluster = Cluster::new();
        build(&cluster);
        cluster.kill_node(1);
        let ran = cluster.cairn(120, &["verify", "--json"]);
        assert_eq!(ran.code(), Some(1), "{ran}");
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&found["ok"], &found["version"]), (&false.into(), &1.into()));
        assert_eq!(found["findings"], serde_json::json!([]), "nothing is wrong, only unknown");
        let nodes = found["nodes"].as_array().unwrap();
        let [away, there] =
            ["node2", "node1"].map(|n| nodes.iter().find(|r| r["node"] == n).unwrap());
        assert!(away["error"].is_string(), "{away}");
        assert_eq!((&away["unchecked"], &there["unchecked"]), (&7.into(), &0.into()));
        let ran = cluster.cairn(120, &["verify"]);
        assert_eq!(ran.code(), Some(1), "{ran}");
        let lines: Vec<_> = ran.stdout.lines().filter(|line| line.contains("node2")).collect();
        assert_eq!(lines.len(), 1, "{ran}");
        assert!(lines[0].contains("7 chunks"), "{ran}");
        cluster.start_node(1);
        cluster.assert_sound();
        let ran = cluster.cairn(60, &["fsck", "--json"]);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(
            (&found["ok"], &found["version"], &found["references"]),
            (&true.into(), &1.into(), &19.into())
        );
    });
}

#[test]
fn every_report_has_a_schema_and_colours_come_only_when_wanted() {
    within(120, || {
        let cluster = Cluster::new();
        for verb in ["status", "analyze", "monitor", "info", "df", "du", "list", "verify", "fsck"] {
            let ran = cluster.cairn(20, &["schema", verb]);
            assert!(ran.ok(), "{ran}");
            let schema: Value = serde_json::from_str(&ran.stdout).unwrap();
            assert!(schema["properties"]["version"].is_object(), "{ran}");
        }
        report(&cluster, &["list"]);
        let plain = cluster.cairn(20, &["status"]);
        let always = cluster.cairn(20, &["status", "--color", "always"]);
        let never = cluster.cairn(20, &["status", "--color", "never"]);
        assert!(!plain.stdout.contains('\x1b') && !never.stdout.contains('\x1b'), "{plain}");
        assert!(always.stdout.contains('\x1b'), "{always}");
        let escapes = |text: &str| {
            let mut rest = text.split('\x1b');
            let first = rest.next().unwrap_or_default().to_owned();
            rest.fold(first, |text, part| {
                text + part.split_once('m').map_or("", |(_, after)| after)
            })
        };
        let lines = |text: &str| text.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
        let (shown, wanted) = (lines(&escapes(&always.stdout)), lines(&plain.stdout));
        assert_eq!(shown.len(), wanted.len(), "{always}");
        assert_eq!(shown[0], wanted[0], "{always}");
        let at = |line: &str, text: &str| {
            let line = shown.iter().find(|l| l.starts_with(line)).unwrap();
            line.find(text).unwrap()
        };
        assert_eq!(at("NODE", "STATE"), at("node1", "up "), "columns are not in line: {always}");
    });
}

#[test]
fn a_verb_that_fails_leaves_no_session_behind() {
    within(120, || {
        let cluster = Cluster::new();
        for verb in [&["list", "/none"][..], &["cat", "none"], &["info", "none"], &["rm", "none"]] {
            let ran = cluster.cairn(60, verb);
            assert_eq!(ran.code(), Some(1), "{ran}");
        }
        assert_eq!(report(&cluster, &["status"])["sessions"], serde_json::json!([]));
    });
}
