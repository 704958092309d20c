//! The names under which a node's numbers appear in Prometheus. Nothing is counted here: the store and
//! the heartbeat count, this reads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use cairn_daemon::metrics::{Registry, registry::Samples};
use cairn_proto::pb;

use crate::{
    repair::Repair,
    store::{Store, VolumeStatus},
};

/// Everything about `store` and what `repair` does to it; `connected`: whether the master hears of it.
pub fn registry(store: &Arc<Store>, repair: &Arc<Repair>, connected: Arc<AtomicBool>) -> Registry {
    let mut registry = Registry::new(env!("CARGO_PKG_VERSION"));
    requests(&mut registry, store);
    garbage(&mut registry, store);
    budgets(&mut registry, store);
    disks(&mut registry, store);
    upkeep(&mut registry, store, repair);
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

fn garbage(registry: &mut Registry, store: &Arc<Store>) {
    let mut counter = |name, help, value: fn(&pb::GarbageActivity) -> u64| {
        let read = Arc::clone(store);
        registry.counter(name, help, move || value(&read.activity().garbage()));
    };
    counter("cairn_storage_gc_sweeps", "Sweeps of garbage collection on this node", |g| g.sweeps);
    counter("cairn_storage_gc_erased_chunks", "Chunks that were collected", |g| g.chunks_erased);
    counter("cairn_storage_gc_erased_bytes", "Bytes of chunks that were collected", |g| {
        g.bytes_erased
    });
    counter(
        "cairn_storage_gc_returned_bytes",
        "Bytes that were given back to the file systems of the disks",
        |g| g.bytes_returned,
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

fn upkeep(registry: &mut Registry, store: &Arc<Store>, repair: &Arc<Repair>) {
    let read = Arc::clone(store);
    registry.gauge(
        "cairn_storage_damaged_chunks",
        "Chunks whose bytes were found to be wrong and that are not healed yet",
        move || read.damaged(),
    );
    let read = Arc::clone(store);
    registry.gauge("cairn_storage_scrub_running", "1 while everything is read again", move || {
        read.scrub_status().running
    });
    let mut counter = |name, help, value: fn((u64, u64, u64)) -> u64| {
        let read = Arc::clone(store);
        registry.counter(name, help, move || value(read.scrubbed().now()));
    };
    counter("cairn_storage_scrub_chunks", "Chunks read again by scrub", |(chunks, _, _)| chunks);
    counter("cairn_storage_scrub_bytes", "Bytes of chunks read again by scrub", |(_, bytes, _)| {
        bytes
    });
    counter("cairn_storage_scrub_damaged_chunks", "Chunks found wrong by scrub", |(_, _, n)| n);
    let mut copies = |name, help, value: fn(&Repair) -> u64| {
        let read = Arc::clone(repair);
        registry.counter(name, help, move || value(&read));
    };
    copies("cairn_storage_pulled_chunks", "Chunks fetched from other nodes", |repair| {
        repair.activity().pulled.chunks()
    });
    copies("cairn_storage_pulled_bytes", "Bytes of chunks fetched from other nodes", |repair| {
        repair.activity().pulled.bytes()
    });
    copies(
        "cairn_storage_dropped_chunks",
        "Chunks dropped because they belong to other nodes, which have them",
        |repair| repair.activity().dropped.chunks(),
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
        "cairn_storage_disk_quarantined_bytes",
        "Bytes of chunks that nothing refers to and that are about to be collected",
        |disk| disk.totals.quarantined_bytes,
    );
    gauge(
        "cairn_storage_disk_failed",
        "1 when the disk has failed and takes no more chunks",
        |disk| u64::from(disk.failed),
    );
    let read = Arc::clone(store);
    registry.latencies(
        "cairn_storage_disk_sync_duration_seconds",
        "Time to write new chunks and sync them to the disk; one sync covers all puts that wait for it",
        move |samples| {
            for (disk, syncs) in read.syncs() {
                samples.put_latency(&[("disk", disk)], syncs);
            }
        },
    );
}
