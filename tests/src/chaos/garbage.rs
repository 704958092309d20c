//! What nothing refers to after a run is erased, and its room comes back.

use std::time::Duration;

use serde_json::Value;

use super::site::NODES;
use crate::{Cluster, inspect, wait_for};

/// How long the first cycles may find nodes that are not ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// Backups of the metadata go on while we look.
const YOUNG: u64 = 16 << 20;
/// Segments that are not worth a rewrite, and the newest of each node.
const LOOSE: u64 = 64 << 20;

/// Everything that is wrong after garbage collection.
pub(super) fn collected(cluster: &Cluster) -> Vec<String> {
    let mut wrong = Vec::new();
    wait_for(PATIENCE, || {
        wrong.clear();
        let ran = cluster.cairn(120, &["gc", "--json"]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        if report["ok"] == Value::Bool(true) {
            wrong.extend(left_over(cluster, &report));
        } else {
            wrong.push(format!("gc: {ran}"));
        }
        wrong.is_empty()
    });
    wrong
}

fn left_over(cluster: &Cluster, report: &Value) -> Option<String> {
    let bytes = |tally: &str| report[tally]["bytes"].as_u64().unwrap_or(u64::MAX);
    let stored = inspect::stored_bytes(cluster, NODES);
    let taken = inspect::segment_bytes(cluster, NODES);
    let (live, unreferenced) = (bytes("live"), bytes("unreferenced"));
    let of = |bytes: u64| format!("{} MiB", bytes >> 20);
    eprintln!(
        "copies of {} are referred to, {} are not; nodes store {} in segments of {}",
        of(live),
        of(unreferenced),
        of(stored),
        of(taken)
    );
    let fits = unreferenced <= YOUNG
        && stored <= live.saturating_add(2 * YOUNG)
        && taken <= 2 * stored + NODES as u64 * LOOSE;
    (!fits).then(|| format!("garbage stays: {report}, {stored} bytes stored, {taken} bytes taken"))
}
