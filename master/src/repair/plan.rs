//! Which pulls begin now: the most urgent first, so many at once, and not too many into one node.

use std::collections::{BTreeSet, HashMap};

use cairn_proto::NodeId;

use super::assess::Need;

/// Pulls into one node at once.
const PER_TARGET: usize = 2;
/// Groups of one pull.
const GROUPS: usize = 64;
/// Bytes of one pull, as far as they can be told beforehand: what is more urgent need not wait long.
const BYTES: u64 = 128 << 20;

/// One pull: these groups into that node.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) target: NodeId,
    pub(super) needs: Vec<Need>,
}

impl Job {
    /// Everybody who holds something of it.
    pub(super) fn sources(&self) -> BTreeSet<NodeId> {
        self.needs.iter().flat_map(|need| need.sources.iter().map(|(node, _)| *node)).collect()
    }
}

/// Makes at most `slots` pulls of `needs`, which are in the order of urgency. `running` says how many
/// pulls each node has already.
pub(super) fn jobs(needs: Vec<Need>, running: &HashMap<NodeId, usize>, slots: usize) -> Vec<Job> {
    let mut running = running.clone();
    let mut jobs: Vec<Job> = Vec::new();
    for need in needs {
        let open = jobs.iter_mut().find(|job| job.takes(&need));
        if let Some(job) = open {
            job.needs.push(need);
            continue;
        }
        let on_target = running.entry(need.home).or_default();
        if jobs.len() < slots && *on_target < PER_TARGET {
            *on_target += 1;
            jobs.push(Job { target: need.home, needs: vec![need] });
        }
    }
    jobs
}

impl Job {
    /// Whether `need` is as urgent and there is room for it.
    fn takes(&self, need: &Need) -> bool {
        let bytes: u64 = self.needs.iter().map(|n| n.bytes).sum();
        let alike = self.needs.first().is_some_and(|first| {
            (first.copies, first.degraded) == (need.copies, need.degraded) && !first.failed
        });
        self.target == need.home
            && alike
            && !need.failed
            && self.needs.len() < GROUPS
            && bytes.saturating_add(need.bytes) <= BYTES
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> NodeId {
        NodeId(Uuid::from_u128(number))
    }

    fn need(group: u32, home: u128, copies: usize) -> Need {
        Need {
            group,
            home: id(home),
            copies,
            degraded: false,
            failed: false,
            has: 0,
            sources: vec![(id(9), super::super::digests::Digest::default())],
            bytes: 1 << 20,
        }
    }

    fn groups(job: &Job) -> Vec<u32> {
        job.needs.iter().map(|need| need.group).collect()
    }

    #[test]
    fn what_is_as_urgent_goes_together_and_nothing_else() {
        let needs = vec![need(1, 1, 1), need(2, 2, 1), need(3, 1, 1), need(4, 1, 2)];
        let jobs = jobs(needs, &HashMap::new(), 4);
        let all: Vec<_> = jobs.iter().map(groups).collect();
        assert_eq!(all, [vec![1, 3], vec![2], vec![4]]);
        assert_eq!(jobs[0].sources(), BTreeSet::from([id(9)]));
    }

    #[test]
    fn slots_targets_and_sizes_are_bounded() {
        let many: Vec<_> = (0..1000).map(|group| need(group, 1, 1)).collect();
        let running = HashMap::from([(id(1), 1)]);
        let one = jobs(many.clone(), &running, 8);
        assert_eq!(one.len(), 1, "one pull is running already");
        assert_eq!(one[0].needs.len(), GROUPS);
        assert_eq!(jobs(many, &HashMap::new(), 1).len(), 1);
        let large: Vec<_> =
            (0..4).map(|group| Need { bytes: BYTES, ..need(group, 1, 1) }).collect();
        assert_eq!(jobs(large, &HashMap::new(), 8).len(), PER_TARGET);
        let failed = vec![Need { failed: true, ..need(1, 1, 1) }, need(2, 1, 1)];
        assert_eq!(jobs(failed, &HashMap::new(), 8).len(), 2, "a failure does not hold up others");
    }
}
