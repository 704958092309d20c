//! The names under which a node's numbers appear in Prometheus. Nothing is counted here: the store and
//! the heartbeat count, this reads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use cairn_daemon::metrics::{Registry, registry::Samples};

use crate::store::{Store, VolumeStatus};

/// Everything about `store`; `connected`: whether the master hears of it.
pub fn registry(store: &Arc<Store>, connected: Arc<AtomicBool>) -> Registry {
    let mut registry = Registry::new(env!("CARGO_PKG_VERSION"));
    requests(&mut registry, store);
    budgets(&mut registry, store);
    disks(&mut registry, store);
    registry.gauge(
        "cairn_storage_master_connected",
        "1 while this node is connected to the master",
        move || connected.load(Relaxed),
    );
    registry
}

fn requests(registry: &mut Registry, store: &Arc<Store>) {
    let read = Arc::clone(store);
    registry.counters(
        "cairn_storage_put_chunks",
        "Chunks that were received: stored, known (deduplicated: they were there) or failed",
        move |samples| {
            let activity = read.activity();
            samples.put(&[("result", "stored")], activity.stored.chunks());
            samples.put(&[("result", "known")], activity.known.chunks());
            samples.put(&[("result", "failed")], activity.put_failures.load(Relaxed));
        },
    );
    let read = Arc::clone(store);
    registry.counters(
        "cairn_storage_put_bytes",
        "Bytes of chunks that were received: stored, or known (deduplicated: they were there)",
        move |samples| {
            samples.put(&[("result", "stored")], read.activity().stored.bytes());
            samples.put(&[("result", "known")], read.activity().known.bytes());
        },
    );
    let read = Arc::clone(store);
    registry.counters(
        "cairn_storage_get_chunks",
        "Chunks that were asked for: sent, or failed (not here, or damaged)",
        move |samples| {
            samples.put(&[("result", "sent")], read.activity().sent.chunks());
            samples.put(&[("result", "failed")], read.activity().get_failures.load(Relaxed));
        },
    );
    let read = Arc::clone(store);
    registry.counter(
        "cairn_storage_get_bytes",
        "Bytes of chunks that were read and sent",
        move || read.activity().sent.bytes(),
    );
    let read = Arc::clone(store);
    registry.latencies(
        "cairn_storage_request_duration_seconds",
        "Time from a request's admission until its chunks are durable (put) or read (get)",
        move |samples| {
            samples.put_latency(&[("operation", "put")], &read.activity().puts);
            samples.put_latency(&[("operation", "get")], &read.activity().gets);
        },
    );
}

fn budgets(registry: &mut Registry, store: &Arc<Store>) {
    let read = Arc::clone(store);
    registry.gauges(
        "cairn_storage_budget_used_bytes",
        "Memory that requests hold now; 0 when nobody puts or gets",
        move |samples| {
            let (put, get) = read.admitted();
            samples.put(&[("operation", "put")], put);
            samples.put(&[("operation", "get")], get);
        },
    );
    let limits = store.limits();
    registry.gauges(
        "cairn_storage_budget_bytes",
        "Memory that requests may hold; more of them wait",
        move |samples| {
            samples.put(&[("operation", "put")], limits.put_bytes);
            samples.put(&[("operation", "get")], limits.get_bytes);
        },
    );
}

fn disks(registry: &mut Registry, store: &Arc<Store>) {
    let mut gauge = |name, help, value: fn(&VolumeStatus) -> u64| {
        let read = Arc::clone(store);
        registry.gauges(name, help, move |samples: &mut Samples<'_>| {
            for disk in read.status() {
                samples.put(&[("disk", &disk.name)], value(&disk));
            }
        });
    };
    gauge("cairn_storage_disk_capacity_bytes", "Size of the disk's file system", |disk| {
        disk.space.capacity
    });
    gauge("cairn_storage_disk_free_bytes", "What may still be stored on the disk", |disk| {
        disk.space.free
    });
    gauge("cairn_storage_disk_chunks", "Chunks on the disk", |disk| disk.totals.chunks);
    gauge("cairn_storage_disk_chunk_bytes", "Bytes of chunks on the disk", |disk| {
        disk.totals.bytes
    });
    gauge(
        "cairn_storage_disk_failed",
        "1 when the disk has failed and takes no more chunks",
        |disk| u64::from(disk.failed),
    );
    let read = Arc::clone(store);
    registry.latencies(
        "cairn_storage_disk_sync_duration_seconds",
        "Time of each sync of new chunks to the disk; one covers all puts that wait for it",
        move |samples| {
            for (disk, syncs) in read.syncs() {
                samples.put_latency(&[("disk", disk)], syncs);
            }
        },
    );
}
