//! [`Model`]: what is known after each look: rates from counters, and their last minutes.
//!
//! A node's counters belong to the moment of its last report, not to that of the look. A counter that
//! went back belongs to a process that was started anew: no rate then.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::Serialize;

use super::poll::Look;
use crate::cli::{
    output::JSON_VERSION,
    status::report::{NodeReport, StatusReport},
};

/// Moments kept for the graphs.
const HISTORY: usize = 1024;
/// A node that has not reported for this long does nothing, as far as anybody knows.
const SILENCE: Duration = Duration::from_secs(5);
/// Reports closer together than this are one and the same.
const SAME_REPORT: Duration = Duration::from_millis(40);

/// One line: the cluster at one moment. `cairn monitor --json`
#[derive(Clone, Serialize, JsonSchema)]
pub struct Moment {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    pub version: u32,
    /// Seconds since 1970.
    pub time: f64,
    /// Where the master is asked, HOST:PORT.
    pub master: String,
    /// Why the master does not answer; absent when it does. Otherwise only `version`, `time`, `master` and `error` are there.
    pub error: Option<String>,
    /// What it says.
    #[serde(flatten)]
    pub cluster: Option<ClusterMoment>,
}

/// The cluster while the master answers. Rates are null in the first line and after a restart.
#[derive(Clone, Serialize, JsonSchema)]
pub struct ClusterMoment {
    /// Every node is up, no disk has failed, every group has all its copies.
    pub healthy: bool,
    /// Bytes of chunks that all nodes together received in a second: every copy counts.
    pub bytes_in_per_second: Option<f64>,
    /// Bytes of chunks that all nodes together sent in a second.
    pub bytes_out_per_second: Option<f64>,
    /// Operations that the master did in a second.
    pub operations_per_second: Option<f64>,
    /// The same by kind; kinds that did not happen are left out.
    pub operations: BTreeMap<String, f64>,
    /// The master's process.
    pub master_process: ProcessLoad,
    /// The storage nodes.
    pub nodes: Vec<NodeMoment>,
    /// Copies that every chunk shall have.
    pub replicas: u32,
    /// Placement groups.
    pub groups: u32,
    /// Groups that were written with fewer copies than `replicas`.
    pub degraded_groups: u64,
    /// Groups of which a node that can be reached lacks chunks.
    pub groups_not_whole: u32,
    /// Groups one of whose nodes cannot be reached, or that have too few nodes.
    pub groups_waiting: u32,
    /// Estimate of the bytes that repair and rebalancing still copy.
    pub bytes_to_move: u64,
    /// Bytes that they copy in a second.
    pub repair_bytes_per_second: u64,
    /// Seconds until they are done at this speed; 0: nothing to copy, or no telling.
    pub repair_eta_seconds: u64,
    /// Why the master neither repairs nor collects garbage since its start; empty: it does.
    pub safe_mode: String,
    /// Clients with an open session.
    pub sessions: u64,
    /// Files that clients hold open.
    pub open_files: u64,
    /// The first clients, those with the most open files before the others.
    pub clients: Vec<ClientMoment>,
    /// Regular files.
    pub files: u64,
    /// Sum of the files' lengths, in bytes.
    pub logical_bytes: u64,
    /// Bytes of distinct chunks, one copy each.
    pub unique_bytes: u64,
    /// Bytes of all copies.
    pub stored_bytes: u64,
    /// As in `cairn status`.
    pub dedup_ratio: f64,
    /// As in `cairn status`.
    pub replication_ratio: f64,
    /// Bytes of all working disks.
    pub capacity_bytes: u64,
    /// Bytes that new chunks can take on them.
    pub free_bytes: u64,
}

/// What a process takes.
#[derive(Clone, Serialize, JsonSchema)]
pub struct ProcessLoad {
    /// Process id on its machine.
    pub pid: u32,
    /// Percent of one processor.
    pub cpu_percent: Option<f64>,
    /// Bytes of memory in use (resident).
    pub resident_bytes: u64,
    /// Seconds since it started.
    pub uptime_seconds: u64,
}

/// One storage node.
#[derive(Clone, Serialize, JsonSchema)]
pub struct NodeMoment {
    /// What people call it.
    pub name: String,
    /// `up`, `suspect`, `down`, `out`, `draining` or `maintenance`.
    pub state: &'static str,
    /// Milliseconds since its last report.
    pub silent_ms: u64,
    /// Its process.
    pub process: ProcessLoad,
    /// Bytes of chunks that it received in a second.
    pub bytes_in_per_second: Option<f64>,
    /// Bytes of chunks that it sent in a second.
    pub bytes_out_per_second: Option<f64>,
    /// Chunks on all its disks.
    pub chunks: u64,
    /// Bytes of its chunks.
    pub chunk_bytes: u64,
    /// Bytes of its working disks.
    pub capacity_bytes: u64,
    /// Bytes that new chunks can take on them.
    pub free_bytes: u64,
    /// Disks that it does not use any more because they returned errors.
    pub failed_disks: u64,
}

/// One client.
#[derive(Clone, Serialize, JsonSchema)]
pub struct ClientMoment {
    /// Machine and mount point, or the verb.
    pub name: String,
    /// Whether its connection stands.
    pub connected: bool,
    /// Files that it holds open.
    pub open_files: u64,
}

/// Most clients that are named.
const CLIENTS: usize = 32;

/// What the graphs show of one moment; `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) bytes_in: Option<f64>,
    pub(super) bytes_out: Option<f64>,
    pub(super) operations: Option<f64>,
}

/// Counters of a process at the moment for which they are true.
struct Counters {
    at: Instant,
    pid: u32,
    cpu_ms: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Counters that were seen last, and the rates up to them.
struct Track {
    counters: Counters,
    cpu_percent: Option<f64>,
    bytes_in: Option<f64>,
    bytes_out: Option<f64>,
}

/// See the head of this file.
pub(super) struct Model {
    address: String,
    /// The last look.
    pub(super) now: Option<Moment>,
    /// The last look at which the master answered.
    pub(super) known: Option<(Instant, ClusterMoment)>,
    /// The oldest first.
    pub(super) history: VecDeque<Point>,
    master: Option<Track>,
    nodes: HashMap<String, Track>,
    operations: Option<(Instant, u32, BTreeMap<String, u64>)>,
}

impl Model {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            now: None,
            known: None,
            history: VecDeque::new(),
            master: None,
            nodes: HashMap::new(),
            operations: None,
        }
    }

    /// Takes in one look.
    pub(super) fn take(&mut self, look: Look) -> &Moment {
        let (cluster, error) = match look.answer {
            Ok(status) => (Some(self.cluster(look.at, &status)), None),
            Err(why) => (None, Some(why)),
        };
        let point = cluster.as_ref().map_or_else(Point::default, |c| Point {
            bytes_in: c.bytes_in_per_second,
            bytes_out: c.bytes_out_per_second,
            operations: c.operations_per_second,
        });
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(point);
        if let Some(cluster) = &cluster {
            self.known = Some((look.at, cluster.clone()));
        }
        let (time, master) = (look.time, self.address.clone());
        self.now.insert(Moment { version: JSON_VERSION, time, master, error, cluster })
    }

    fn cluster(&mut self, at: Instant, status: &StatusReport) -> ClusterMoment {
        let master = &status.master;
        let counters =
            Counters { at, pid: master.pid, cpu_ms: master.cpu_ms, bytes_in: 0, bytes_out: 0 };
        let track = Track::follow(self.master.take(), counters);
        let master_process = ProcessLoad {
            pid: master.pid,
            cpu_percent: track.cpu_percent,
            resident_bytes: master.resident_bytes,
            uptime_seconds: master.uptime_seconds,
        };
        self.master = Some(track);
        let nodes: Vec<_> = status.nodes.iter().map(|node| self.node(at, node)).collect();
        let operations = self.operations(at, status);
        let sum =
            |of: fn(&NodeMoment) -> Option<f64>| nodes.iter().filter_map(of).reduce(|a, b| a + b);
        let mut clients: Vec<_> = status
            .sessions
            .iter()
            .map(|s| ClientMoment {
                name: s.client.clone(),
                connected: s.connected,
                open_files: s.open_inodes,
            })
            .collect();
        clients.sort_by(|a, b| b.open_files.cmp(&a.open_files).then_with(|| a.name.cmp(&b.name)));
        clients.truncate(CLIENTS);
        ClusterMoment {
            healthy: status.healthy,
            bytes_in_per_second: sum(|n| n.bytes_in_per_second),
            bytes_out_per_second: sum(|n| n.bytes_out_per_second),
            operations_per_second: operations
                .as_ref()
                .map(|all| all.values().fold(0.0, |sum, rate| sum + rate)),
            operations: operations.unwrap_or_default(),
            master_process,
            replicas: status.replicas,
            groups: status.groups,
            degraded_groups: status.degraded_groups.len() as u64,
            groups_not_whole: status.repair.groups_not_whole,
            groups_waiting: status.repair.groups_waiting,
            bytes_to_move: status.repair.bytes_to_move,
            repair_bytes_per_second: status.repair.bytes_per_second,
            repair_eta_seconds: status.repair.eta_seconds,
            safe_mode: status.safe_mode.clone(),
            sessions: status.sessions.len() as u64,
            open_files: status.sessions.iter().map(|s| s.open_inodes).sum(),
            clients,
            files: status.files,
            logical_bytes: status.logical_bytes,
            unique_bytes: status.unique_bytes,
            stored_bytes: status.stored_bytes,
            dedup_ratio: status.dedup_ratio,
            replication_ratio: status.replication_ratio,
            capacity_bytes: nodes.iter().map(|n| n.capacity_bytes).sum(),
            free_bytes: nodes.iter().map(|n| n.free_bytes).sum(),
            nodes,
        }
    }

    fn node(&mut self, at: Instant, node: &NodeReport) -> NodeMoment {
        let silence = Duration::from_millis(node.silent_ms);
        let activity = &node.activity;
        let counters = Counters {
            at: at.checked_sub(silence).unwrap_or(at),
            pid: node.pid,
            cpu_ms: node.cpu_ms,
            bytes_in: activity.bytes_put.saturating_add(activity.bytes_known),
            bytes_out: activity.bytes_got,
        };
        let track = Track::follow(self.nodes.remove(&node.id), counters);
        let heard = silence < SILENCE;
        let moment = NodeMoment {
            name: node.name.clone(),
            state: node.state,
            silent_ms: node.silent_ms,
            process: ProcessLoad {
                pid: node.pid,
                cpu_percent: track.cpu_percent.filter(|_| heard),
                resident_bytes: node.resident_bytes,
                uptime_seconds: node.uptime_seconds,
            },
            bytes_in_per_second: track.bytes_in.filter(|_| heard),
            bytes_out_per_second: track.bytes_out.filter(|_| heard),
            chunks: node.chunks,
            chunk_bytes: node.chunk_bytes,
            capacity_bytes: node.capacity_bytes,
            free_bytes: node.free_bytes,
            failed_disks: node.disks.iter().filter(|d| d.failed).count() as u64,
        };
        self.nodes.insert(node.id.clone(), track);
        moment
    }

    fn operations(&mut self, at: Instant, status: &StatusReport) -> Option<BTreeMap<String, f64>> {
        let done: BTreeMap<_, _> =
            status.operations.iter().map(|o| (o.kind.clone(), o.done)).collect();
        let before = self.operations.replace((at, status.master.pid, done));
        let (_, pid, done) = self.operations.as_ref()?;
        let (since, same_pid, before) = before?;
        if same_pid != *pid {
            return None;
        }
        let mut rates = BTreeMap::new();
        for (kind, now) in done {
            let rate = rate(before.get(kind).copied().unwrap_or(0), *now, at - since)?;
            if rate > 0.0 {
                rates.insert(kind.clone(), rate);
            }
        }
        Some(rates)
    }
}

impl Track {
    /// The rates from what was seen `before` to `now`.
    fn follow(before: Option<Self>, now: Counters) -> Self {
        let Some(before) = before else {
            return Self { counters: now, cpu_percent: None, bytes_in: None, bytes_out: None };
        };
        let time = now.at.saturating_duration_since(before.counters.at);
        if time < SAME_REPORT && now.pid == before.counters.pid {
            return before;
        }
        let same = now.pid == before.counters.pid;
        let between = |from: u64, to: u64| if same { rate(from, to, time) } else { None };
        Self {
            // Milliseconds in a second are tenths of a percent.
            cpu_percent: between(before.counters.cpu_ms, now.cpu_ms).map(|ms| ms / 10.0),
            bytes_in: between(before.counters.bytes_in, now.bytes_in),
            bytes_out: between(before.counters.bytes_out, now.bytes_out),
            counters: now,
        }
    }
}

/// How fast a counter went `from` .. `to`; `None` when it went back or no time passed.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn rate(from: u64, to: u64, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (seconds > 0.0).then_some(())?;
    Some(to.checked_sub(from)? as f64 / seconds)
}

#[cfg(test)]
pub(super) mod tests {
    use cairn_proto::pb;

    use super::*;

    pub(in crate::cli::monitor) fn status(bytes_put: u64, creates: u64, pid: u32) -> StatusReport {
        let node = |name: &str, state: pb::NodeState| pb::NodeStatus {
            node: Some(pb::Node {
                node_id: name.to_owned(),
                host: "127.0.0.1".to_owned(),
                port: 9001,
                weight: 1,
                zone: String::new(),
                state: state.into(),
                name: name.to_owned(),
            }),
            status: Some(pb::NodeStatusResponse {
                pid: 7,
                disks: vec![pb::DiskStatus {
                    path: "/disk".to_owned(),
                    capacity_bytes: 100 << 30,
                    free_bytes: 75 << 30,
                    chunk_bytes: 20 << 30,
                    chunks: 327_680,
                    failed: false,
                    quarantined_bytes: 0,
                }],
                usage: Some(pb::ProcessUsage {
                    cpu_ms: bytes_put / 1000,
                    resident_bytes: 50 << 20,
                }),
                activity: Some(pb::NodeActivity { bytes_put, ..Default::default() }),
                ..Default::default()
            }),
            silent_ms: 0,
        };
        pb::StatusResponse {
            pid,
            uptime_seconds: 3700,
            map: Some(pb::ClusterMap {
                epoch: 3,
                nodes: Vec::new(),
                pg_bits: 10,
                replicas: 2,
                min_replicas: 1,
                compression: None,
            }),
            nodes: vec![node("node1", pb::NodeState::Up), node("node2", pb::NodeState::Down)],
            sessions: vec![pb::SessionStatus {
                session_id: 1,
                client_name: "host:/mnt/cairn".to_owned(),
                connected: true,
                open_inodes: 4,
                idle_ms: 0,
            }],
            files: 1234,
            logical_bytes: 30 << 30,
            referenced_bytes: 30 << 30,
            degraded_groups: vec![1, 2],
            usage: Some(pb::ProcessUsage { cpu_ms: 100, resident_bytes: 40 << 20 }),
            operations: vec![pb::OperationCount {
                kind: "create".to_owned(),
                done: creates,
                failed: 0,
            }],
            ..Default::default()
        }
        .into()
    }

    pub(in crate::cli::monitor) fn look(at: Instant, answer: Result<StatusReport, String>) -> Look {
        Look { at, time: 1_795_358_800.0, answer }
    }

    #[test]
    fn rates_come_from_two_looks_and_a_restart_has_none() {
        let mut model = Model::new("m:1".to_owned());
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let cluster = |moment: &Moment| moment.cluster.clone().unwrap();
        let first = cluster(model.take(look(start, Ok(status(0, 10, 1)))));
        assert_eq!((first.bytes_in_per_second, first.operations_per_second), (None, None));
        let next = cluster(model.take(look(start + second * 2, Ok(status(500_000, 30, 1)))));
        assert_eq!(next.bytes_in_per_second, Some(500_000.0), "both nodes, in two seconds");
        assert_eq!(next.operations, BTreeMap::from([("create".to_owned(), 10.0)]));
        assert_eq!(next.nodes[0].process.cpu_percent, Some(25.0));
        let away = model.take(look(start + second * 3, Err("gone".to_owned())));
        assert!(away.cluster.is_none() && away.error.is_some());
        let restarted = cluster(model.take(look(start + second * 4, Ok(status(600_000, 1, 2)))));
        assert_eq!(restarted.operations_per_second, None);
        assert_eq!(restarted.bytes_in_per_second, Some(100_000.0));
        assert_eq!(model.history.len(), 4);
        assert_eq!(model.history[2], Point::default());
    }

    #[test]
    fn a_report_seen_twice_keeps_its_rates_and_a_silent_node_has_none() {
        let mut model = Model::new("m:1".to_owned());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        model.take(look(at(0), Ok(status(0, 0, 1))));
        model.take(look(at(1000), Ok(status(1000, 0, 1))));
        let mut same = status(1000, 0, 1);
        same.nodes.iter_mut().for_each(|node| node.silent_ms = 500);
        let moment = model.take(look(at(1500), Ok(same)));
        assert_eq!(moment.cluster.as_ref().unwrap().bytes_in_per_second, Some(2000.0));
        let mut silent = status(1000, 0, 1);
        silent.nodes.iter_mut().for_each(|node| node.silent_ms = 9_000);
        let moment = model.take(look(at(10_000), Ok(silent)));
        assert_eq!(moment.cluster.as_ref().unwrap().bytes_in_per_second, None);
    }

    #[test]
    fn history_is_bounded() {
        let mut model = Model::new("m:1".to_owned());
        for _ in 0..2 * HISTORY {
            model.take(look(Instant::now(), Err("gone".to_owned())));
        }
        assert_eq!(model.history.len(), HISTORY);
    }
}
