//! On a loaded cluster all reports say the same, and the same as `du` and `/proc`, within 5 %.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command, time::Duration};

use cairn_tests::{Cluster, Rng, binaries, wait_for, within};
use serde_json::Value;

fn report(cluster: &Cluster, arguments: &[&str]) -> Value {
    let ran = cluster.cairn(120, &[arguments, &["--json"]].concat());
    assert!(ran.ok(), "{ran}");
    let last =
        if arguments[0] == "monitor" { ran.stdout.lines().last() } else { Some(&ran.stdout[..]) };
    serde_json::from_str(last.unwrap()).unwrap()
}

#[track_caller]
fn agree(what: &str, numbers: &[(&str, f64)]) {
    let all = || numbers.iter().map(|(_, n)| *n);
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    assert!(most - least <= 0.05 * most, "{what}: {numbers:?}");
}

fn number(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {report}"));
    value.as_f64().unwrap_or_else(|| panic!("{pointer} is {value}"))
}

fn sum(report: &Value, list: &str, field: &str) -> f64 {
    report[list].as_array().unwrap().iter().map(|item| number(item, field)).sum()
}

/// What `du -s` counts below `directory`.
fn disk_usage(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => disk_usage(&entry.path()),
            metadata => metadata.blocks() * 512,
        })
        .sum()
}

fn resident(pid: u64) -> f64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages as f64 * rustix::param::page_size() as f64
}

fn cpu_ms(pid: u64) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 * 1000.0 / rustix::param::clock_ticks_per_second() as f64
}

/// 96 MiB, of which a third is there twice, and some small files.
fn load(cluster: &Cluster) {
    let mount = cluster.mount();
    for n in 0..3 {
        fs::write(mount.join(format!("big{n}")), Rng::new(n % 2).bytes(32 << 20)).unwrap();
    }
    fs::create_dir(mount.join("small")).unwrap();
    for n in 0..200 {
        fs::write(mount.join(format!("small/{n}")), Rng::new(100 + n).bytes(3000)).unwrap();
    }
    mount.unmount();
}

#[test]
fn reports_agree_with_each_other_and_with_du_and_proc() {
    within(300, || {
        let mut cluster = Cluster::new();
        load(&cluster);
        let settled = || {
            let (status, analyze) = (report(&cluster, &["status"]), report(&cluster, &["analyze"]));
            status["stored_bytes"] == analyze["chunks"]["total_bytes"]
        };
        assert!(wait_for(Duration::from_secs(30), settled), "the nodes' last report is old");
        let status = report(&cluster, &["status"]);
        let analyze = report(&cluster, &["analyze"]);
        let df = report(&cluster, &["df"]);
        let du = report(&cluster, &["du", "-s"]);
        let monitor = report(&cluster, &["monitor", "--count", "2", "--interval", "0.5"]);

        let on_disk: u64 = (0..2).map(|n| disk_usage(cluster.node_data(n))).sum();
        agree(
            "bytes of all copies",
            &[
                ("status", number(&status, "/stored_bytes")),
                ("analyze", number(&analyze, "/chunks/total_bytes")),
                ("analyze by node", sum(&analyze, "storage", "/chunk_bytes")),
                ("df", number(&df, "/store/chunk_bytes")),
                ("monitor", number(&monitor, "/stored_bytes")),
                ("du of the node directories", on_disk as f64),
            ],
        );
        agree(
            "bytes of distinct chunks",
            &[
                ("status", number(&status, "/unique_bytes")),
                ("analyze", number(&analyze, "/chunks/unique_bytes")),
                ("du", number(&du, "/rows/0/stored_bytes")),
                ("monitor", number(&monitor, "/unique_bytes")),
            ],
        );
        agree(
            "length of all files",
            &[
                ("status", number(&status, "/logical_bytes")),
                ("analyze", number(&analyze, "/files/logical_bytes")),
                ("du", number(&du, "/rows/0/logical_bytes")),
                ("monitor", number(&monitor, "/logical_bytes")),
                ("what was written", f64::from((96 << 20) + 200 * 3000)),
            ],
        );
        agree(
            "deduplication",
            &[
                ("status", number(&status, "/dedup_ratio")),
                ("analyze", number(&analyze, "/chunks/dedup_ratio")),
                ("monitor", number(&monitor, "/dedup_ratio")),
            ],
        );
        agree(
            "replication",
            &[
                ("status", number(&status, "/replication_ratio")),
                ("analyze", number(&analyze, "/chunks/replication_factor")),
            ],
        );
        agree(
            "capacity",
            &[
                ("status", sum(&status, "nodes", "/capacity_bytes")),
                ("df", number(&df, "/store/capacity_bytes")),
                ("monitor", number(&monitor, "/capacity_bytes")),
            ],
        );
        let files = [("status", &status, "/files"), ("analyze", &analyze, "/files/files")];
        agree("files", &files.map(|(who, report, at)| (who, number(report, at))));
        check_processes(&mut cluster);
    });
}

/// Memory and processor time, as the reports have them and as the kernel does.
fn check_processes(cluster: &mut Cluster) {
    let pids = [cluster.master().id(), cluster.node(0).id(), cluster.node(1).id()];
    for (position, pid) in pids.into_iter().enumerate() {
        let pid = u64::from(pid);
        let analyze = report(cluster, &["analyze"]);
        let process = &analyze["processes"][position];
        assert_eq!(process["pid"], pid);
        let (memory, cpu) = (number(process, "/resident_bytes"), number(process, "/cpu_ms"));
        agree("memory", &[("analyze", memory), ("/proc", resident(pid))]);
        let now = cpu_ms(pid);
        // The kernel counts in hundredths of a second, and the report itself took some.
        assert!(cpu <= now && now - cpu <= 0.05 * now + 50.0, "{position}: {cpu} and {now} ms");
        let monitor = report(cluster, &["monitor", "--count", "2", "--interval", "0.3"]);
        let memory = match position {
            0 => number(&monitor, "/master_process/resident_bytes"),
            n => number(&monitor, &format!("/nodes/{}/process/resident_bytes", n - 1)),
        };
        agree("memory", &[("monitor", memory), ("/proc", resident(pid))]);
    }
}

#[test]
fn the_monitor_sees_the_bytes_that_are_written() {
    within(300, || {
        let cluster = Cluster::new();
        let place = cluster.place().join("file");
        let size = 24 << 20;
        fs::write(&place, Rng::new(5).bytes(size)).unwrap();
        let lines = cluster.place().join("lines");
        let mut command = Command::new(binaries::cairn());
        command.args(["monitor", "--json", "--interval", "0.25"]);
        command.args(["--master", &cluster.master_address()]);
        let log = cluster.place().join("monitor.log");
        let out = fs::File::create(&lines).unwrap();
        let mut monitor =
            command.stdout(out).stderr(fs::File::create(log).unwrap()).spawn().unwrap();
        let seen = || -> Vec<Value> {
            let text = fs::read_to_string(&lines).unwrap();
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        // The first line is before the first byte.
        let began = wait_for(Duration::from_secs(30), || !seen().is_empty());
        let ran = cluster.cairn(60, &["upload", "file", "/file"]);
        let written = 2.0 * size as f64;
        let caught = wait_for(Duration::from_secs(30), || {
            let (bytes, operations) = area(&seen());
            bytes > 0.6 * written && operations >= 3.0
        });
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        let (bytes, operations) = area(&seen());
        assert!(began && ran.ok(), "{ran}");
        // Rates between reports that do not fall together with the looks are only near the truth.
        assert!(caught && bytes < 1.4 * written, "{bytes} of {written}, {operations} operations");
    });
}

/// Bytes in and operations that `lines` amount to.
fn area(lines: &[Value]) -> (f64, f64) {
    let (mut bytes, mut operations, mut before) = (0.0, 0.0, None);
    for line in lines {
        let time = number(line, "/time");
        let passed = before.replace(time).map_or(0.0, |before| time - before);
        bytes += passed * line["bytes_in_per_second"].as_f64().unwrap_or(0.0);
        operations += passed * line["operations_per_second"].as_f64().unwrap_or(0.0);
    }
    (bytes, operations)
}
