//! What daemons take of the machine, while they are used and when they are left alone.

use std::fs;

use crate::daemon::peak_rss;

/// Resident bytes that no daemon may ever need here: its caches are bounded, and so is the rest.
const MEMORY: u64 = 900 << 20;
/// Open descriptors that no daemon may ever need here.
const DESCRIPTORS: usize = 600;

/// What a process takes.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The most bytes that were resident.
    pub memory: u64,
    /// Open descriptors now.
    pub descriptors: usize,
}

/// What process `id` takes; nothing when it is gone.
pub fn taken(id: u32) -> Option<Taken> {
    let descriptors = fs::read_dir(format!("/proc/{id}/fd")).ok()?.count();
    Some(Taken { memory: peak_rss(id)?, descriptors })
}

/// What is wrong with it.
pub fn complaint(name: &str, taken: Taken) -> Option<String> {
    let Taken { memory, descriptors } = taken;
    (memory > MEMORY || descriptors > DESCRIPTORS)
        .then(|| format!("{name} has taken {} MiB and {descriptors} descriptors", memory >> 20))
}
