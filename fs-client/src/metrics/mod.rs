//! The names under which a mount's numbers appear in Prometheus. Nothing is counted here: the parts of
//! the mount count, this reads.
//!
//! [`socket`]: where a mount shows them.

pub mod socket;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use cairn_daemon::metrics::{
    Registry,
    page::{Content, Site},
};

use crate::{
    activity::{Activity, Operation},
    chunks::DiskCacheFigures,
    vfs::Vfs,
};

/// The page for metrics of a mount.
pub fn site(vfs: &Arc<Vfs>, activity: &Arc<Activity>) -> Site {
    let mut registry = Registry::new(env!("CARGO_PKG_VERSION"));
    operations(&mut registry, activity);
    cache(&mut registry, vfs);
    disk_cache(&mut registry, vfs);
    chunks(&mut registry, vfs);
    session(&mut registry, vfs);
    Site::new(registry)
}

/// The page for metrics, and `/profile` for `cairn profile`: what is going on, as JSON. `?seconds=N`
/// says over how long the slowest operation is sought.
pub fn site_with_profile(vfs: &Arc<Vfs>, activity: &Arc<Activity>) -> Site {
    let (read, activity_read) = (Arc::clone(vfs), Arc::clone(activity));
    site(vfs, activity).with("/profile", move |query| {
        let seconds = query.strip_prefix("seconds=").and_then(|n| n.parse().ok()).unwrap_or(10);
        let report = activity_read.report(read.session().is_connected(), seconds);
        let body = serde_json::to_string(&report).expect("numbers and strings are JSON");
        Content { kind: "application/json", body }
    })
}

fn operations(registry: &mut Registry, activity: &Arc<Activity>) {
    let read = Arc::clone(activity);
    registry.counters(
        "cairn_mount_operations",
        "File system operations that were answered, by kind and result",
        move |samples| {
            for (operation, kind) in read.kinds() {
                // In this order, so that a failure that comes in between makes no number negative.
                let failed = kind.failed.load(Relaxed);
                let done = kind.done.count();
                let result = |result| [("operation", operation.name()), ("result", result)];
                samples.put(&result("ok"), done.saturating_sub(failed));
                samples.put(&result("error"), failed);
            }
        },
    );
    let read = Arc::clone(activity);
    registry.latencies(
        "cairn_mount_operation_duration_seconds",
        "Time from the arrival of a file system operation until its answer",
        move |samples| {
            for (operation, kind) in read.kinds() {
                samples.put_latency(&[("operation", operation.name())], &kind.done);
            }
        },
    );
    let read = Arc::clone(activity);
    registry.gauges(
        "cairn_mount_operations_in_flight",
        "File system operations that are not answered yet; 0 when nobody uses the mount",
        move |samples| {
            for (operation, kind) in read.kinds() {
                let in_flight = kind.in_flight.load(Relaxed);
                samples.put(&[("operation", operation.name())], in_flight);
            }
        },
    );
    let mut bytes = |name, help, operation| {
        let read = Arc::clone(activity);
        registry.counter(name, help, move || read.kind(operation).bytes.load(Relaxed));
    };
    bytes("cairn_mount_read_bytes", "Bytes that applications read", Operation::Read);
    bytes("cairn_mount_written_bytes", "Bytes that applications wrote", Operation::Write);
}

fn cache(registry: &mut Registry, vfs: &Arc<Vfs>) {
    let read = Arc::clone(vfs);
    registry.counters(
        "cairn_mount_cache_requests",
        "Chunks that a read needed: found in memory (hit) or waited for (miss)",
        move |samples| {
            samples.put(&[("result", "hit")], read.chunks().reads().hits());
            samples.put(&[("result", "miss")], read.chunks().reads().misses());
        },
    );
    let read = Arc::clone(vfs);
    registry.gauge(
        "cairn_mount_cache_used_bytes",
        "Memory that the chunk cache takes now",
        move || read.chunks().cache_size().0,
    );
    let read = Arc::clone(vfs);
    registry.gauge("cairn_mount_cache_bytes", "Memory that the chunk cache may take", move || {
        read.chunks().cache_size().1
    });
    let read = Arc::clone(vfs);
    registry.gauge(
        "cairn_mount_dirty_bytes",
        "Memory that holds written bytes which are not stored yet; 0 when all is stored",
        move || read.dirty_bytes().0,
    );
    let read = Arc::clone(vfs);
    registry.gauge(
        "cairn_mount_dirty_limit_bytes",
        "Memory that may hold written bytes which are not stored yet; further writers wait",
        move || read.dirty_bytes().1,
    );
}

fn disk_cache(registry: &mut Registry, vfs: &Arc<Vfs>) {
    let read = Arc::clone(vfs);
    registry.counters(
        "cairn_mount_disk_cache_requests",
        "Chunks that were not in memory, read-ahead included: found in the disk cache (hit) or not (miss); none without --cache-dir",
        move |samples| {
            let figures = read.chunks().disk_cache();
            samples.put(&[("result", "hit")], figures.hits);
            samples.put(&[("result", "miss")], figures.misses);
        },
    );
    let mut counter = |name, help, figure: fn(DiskCacheFigures) -> u64| {
        let read = Arc::clone(vfs);
        registry.counter(name, help, move || figure(read.chunks().disk_cache()));
    };
    counter(
        "cairn_mount_disk_cache_read_bytes",
        "Bytes of chunks that came from the disk cache",
        |figures| figures.read_bytes,
    );
    counter(
        "cairn_mount_disk_cache_written_bytes",
        "Bytes of chunks that were written to the disk cache",
        |figures| figures.written_bytes,
    );
    counter(
        "cairn_mount_disk_cache_skipped_chunks",
        "Chunks that were not written to the disk cache because its disk did not keep up",
        |figures| figures.skipped,
    );
    counter(
        "cairn_mount_disk_cache_damaged_chunks",
        "Chunks that were damaged in the disk cache and fetched again",
        |figures| figures.damaged,
    );
    let read = Arc::clone(vfs);
    registry.gauge(
        "cairn_mount_disk_cache_used_bytes",
        "Room on its disk that the disk cache takes now",
        move || read.chunks().disk_cache().used,
    );
    let read = Arc::clone(vfs);
    registry.gauge(
        "cairn_mount_disk_cache_bytes",
        "Room that the disk cache may take; 0 without one, and when it was given up because its disk failed",
        move || read.chunks().disk_cache().limit,
    );
}

fn chunks(registry: &mut Registry, vfs: &Arc<Vfs>) {
    let read = Arc::clone(vfs);
    registry.counter(
        "cairn_mount_fetched_chunks",
        "Chunks that came from storage nodes, read-ahead included",
        move || read.chunks().reads().fetched_chunks(),
    );
    let read = Arc::clone(vfs);
    registry.counter(
        "cairn_mount_fetched_bytes",
        "Bytes of chunks that came from storage nodes, read-ahead included",
        move || read.chunks().reads().fetched_bytes(),
    );
    let read = Arc::clone(vfs);
    registry.counter(
        "cairn_mount_local_bytes",
        "Bytes of chunks that were read from the files of a storage node on this machine; part of those fetched",
        move || read.chunks().reads().local_bytes(),
    );
    let read = Arc::clone(vfs);
    registry.counter(
        "cairn_mount_stored_bytes",
        "Bytes of content that were stored on storage nodes; copies and compression do not count",
        move || read.chunks().traffic().sent + read.chunks().traffic().present,
    );
    let read = Arc::clone(vfs);
    registry.counter(
        "cairn_mount_sent_bytes",
        "Bytes of chunks that were sent to storage nodes; every copy counts",
        move || read.chunks().traffic().wire,
    );
    let read = Arc::clone(vfs);
    registry.gauges(
        "cairn_mount_transfer_used_bytes",
        "Bytes of chunks that are on their way; 0 when nothing is",
        move |samples| {
            let [upload, download] = read.chunks().transfers();
            samples.put(&[("direction", "upload")], upload.0);
            samples.put(&[("direction", "download")], download.0);
        },
    );
    let read = Arc::clone(vfs);
    registry.gauges(
        "cairn_mount_transfer_limit_bytes",
        "Bytes of chunks that may be on their way; more of them wait",
        move |samples| {
            let [upload, download] = read.chunks().transfers();
            samples.put(&[("direction", "upload")], upload.1);
            samples.put(&[("direction", "download")], download.1);
        },
    );
}

fn session(registry: &mut Registry, vfs: &Arc<Vfs>) {
    let read = Arc::clone(vfs);
    registry.gauge(
        "cairn_mount_master_connected",
        "1 while this mount is connected to the master",
        move || read.session().is_connected(),
    );
    let read = Arc::clone(vfs);
    registry.counter(
        "cairn_mount_master_reconnects",
        "How often the connection to the master was lost and made again",
        move || read.session().reconnects(),
    );
    let read = Arc::clone(vfs);
    registry.gauge(
        "cairn_mount_master_requests_in_flight",
        "Operations that the master has not answered yet; 0 when the mount is idle",
        move || read.session().unanswered(),
    );
}
