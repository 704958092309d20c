//! The names under which a master's numbers appear in Prometheus. Nothing is counted here: the op
//! thread, the sync thread, the sessions and the cluster count, this reads without disturbing them.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use cairn_daemon::metrics::Registry;
use cairn_proto::NodeState;

use crate::{
    activity::Activity,
    backup::Progress,
    cluster::Cluster,
    gc::{Collector, State},
    op_thread::OpQueue,
    repair::Repair,
    session::registry::Registry as Sessions,
    sync_thread::Durability,
};

/// What the numbers are read from.
pub(crate) struct Sources {
    pub(crate) activity: Arc<Activity>,
    pub(crate) ops: OpQueue,
    pub(crate) durability: Arc<Durability>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) repair: Arc<Repair>,
    pub(crate) backups: Arc<Progress>,
    pub(crate) collector: Arc<Collector>,
}

/// Everything about a master whose data is in `data`.
pub(crate) fn registry(sources: Sources, data: &Path) -> Registry {
    let Sources { activity, ops, durability, sessions, cluster, repair, backups, collector } =
        sources;
    let mut registry = Registry::new(env!("CARGO_PKG_VERSION"));
    operations(&mut registry, &activity);
    registry.gauges(
        "cairn_master_queue_length",
        "Work that waits for a thread: op (operations to execute) or sync (replies until their \
         effects are on disk); 0 when the master is idle",
        move |samples| {
            samples.put(&[("thread", "op")], ops.len());
            samples.put(&[("thread", "sync")], durability.len());
        },
    );
    durations(&mut registry, &activity);
    registry.gauges(
        "cairn_master_sessions",
        "Sessions of clients: connected or away",
        move |samples| {
            let all = sessions.all();
            let connected = all.iter().filter(|session| session.connection().is_some()).count();
            samples.put(&[("state", "connected")], connected);
            samples.put(&[("state", "away")], all.len() - connected);
        },
    );
    nodes_and_groups(&mut registry, &cluster, &activity);
    copies(&mut registry, &repair, &cluster);
    namespace(&mut registry, &activity);
    metadata_backups(&mut registry, &backups);
    garbage(&mut registry, &collector);
    disk(&mut registry, data);
    registry
}

fn operations(registry: &mut Registry, activity: &Arc<Activity>) {
    let read = Arc::clone(activity);
    registry.counters(
        "cairn_master_operations",
        "Operations of clients that were answered, by kind and result",
        move |samples| {
            for (name, kind) in read.kinds() {
                // In this order, so that a failure that comes in between makes no number negative.
                let failed = kind.failed.load(Relaxed);
                let done = kind.done.count();
                let result = |result| [("operation", name), ("result", result)];
                samples.put(&result("ok"), done.saturating_sub(failed));
                samples.put(&result("error"), failed);
            }
        },
    );
    let read = Arc::clone(activity);
    registry.latencies(
        "cairn_master_operation_duration_seconds",
        "Time from an operation's arrival until its reply goes out",
        move |samples| {
            for (name, kind) in read.kinds() {
                samples.put_latency(&[("operation", name)], &kind.done);
            }
        },
    );
    let read = Arc::clone(activity);
    registry.gauge(
        "cairn_master_operations_in_flight",
        "Operations that have arrived and are not answered; 0 when the master is idle",
        move || read.underway(),
    );
}

fn durations(registry: &mut Registry, activity: &Arc<Activity>) {
    let read = Arc::clone(activity);
    registry.latencies(
        "cairn_master_commit_duration_seconds",
        "Time of each commit to the metadata; one covers a group of operations",
        move |samples| samples.put_latency(&[], &read.commits),
    );
    let read = Arc::clone(activity);
    registry.latencies(
        "cairn_master_sync_duration_seconds",
        "Time of each sync of the metadata to disk; one covers all that wait for it",
        move |samples| samples.put_latency(&[], &read.syncs),
    );
}

fn nodes_and_groups(registry: &mut Registry, cluster: &Arc<Cluster>, activity: &Arc<Activity>) {
    const STATES: [(NodeState, &str); 6] = [
        (NodeState::Up, "up"),
        (NodeState::Suspect, "suspect"),
        (NodeState::Down, "down"),
        (NodeState::Out, "out"),
        (NodeState::Draining, "draining"),
        (NodeState::Maintenance, "maintenance"),
    ];
    let read = Arc::clone(cluster);
    registry.gauges("cairn_master_nodes", "Storage nodes by state", move |samples| {
        let map = read.map();
        for (state, name) in STATES {
            let nodes = map.nodes.iter().filter(|node| node.state == state).count();
            samples.put(&[("state", name)], nodes);
        }
    });
    let read = Arc::clone(activity);
    let cluster = Arc::clone(cluster);
    registry.gauges(
        "cairn_master_groups",
        "Placement groups: degraded (written to fewer nodes than wanted) or complete",
        move |samples| {
            let all = 1_u64 << cluster.map().pg_bits;
            let degraded = read.stored().degraded_groups;
            samples.put(&[("state", "complete")], all.saturating_sub(degraded));
            samples.put(&[("state", "degraded")], degraded);
        },
    );
}

fn copies(registry: &mut Registry, repair: &Arc<Repair>, cluster: &Arc<Cluster>) {
    let read = Arc::clone(repair);
    registry.gauges(
        "cairn_master_repair_groups",
        "Placement groups whose copies are not as they should be: lacking (a node that can be reached \
         lacks chunks), waiting (a node that should have them is away) or elsewhere (a node where they \
         do not belong has them too)",
        move |samples| {
            let status = read.status();
            samples.put(&[("state", "lacking")], u64::from(status.groups_not_whole));
            samples.put(&[("state", "waiting")], u64::from(status.groups_waiting));
            samples.put(&[("state", "elsewhere")], u64::from(status.groups_to_drop));
        },
    );
    let read = Arc::clone(repair);
    registry.gauge(
        "cairn_master_repair_pending_bytes",
        "Estimate of the bytes that repair and rebalancing still copy",
        move || read.status().bytes_to_move,
    );
    let read = Arc::clone(repair);
    registry.gauge(
        "cairn_master_repair_eta_seconds",
        "Estimate of the time until everything is copied; 0: nothing to copy, or no telling",
        move || read.status().eta_seconds,
    );
    let read = Arc::clone(repair);
    registry.counters(
        "cairn_master_repair_bytes",
        "Bytes of chunks that nodes have copied from each other or dropped where they did not belong",
        move |samples| {
            let status = read.status();
            samples.put(&[("action", "copied")], status.bytes_moved);
            samples.put(&[("action", "dropped")], status.bytes_dropped);
        },
    );
    let read = Arc::clone(cluster);
    registry.gauge(
        "cairn_master_safe_mode",
        "1 while the master has just started and waits for nodes, and so repairs and deletes nothing",
        move || u64::from(!read.is_settled()),
    );
}

fn namespace(registry: &mut Registry, activity: &Arc<Activity>) {
    let read = Arc::clone(activity);
    registry.gauges("cairn_master_inodes", "Inodes by type", move |samples| {
        let counters = read.stored().counters;
        samples.put(&[("type", "file")], counters.files);
        samples.put(&[("type", "directory")], counters.directories);
        samples.put(&[("type", "other")], counters.other);
    });
    let read = Arc::clone(activity);
    registry.gauge(
        "cairn_master_orphans",
        "Inodes without a name that somebody still holds open",
        move || read.stored().counters.orphans,
    );
    let read = Arc::clone(activity);
    registry.gauge("cairn_master_logical_bytes", "Sum of the lengths of all files", move || {
        read.stored().counters.logical_bytes
    });
    let read = Arc::clone(activity);
    registry.gauge(
        "cairn_master_referenced_bytes",
        "What the chunks of all files take, each counted as often as it is referred to",
        move || read.stored().counters.referenced_bytes,
    );
}

fn metadata_backups(registry: &mut Registry, backups: &Arc<Progress>) {
    let read = Arc::clone(backups);
    registry.counters(
        "cairn_master_backups",
        "Backups of the metadata into the storage nodes, by result",
        move |samples| {
            let status = read.status();
            samples.put(&[("result", "ok")], status.done);
            samples.put(&[("result", "error")], status.failed);
        },
    );
    let read = Arc::clone(backups);
    registry.gauges(
        "cairn_master_backup_time_seconds",
        "Until when the newest backup has everything, in seconds since 1970; absent before the first",
        move |samples| {
            let status = read.status();
            if status.generation != 0 {
                samples.put(&[], status.current_unix_ms / 1000);
            }
        },
    );
    let read = Arc::clone(backups);
    registry.gauge(
        "cairn_master_backup_bytes",
        "Length of the newest backup of the metadata, one copy",
        move || read.status().bytes,
    );
}

fn garbage(registry: &mut Registry, collector: &Arc<Collector>) {
    let read = Arc::clone(collector);
    registry.counters(
        "cairn_master_gc_cycles",
        "Cycles of garbage collection: complete, or failed (nothing, or not everything, was swept)",
        move |samples| {
            let (cycles, failures) = {
                let state = read.state();
                (state.cycles, state.failures)
            };
            samples.put(&[("result", "complete")], cycles.saturating_sub(failures));
            samples.put(&[("result", "failed")], failures);
        },
    );
    let mut counter = |name, help, value: fn(&State) -> u64| {
        let read = Arc::clone(collector);
        registry.counter(name, help, move || value(&read.state()));
    };
    counter("cairn_master_gc_erased_chunks", "Copies of chunks that were collected", |state| {
        state.erased.chunks
    });
    counter("cairn_master_gc_erased_bytes", "Bytes of copies that were collected", |state| {
        state.erased.bytes
    });
    counter(
        "cairn_master_gc_returned_bytes",
        "Bytes that were given back to the disks of the storage nodes",
        |state| state.returned_bytes,
    );
    let read = Arc::clone(collector);
    registry.gauge("cairn_master_gc_epoch", "Epoch that new chunks are stamped with", move || {
        read.state().stamps.epoch
    });
    let read = Arc::clone(collector);
    registry.gauge("cairn_master_gc_running", "1 while a cycle is under way", move || {
        read.state().running
    });
}

fn disk(registry: &mut Registry, data: &Path) {
    let space = |data: &Path| rustix::fs::statvfs(data).ok();
    let path = data.to_owned();
    registry.gauges(
        "cairn_master_disk_capacity_bytes",
        "Size of the file system that holds the metadata",
        move |samples| {
            if let Some(fs) = space(&path) {
                samples.put(&[], fs.f_blocks.saturating_mul(fs.f_frsize));
            }
        },
    );
    let path = data.to_owned();
    registry.gauges(
        "cairn_master_disk_free_bytes",
        "Room that is left on the file system that holds the metadata",
        move |samples| {
            if let Some(fs) = space(&path) {
                samples.put(&[], fs.f_bavail.saturating_mul(fs.f_frsize));
            }
        },
    );
}
