//! `scripts/bench.sh`, with sizes so small that its figures mean nothing: does it work from end to end?

use std::{fs, process::Command, time::Duration};

use cairn_tests::{
    binaries::{checkout, release_directory},
    command::run,
    scratch,
};
use serde_json::Value;

#[test]
fn every_section_gives_figures_for_both_systems_and_nothing_is_left() {
    let home = scratch("bench");
    let (data, json, table) =
        (home.path().join("data"), home.path().join("out.json"), home.path().join("out.md"));
    let tree = home.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    let mut command = Command::new(checkout().join("scripts/bench.sh"));
    command.env("CAIRN_BIN_DIR", release_directory()).env("BENCH_PORT", "19950");
    command.args(["--vs", "ext4", "--size", "8", "--files", "20", "1"]);
    command.arg("--dir").arg(&data).arg("--json").arg(&json).arg("--markdown").arg(&table);
    command.arg("--tree").arg(&tree);
    let ran = run(command, Duration::from_secs(300));
    if !rustix::process::geteuid().is_root() {
        assert!(!ran.ok() && ran.stderr.contains("as root"), "{ran}");
        return;
    }
    assert!(ran.ok(), "{ran}");
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let named = |system: &str, figure: &str| {
        let found = figures.iter().find(|f| f["system"] == system && f["figure"] == figure);
        found.unwrap_or_else(|| panic!("{figure} of {system} is missing"))["median"].as_f64()
    };
    for system in ["cairn", "ext4"] {
        for figure in [
            "sequential write with fsync",
            "sequential read, cold",
            "the same bytes written again",
            "random writes of 4 KiB, each synced",
            "create 20 files of 4 KiB",
            "rename them",
            "git status, cold",
        ] {
            assert!(named(system, figure) > Some(0.0), "{figure} of {system}");
        }
    }
    assert_eq!(named("cairn", "space that cp took"), Some(0.0));
    assert!(named("cairn", "peak memory of mount") > Some(0.0));
    let table = fs::read_to_string(&table).unwrap();
    assert!(table.contains("| figure | unit | cairn | ext4 |"), "{table}");
    assert!(!data.exists(), "the data directory is removed");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(data.to_str().unwrap()), "nothing stays mounted");
}
