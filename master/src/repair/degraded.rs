//! Groups that were written to fewer nodes than wanted, until they are whole again.
//!
//! The one copy of such a write may be on a node that has died since. So a group stays degraded while a node
//! cannot be reached that could at the time: its *witnesses*. Who was away already for [`LAG`] when the master
//! was told of the write cannot have got it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cairn_proto::NodeId;

/// The longest that is thought to pass between the write of a chunk and the master's hearing of it.
pub(super) const LAG: Duration = Duration::from_secs(60);

/// Who may have the only copy of something of a group.
pub(super) type Witnesses = BTreeMap<u32, BTreeSet<NodeId>>;

#[derive(Debug)]
struct Entry {
    mark: u64,
    witnesses: BTreeSet<NodeId>,
}

/// All degraded groups.
#[derive(Debug, Default)]
pub(super) struct Degraded {
    groups: BTreeMap<u32, Entry>,
}

impl Degraded {
    /// Takes over what the namespace says. `alive` are the nodes that can have been written to. Returns the
    /// groups that were noted since the last call: whatever is known of them is from before.
    pub(super) fn take(
        &mut self,
        marks: &BTreeMap<u32, u64>,
        alive: &BTreeSet<NodeId>,
    ) -> Vec<u32> {
        self.groups.retain(|group, _| marks.contains_key(group));
        let mut noted = Vec::new();
        for (group, mark) in marks {
            let entry = self.groups.get(group);
            if entry.is_some_and(|entry| entry.mark == *mark) {
                continue;
            }
            let mut witnesses = alive.clone();
            witnesses.extend(entry.iter().flat_map(|entry| &entry.witnesses));
            self.groups.insert(*group, Entry { mark: *mark, witnesses });
            noted.push(*group);
        }
        noted
    }

    /// Every group, and whether all its witnesses that still belong to the cluster can be reached.
    pub(super) fn witnessed(
        &self,
        members: &BTreeSet<NodeId>,
        reachable: &BTreeSet<NodeId>,
    ) -> BTreeMap<u32, bool> {
        let all = |entry: &Entry| {
            entry.witnesses.iter().all(|id| reachable.contains(id) || !members.contains(id))
        };
        self.groups.iter().map(|(group, entry)| (*group, all(entry))).collect()
    }

    /// The mark under which a group is known.
    pub(super) fn mark(&self, group: u32) -> Option<u64> {
        self.groups.get(&group).map(|entry| entry.mark)
    }

    pub(super) fn witnesses(&self) -> Witnesses {
        self.groups.iter().map(|(group, entry)| (*group, entry.witnesses.clone())).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn ids(numbers: &[u128]) -> BTreeSet<NodeId> {
        numbers.iter().map(|n| NodeId(Uuid::from_u128(*n))).collect()
    }

    #[test]
    fn a_group_waits_for_whoever_may_have_its_only_copy() {
        let mut degraded = Degraded::default();
        let marks = BTreeMap::from([(3, 1), (4, 2)]);
        assert_eq!(degraded.take(&marks, &ids(&[1])), [3, 4]);
        assert!(degraded.take(&marks, &ids(&[1, 2])).is_empty(), "nothing new");
        let all = ids(&[1, 2, 3]);
        assert!(degraded.witnessed(&all, &ids(&[1, 3]))[&3]);
        assert!(!degraded.witnessed(&all, &ids(&[2, 3]))[&3]);
        assert!(degraded.witnessed(&ids(&[2, 3]), &ids(&[2, 3]))[&3], "1 was removed");
        let again = BTreeMap::from([(3, 5)]);
        assert_eq!(degraded.take(&again, &ids(&[2])), [3]);
        assert_eq!(degraded.mark(3), Some(5));
        assert_eq!(degraded.mark(4), None);
        assert!(!degraded.witnessed(&all, &ids(&[2, 3]))[&3], "1 may have the first");
    }
}
