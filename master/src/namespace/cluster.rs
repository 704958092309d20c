//! What the namespace keeps for the cluster: nodes, map epochs, degraded groups, capacity.

use bytes::Bytes;
use cairn_proto::{Node, NodeId, pb};
use prost::Message;

use super::Namespace;
use crate::{
    engine::EngineError,
    tables::{
        keys::{self, Table},
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

    /// Placement groups that were written to fewer nodes than wanted (commits add them).
    pub fn degraded_groups(&self) -> Vec<u32> {
        self.degraded.iter().copied().collect()
    }

    /// How many they are.
    pub fn degraded_count(&self) -> usize {
        self.degraded.len()
    }

    pub(super) fn load_degraded(&mut self) -> Result<(), EngineError> {
        let rows = self.group.rows(&Table::Degraded.all(), usize::MAX)?;
        let group =
            |(key, _): &(Bytes, Bytes)| keys::group(key).ok_or_else(|| source::bad_key(key));
        self.degraded = rows.iter().map(group).collect::<Result<_, _>>()?;
        Ok(())
    }

    pub(super) fn add_degraded(&mut self, group: u32) {
        if self.degraded.insert(group) {
            self.group.put(keys::degraded(group), Bytes::new());
        }
    }

    /// Takes a group off that list, in the pending group.
    pub fn clear_degraded(&mut self, group: u32) {
        if self.degraded.remove(&group) {
            self.group.delete(keys::degraded(group));
        }
    }
}
