//! Verify: reads every chunk again and compares its hash with its id.

use cairn_proto::{ChunkError, ChunkId};

use super::{Store, Volume};

const PAGE: usize = 512;

/// One chunk was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which.
    pub id: ChunkId,
    /// Length of its data.
    pub len: u32,
    /// What was found.
    pub result: Result<(), ChunkError>,
}

impl Store {
    /// Number of copies that [`Store::verify`] will look at, if nothing changes meanwhile.
    pub fn copies(&self) -> u64 {
        self.volumes.iter().map(|v| v.totals().chunks).sum()
    }

    /// Looks at every copy of every chunk and tells `report`; ends early when that says false. Blocks
    /// for as long as the disks take.
    ///
    /// # Errors
    /// `DiskFailed` when an index cannot be read.
    pub fn verify(&self, mut report: impl FnMut(Checked) -> bool) -> Result<(), ChunkError> {
        for volume in &self.volumes {
            if !verify_volume(volume, &mut report)? {
                break;
            }
        }
        Ok(())
    }
}

fn verify_volume(
    volume: &Volume,
    report: &mut impl FnMut(Checked) -> bool,
) -> Result<bool, ChunkError> {
    let mut after = None;
    loop {
        let mut page = volume.page(after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(true) };
        after = Some(*last);
        // Disks like order.
        page.sort_unstable_by_key(|(_, entry)| entry.at);
        for (id, entry) in page {
            let result = match volume.read_verified(&id) {
                // Collected, or dropped, since the page was read.
                Err(ChunkError::NotFound) => continue,
                read => read.map(|_| ()),
            };
            if !report(Checked { id, len: entry.at.len, result }) {
                return Ok(false);
            }
        }
    }
}
