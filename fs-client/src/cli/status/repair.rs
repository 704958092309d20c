//! How far the copies are where they belong: a part of `status`, and all of `rebalance status`.

use cairn_proto::pb;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::units;

/// How far the copies are where they belong. A group is whole when every node that should have its chunks
/// has all that any node has.
#[derive(Clone, Serialize, JsonSchema)]
pub struct RepairReport {
    /// The nodes have been compared since the master started; otherwise the numbers mean nothing.
    pub known: bool,
    /// Groups of which a node that can be reached lacks chunks.
    pub groups_not_whole: u32,
    /// Groups one of whose nodes cannot be reached, or that have too few nodes.
    pub groups_waiting: u32,
    /// Groups that are whole and are also on a node where they do not belong any more.
    pub groups_to_drop: u32,
    /// Estimate of the bytes still to be copied.
    pub bytes_to_move: u64,
    /// Estimate of the chunks still to be copied.
    pub chunks_to_move: u64,
    /// Bytes copied since the master started.
    pub bytes_moved: u64,
    /// Chunks copied since the master started.
    pub chunks_moved: u64,
    /// Bytes of copies given up since the master started, because they are where they belong.
    pub bytes_dropped: u64,
    /// Chunks given up since the master started.
    pub chunks_dropped: u64,
    /// Bytes copied a second, over the last seconds.
    pub bytes_per_second: u64,
    /// Seconds until everything is copied at this speed; 0: nothing to copy, or no telling.
    pub eta_seconds: u64,
    /// Copyings that run now.
    pub pulls: u32,
    /// What went wrong within the last minute; empty: nothing.
    pub problem: String,
    /// What each node holds and what is on its way.
    pub nodes: Vec<ShareReport>,
}

/// What a node holds and what is on its way to or from it.
#[derive(Clone, Serialize, JsonSchema)]
pub struct ShareReport {
    /// UUID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Chunks that it holds; garbage and damaged ones are not counted.
    pub chunks: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Estimate of the bytes that it still gets.
    pub bytes_to_get: u64,
    /// Chunks that do not belong there any more.
    pub chunks_to_give: u64,
    /// Bytes of these.
    pub bytes_to_give: u64,
}

impl RepairReport {
    pub(super) fn new(repair: pb::RepairStatus, name: impl Fn(&str) -> String) -> Self {
        let share = |share: pb::NodeShare| ShareReport {
            name: name(&share.node_id),
            id: share.node_id,
            chunks: share.chunks,
            bytes: share.bytes,
            bytes_to_get: share.bytes_to_get,
            chunks_to_give: share.chunks_to_give,
            bytes_to_give: share.bytes_to_give,
        };
        Self {
            known: repair.known,
            groups_not_whole: repair.groups_not_whole,
            groups_waiting: repair.groups_waiting,
            groups_to_drop: repair.groups_to_drop,
            bytes_to_move: repair.bytes_to_move,
            chunks_to_move: repair.chunks_to_move,
            bytes_moved: repair.bytes_moved,
            chunks_moved: repair.chunks_moved,
            bytes_dropped: repair.bytes_dropped,
            chunks_dropped: repair.chunks_dropped,
            bytes_per_second: repair.bytes_per_second,
            eta_seconds: repair.eta_seconds,
            pulls: repair.pulls,
            problem: repair.problem,
            nodes: repair.nodes.into_iter().map(share).collect(),
        }
    }

    /// Whether every group is whole and nothing waits.
    pub fn is_done(&self) -> bool {
        self.groups_not_whole == 0 && self.groups_waiting == 0
    }

    /// What a node holds.
    pub fn share(&self, id: &str) -> Option<&ShareReport> {
        self.nodes.iter().find(|share| share.id == id)
    }

    /// What is not as it should be.
    pub fn complaints(&self, groups: u32) -> Vec<String> {
        let mut ill = Vec::new();
        if self.groups_not_whole > 0 {
            ill.push(format!("{} of {groups} groups lack copies", self.groups_not_whole));
        }
        if self.groups_waiting > 0 {
            ill.push(format!(
                "{} of {groups} groups wait for a node that is away",
                self.groups_waiting
            ));
        }
        ill
    }

    /// What is being done; `None` when there is nothing to do.
    pub fn line(&self) -> Option<String> {
        let mut words = Vec::new();
        if self.bytes_to_move > 0 || self.groups_not_whole > 0 {
            words.push(format!("{} to copy", units::bytes(self.bytes_to_move)));
        }
        if self.bytes_per_second > 0 {
            words.push(format!("{}/s", units::bytes(self.bytes_per_second)));
        }
        if self.eta_seconds > 0 {
            words.push(format!("about {} left", units::seconds(self.eta_seconds)));
        }
        if self.groups_to_drop > 0 {
            let groups = u64::from(self.groups_to_drop);
            words.push(format!(
                "{} to be dropped where they do not belong",
                units::plural(groups, "group")
            ));
        }
        if !self.problem.is_empty() {
            words.push(self.problem.clone());
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}
