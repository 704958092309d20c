//! What the namespace keeps for the cluster: nodes, map epochs, decisions, degraded groups, capacity.
//!
//! Each time that a group is noted as degraded it gets a new mark, in memory only. Who has seen to a group
//! gives back the mark that he saw, so that what was noted meanwhile stays noted.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_proto::{Node, NodeId, pb};
use prost::Message;

use super::Namespace;
use crate::{
    engine::EngineError,
    tables::{
        keys::{self, Table},
        rows::ClusterRow,
        source,
    },
};

/// Rows read at once; there are at most a few thousand nodes.
const PAGE: usize = 4096;

impl Namespace {
    /// A map epoch greater than any before. Synced before it returns.
    pub fn next_map_epoch(&mut self) -> Result<u64, EngineError> {
        self.ids.map_epoch(self.group.engine().as_ref())
    }

    /// What `StatFs` shall answer: capacity and free bytes of the nodes, divided by the replicas.
    pub fn set_capacity(&mut self, total_bytes: u64, free_bytes: u64) {
        self.capacity = (total_bytes, free_bytes);
    }

    /// The storage nodes that were ever stored, with the state they were stored with.
    pub fn nodes(&self) -> Result<Vec<Node>, EngineError> {
        let rows = self.group.rows(&Table::Nodes.all(), PAGE)?;
        let node = |(key, value): (Bytes, Bytes)| {
            let row: pb::Node = source::decode(&key, value)?;
            Node::try_from(&row)
                .map_err(|error| EngineError::Damaged(format!("a stored node: {error}")))
        };
        rows.into_iter().map(node).collect()
    }

    /// Stores or replaces a storage node, in the pending group.
    pub fn put_node(&mut self, node: &Node) {
        self.group.put(keys::node(node.id), pb::Node::from(node).encode_to_vec().into());
    }

    /// Forgets a storage node, in the pending group.
    pub fn remove_node(&mut self, id: NodeId) {
        self.group.delete(keys::node(id));
    }

    /// What people decided about the cluster; the default when they have not.
    pub fn cluster_row(&self) -> Result<ClusterRow, EngineError> {
        match self.group.engine().get(&keys::cluster())? {
            Some(value) => source::decode(&keys::cluster(), value),
            None => Ok(ClusterRow::default()),
        }
    }

    /// Stores what people decided about the cluster, in the pending group.
    pub fn put_cluster_row(&mut self, row: &ClusterRow) {
        self.group.put(keys::cluster(), row.encode_to_vec().into());
    }

    /// Placement groups that were written to fewer nodes than wanted (commits add them).
    pub fn degraded_groups(&self) -> Vec<u32> {
        self.degraded.keys().copied().collect()
    }

    /// The same with the mark of when each was noted last.
    pub fn degraded_marks(&self) -> BTreeMap<u32, u64> {
        self.degraded.clone()
    }

    /// How many they are.
    pub fn degraded_count(&self) -> usize {
        self.degraded.len()
    }

    pub(super) fn load_degraded(&mut self) -> Result<(), EngineError> {
        let rows = self.group.rows(&Table::Degraded.all(), usize::MAX)?;
        let marked = |(key, _): &(Bytes, Bytes)| {
            let group = keys::group(key).ok_or_else(|| source::bad_key(key))?;
            Ok((group, self.degraded.get(&group).copied().unwrap_or(0)))
        };
        self.degraded = rows.iter().map(marked).collect::<Result<_, EngineError>>()?;
        Ok(())
    }

    pub(super) fn add_degraded(&mut self, group: u32) {
        self.degraded_mark += 1;
        if self.degraded.insert(group, self.degraded_mark).is_none() {
            self.group.put(keys::degraded(group), Bytes::new());
        }
    }

    /// Takes a group off that list, in the pending group, unless it was noted again after `mark`.
    pub fn clear_degraded(&mut self, group: u32, mark: u64) {
        if self.degraded.get(&group).is_some_and(|noted| *noted <= mark) {
            self.degraded.remove(&group);
            self.group.delete(keys::degraded(group));
        }
    }
}
