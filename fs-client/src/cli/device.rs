//! Device numbers: the local system's form to and from the 32-bit form that FUSE and the master keep.

use rustix::fs::{Dev, major, makedev, minor};

/// 12 bits of major, 20 bits of minor, as the kernel packs them.
pub(super) fn pack(device: Dev) -> u32 {
    let (major, minor) = (major(device), minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inverse of [`pack`].
pub(super) fn unpack(packed: u32) -> Dev {
    makedev((packed >> 8) & 0xfff, (packed & 0xff) | ((packed >> 12) & 0xfff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_each_others_inverse() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (8, 256), (259, 0xfffff), (4095, 70_000)] {
            let device = makedev(major, minor);
            assert_eq!(unpack(pack(device)), device, "{major}:{minor}");
        }
        assert_eq!(pack(makedev(1, 3)), 0x103);
    }
}
