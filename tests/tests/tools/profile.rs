//! `cairn profile`: it shows who does what, also while everything hangs, and says what is wrong when
//! there is nothing to show.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cairn_tests::{
    Cluster, Layout, binaries,
    command::{Ran, run, sh},
    scratch, wait_for, within,
};
use serde_json::Value;

fn profile(arguments: &[&str]) -> Ran {
    let mut command = Command::new(binaries::cairn());
    command.arg("profile").args(arguments);
    run(command, Duration::from_secs(30))
}

fn report(at: &str) -> Value {
    let ran = profile(&["--once", "--json", at]);
    assert!(ran.ok(), "{ran}");
    serde_json::from_str(&ran.stdout).unwrap()
}

fn found<'a>(list: &'a Value, key: &str, name: &str) -> Option<&'a Value> {
    list.as_array().unwrap().iter().find(|entry| entry[key] == name)
}

/// A program that is killed in the end.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // One that hangs in the mount ends with the mount.
        wait_for(Duration::from_secs(10), || matches!(self.0.try_wait(), Ok(Some(_))));
    }
}

#[test]
fn a_reading_process_is_seen_also_while_the_cluster_is_away() {
    within(240, || {
        let mut cluster = Cluster::with(Layout { nodes: 2, ..Layout::default() });
        // So little memory that every read asks a node.
        let mount = cluster.mount_with(&["--cache-size", "1000000", "--deadline", "60"]);
        sh(mount.path(), 60, "head -c 64M /dev/urandom > big");
        let at = mount.path().to_str().unwrap().to_owned();
        let mut dd = Command::new("bash");
        let read = format!("while true; do dd if={at}/big of=/dev/null bs=64k iflag=nocache; done");
        dd.args(["-c", &read]);
        let _reader = Running::start(dd);

        let mut last = Value::Null;
        let seen = wait_for(Duration::from_secs(60), || {
            last = report(&at);
            let reads = found(&last["operations"], "operation", "read");
            let dd = found(&last["processes"], "name", "dd");
            reads.is_some_and(|r| r["done"].as_u64() > Some(0) && r["p99_us"].is_u64())
                && dd.is_some_and(|p| p["bytes_per_second"].as_f64() > Some(1e5))
        });
        assert!(seen && last["connected"] == true, "{last:#}");

        cluster.node(0).stop();
        cluster.node(1).stop();
        cluster.master().stop();
        let began = Instant::now();
        let stuck = wait_for(Duration::from_secs(60), || {
            last = report(&at);
            let waits = found(&last["processes"], "name", "dd").map(|dd| &dd["waiting"]["us"]);
            let oldest = last["operations"].as_array().unwrap().iter();
            let oldest = oldest.filter_map(|o| o["oldest_us"].as_u64()).max();
            waits.is_some_and(|us| us.as_u64() > Some(2_000_000)) && oldest > Some(2_000_000)
        });
        assert!(stuck, "after {:?}: {last:#}", began.elapsed());
        let gone = wait_for(Duration::from_secs(30), || report(&at)["connected"] == false);
        assert!(gone, "a master that says nothing is not connected");
        let text = profile(&["--once", &format!("{at}/big")]);
        assert!(text.ok() && text.stdout.contains("NOT connected"), "{text}");
        assert!(text.stdout.contains("dd"), "{text}");
        assert!(!text.stdout.contains('\u{1b}'), "escape sequences are for terminals: {text}");
        cluster.master().cont();
        cluster.node(0).cont();
        cluster.node(1).cont();
    });
}

#[test]
fn repeated_lines_of_json_end_with_their_reader() {
    within(60, || {
        let cluster = Cluster::with(Layout { nodes: 1, replicas: 1, ..Layout::default() });
        let mount = cluster.mount();
        let script = format!("{} profile --json . | head -2", binaries::cairn().display());
        let out = sh(mount.path(), 30, &format!("set +o pipefail; {script}"));
        let lines: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["version"], 1);
        mount.unmount();
    });
}

#[test]
fn what_cannot_be_profiled_is_one_sentence() {
    within(60, || {
        let elsewhere = scratch("elsewhere");
        let ran = profile(&["--once", elsewhere.path().to_str().unwrap()]);
        assert!(!ran.ok() && ran.stderr.contains("is in no mount of Cairn"), "{ran}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran}");

        let cluster = Cluster::with(Layout { nodes: 1, replicas: 1, ..Layout::default() });
        let mut mount = cluster.mount();
        let at = mount.path().to_str().unwrap().to_owned();
        // As another user: the socket is none of theirs.
        let mut other = Command::new("setpriv");
        other.args(["--reuid", "65534", "--clear-groups"]).arg(binaries::cairn());
        other.args(["profile", "--once", &at]);
        let ran = run(other, Duration::from_secs(30));
        assert!(!ran.ok() && ran.stderr.contains("belongs to user 0"), "{ran}");

        mount.stop();
        let ran = profile(&["--once", &at]);
        assert!(!ran.ok() && ran.stderr.contains("does not answer within 5 s"), "{ran}");
        mount.cont();

        mount.kill9();
        let ran = profile(&["--once", &at]);
        assert!(!ran.ok() && ran.stderr.contains("cairn umount"), "{ran}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran}");
    });
}
