//! [`Expectations`]: how much of a node's chunks a sweep may quarantine before a person has to agree.
//!
//! What can have become garbage since the last complete cycle: what files refer to no more, and what the
//! node holds beyond what was referred to then. A mark that lost a part of the namespace, in spite of the
//! usage counters, shows as more than that.

use std::collections::HashMap;

use cairn_proto::NodeId;

/// Always allowed.
const SLACK_BYTES: u64 = 1 << 30;

/// See the module.
#[derive(Debug)]
pub(crate) struct Expectations {
    /// Quarantines from this epoch on are trusted: no cycle since has failed its checks.
    pub(crate) erase_from: u64,
    /// Bytes that files referred to in the last complete cycle.
    referenced: Option<u64>,
    /// By node: bytes that were referred to there.
    live: HashMap<NodeId, u64>,
}

impl Expectations {
    /// Of a master that has just started; nothing before `epoch` is trusted.
    pub(crate) fn since(epoch: u64) -> Self {
        Self { erase_from: epoch, referenced: None, live: HashMap::new() }
    }

    /// Bytes that a node may quarantine which holds `stored`, when files refer to `referenced` bytes now
    /// and referred to `before` when a cycle was last complete, as far as this master remembers.
    pub(crate) fn limit(&self, node: NodeId, stored: u64, referenced: u64, before: u64) -> u64 {
        let before = self.referenced.unwrap_or(before);
        // A master that has just started does not know what the node held for whom.
        let live = self.live.get(&node).copied().unwrap_or(stored / 2);
        let freed = before.saturating_sub(referenced);
        let unknown = stored.saturating_sub(live);
        freed.saturating_add(unknown).saturating_add(SLACK_BYTES.max(stored / 4))
    }

    /// A cycle has swept these nodes completely.
    pub(crate) fn complete(&mut self, referenced: u64, live: impl Iterator<Item = (NodeId, u64)>) {
        self.referenced = Some(referenced);
        self.live.extend(live);
    }

    /// The cycle of `epoch` was stopped: what it has quarantined is not to be erased.
    pub(crate) fn distrust(&mut self, epoch: u64) {
        self.erase_from = self.erase_from.max(epoch + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIB: u64 = 1 << 40;

    #[test]
    fn what_was_deleted_or_never_committed_may_go_and_a_lost_namespace_may_not() {
        let node = NodeId("6a1f0e9c-3b1d-4f43-9a0e-2b6a4f0c9d11".parse().unwrap());
        let mut expected = Expectations::since(3);
        // Started with metadata that is empty, on a node that is full.
        assert!(expected.limit(node, TIB, 0, 0) < TIB * 9 / 10);
        // Everything was deleted before the start.
        assert!(expected.limit(node, TIB, 0, TIB) >= TIB);
        expected.complete(TIB / 2, [(node, TIB / 2)].into_iter());
        // Deleted, or put and not committed, or written over.
        assert!(expected.limit(node, TIB / 2, 0, 0) >= TIB / 2);
        assert!(expected.limit(node, TIB, TIB / 2, 0) >= TIB / 2);
        // The counters say that nothing was deleted.
        assert!(expected.limit(node, TIB / 2, TIB / 2, 0) < TIB / 4);
        assert!(expected.limit(node, 1 << 20, 1 << 20, 0) >= 1 << 20, "small stores are let be");
        expected.distrust(9);
        assert_eq!(expected.erase_from, 10);
    }
}
