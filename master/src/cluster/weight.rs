//! How much of the data a node shall hold: its capacity, but not every little change of that.

use cairn_proto::pb;

use crate::nodes::probe::Health;

const GIB: u64 = 1 << 30;

/// The weight for what the node says about its disks: GiB of capacity, at least 1. Differences of
/// less than an eighth are ignored, because every change of a weight moves data; so is a node without
/// any disk that works, because what it holds stays where it is looked for.
pub(super) fn weight(before: u32, status: Option<&pb::NodeStatusResponse>) -> u32 {
    let Some(status) = status.filter(|status| Health::of(status) != Health::Broken) else {
        return before.max(1);
    };
    let capacity = status
        .disks
        .iter()
        .filter(|d| !d.failed)
        .fold(0u64, |sum, d| sum.saturating_add(d.capacity_bytes));
    let fresh = u32::try_from(capacity / GIB).unwrap_or(u32::MAX).clamp(1, 1 << 20);
    if before > 0 && fresh.abs_diff(before) < (before / 8).max(1) { before } else { fresh }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(gib: u64) -> Option<pb::NodeStatusResponse> {
        let disk = pb::DiskStatus { capacity_bytes: gib * GIB, ..Default::default() };
        Some(pb::NodeStatusResponse { disks: vec![disk], ..Default::default() })
    }

    #[test]
    fn small_changes_of_capacity_do_not_move_data() {
        assert_eq!(weight(0, disks(0).as_ref()), 1);
        assert_eq!(weight(100, disks(110).as_ref()), 100);
        assert_eq!(weight(100, disks(150).as_ref()), 150);
        assert_eq!(weight(1, disks(2).as_ref()), 2);
        assert_eq!(weight(7, None), 7);
    }
}
