//! Differences between two reports.

use super::*;
use crate::activity::{Activity, Operation};

fn mount() -> Mount {
    Mount {
        device: "0:51".to_owned(),
        root: "/".into(),
        at: "/mnt".into(),
        kind: "fuse.cairn".to_owned(),
        source: "cairn:127.0.0.1:9000".to_owned(),
        owner: Some(0),
    }
}

#[test]
fn only_what_happened_in_between_is_shown() {
    let activity = std::sync::Arc::new(Activity::default());
    let pid = std::process::id();
    activity.begin(Operation::Create, pid).end(Some(0));
    let before = activity.report(true, 60);
    for _ in 0..3 {
        activity.begin(Operation::Read, pid).end(Some(1000));
    }
    activity.begin(Operation::Read, pid).end(None);
    let _waits = activity.begin(Operation::Fsync, 0);
    let mut now = activity.report(false, 60);
    now.age = before.age + 2.0;
    let report = compare(&mount(), &before, now);
    assert!(!report.connected);
    let names: Vec<_> = report.operations.iter().map(|o| o.operation.as_str()).collect();
    assert_eq!(names, ["read", "fsync"]);
    let read = &report.operations[0];
    assert_eq!((read.done, read.failed, read.in_flight), (4, 1, 0));
    assert!((read.per_second - 2.0).abs() < 1e-9 && (read.bytes_per_second - 1500.0).abs() < 1e-9);
    assert!(read.mean_us.is_some() && read.p99_us.is_some() && read.slowest_us.is_some());
    let fsync = &report.operations[1];
    assert_eq!((fsync.done, fsync.in_flight, fsync.mean_us), (0, 1, None));
    assert!(fsync.oldest_us.is_some());
    assert_eq!(report.processes.len(), 2);
    let this = report.processes.iter().find(|p| p.pid == pid).unwrap();
    assert_eq!((this.done, this.in_flight), (4, 0));
    view::print(&report, false);
}

#[test]
fn other_peoples_mounts_are_refused_with_a_sentence() {
    let theirs = Mount { owner: Some(4_000_000_000), ..mount() };
    // Root is told that the owner has no place for sockets, others that it is not theirs.
    let refused = Target::new(&theirs).err().unwrap().to_string();
    assert!(refused.contains("4000000000"), "{refused}");
}
