//! The high-water mark: says no before the disk is full.
//!
//! A full file system would fail in the middle of a write and leave no room to compact or to write the
//! index. So a put is refused while it would take the free room below the reserve; reads go on, and
//! puts work again as soon as there is room, since the room is asked for each time.

use crate::disk::Space;

/// Default upper bound of the reserve.
const RESERVE_MAX: u64 = 1024 * 1024 * 1024;

/// The reserve when none is configured: 1 GiB or 5 % of the disk, the smaller.
pub const fn default_reserve(capacity: u64) -> u64 {
    let share = capacity / 20;
    if share < RESERVE_MAX { share } else { RESERVE_MAX }
}

/// Bytes that may still be put: `allocated` are taken from the file system already, but unused.
pub const fn room(space: Space, allocated: u64, reserve: u64) -> u64 {
    space.free.saturating_add(allocated).saturating_sub(reserve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept() {
        let space = Space { capacity: 1000, free: 100 };
        assert_eq!(room(space, 20, 50), 70);
        assert_eq!(room(space, 0, 101), 0);
        assert_eq!(room(space, 0, u64::MAX), 0);
        assert_eq!(default_reserve(1000), 50);
        assert_eq!(default_reserve(1 << 50), RESERVE_MAX);
    }
}
