//! What a store does for scrub: reads a few chunks again, and remembers how far each disk is.
//!
//! The pace, and when a pass begins, is the business of [`crate::scrub`].

use std::sync::atomic::{AtomicU64, Ordering};

use cairn_proto::{ChunkError, ChunkId, pb};

use super::{Store, Volume};

/// How far a disk is. Stored in its index, so that a restart goes on where the last run was.
///
/// ```text
/// version u8 = 1, running u8, has cursor u8, cursor 32 bytes,
/// checked u64, bytes u64, total u64, damaged u64, passes u64, started u64, finished u64 (little-endian)
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// A pass has begun and is not at its end.
    pub running: bool,
    /// Everything up to here has been read.
    pub cursor: Option<ChunkId>,
    /// Chunks read.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks that there were when it began.
    pub total: u64,
    /// Chunks whose bytes were wrong.
    pub damaged: u64,
    /// Passes that came to their end.
    pub passes: u64,
    /// When it began, in seconds since 1970; 0: never.
    pub started: u64,
    /// When the last that was finished was; 0: none was.
    pub finished: u64,
}

const VERSION: u8 = 1;
const LEN: usize = 3 + 32 + 7 * 8;

impl Pass {
    /// As it is stored.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[0] = VERSION;
        out[1] = u8::from(self.running);
        if let Some(cursor) = &self.cursor {
            out[2] = 1;
            out[3..35].copy_from_slice(cursor.as_bytes());
        }
        let numbers = [
            self.checked,
            self.bytes,
            self.total,
            self.damaged,
            self.passes,
            self.started,
            self.finished,
        ];
        for (place, number) in out[35..].as_chunks_mut().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        out
    }

    /// What was stored; `None` when this release cannot read it: then everything is read again.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = value.try_into().ok().filter(|v: &&[u8; LEN]| v[0] == VERSION)?;
        let number = |n: usize| {
            let at = 35 + 8 * n;
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
        };
        let cursor = match bytes[2] {
            0 => None,
            _ => Some(ChunkId::try_from(&bytes[3..35]).ok()?),
        };
        Some(Self {
            running: bytes[1] != 0,
            cursor,
            checked: number(0),
            bytes: number(1),
            total: number(2),
            damaged: number(3),
            passes: number(4),
            started: number(5),
            finished: number(6),
        })
    }
}

/// What scrub has done since the node started, on all disks.
#[derive(Debug, Default)]
pub struct ScrubActivity {
    checked: AtomicU64,
    bytes: AtomicU64,
    damaged: AtomicU64,
}

impl ScrubActivity {
    /// Chunks read, their bytes, and how many were wrong.
    pub fn now(&self) -> (u64, u64, u64) {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (load(&self.checked), load(&self.bytes), load(&self.damaged))
    }
}

impl Store {
    /// Number of its disks.
    pub fn disks(&self) -> usize {
        self.volumes.len()
    }

    /// How far disk `n` is, and how many bytes it has; `None` when it has failed.
    pub fn pass(&self, n: usize) -> Option<(Pass, u64)> {
        let volume = self.volumes.get(n).filter(|v| !v.has_failed())?;
        Some((volume.pass(), volume.totals().bytes))
    }

    /// Disk `n` is this far. Blocks; `durable`: also after a crash of the node's process.
    pub fn set_pass(&self, n: usize, pass: Pass, durable: bool) {
        if let Some(volume) = self.volumes.get(n)
            && let Err(e) = volume.set_pass(pass, durable)
        {
            tracing::debug!(disk = n, "cannot store how far scrub is: {e}");
        }
    }

    /// A new pass of disk `n`, from its beginning.
    pub fn new_pass(&self, n: usize, now: u64) -> Option<Pass> {
        let volume = self.volumes.get(n)?;
        let Pass { passes, finished, .. } = volume.pass();
        let total = volume.totals().chunks;
        Some(Pass { running: true, total, passes, finished, started: now, ..Pass::default() })
    }

    /// Reads up to `chunks` more chunks of disk `n`; `None` when that was all. What is damaged is noted,
    /// or taken out when another disk here has it. Blocks.
    ///
    /// # Errors
    /// `DiskFailed` when the index cannot be read.
    pub fn scrub_some(
        &self,
        n: usize,
        mut pass: Pass,
        chunks: usize,
    ) -> Result<Option<Pass>, ChunkError> {
        let volume = self.volumes.get(n).ok_or(ChunkError::DiskFailed)?;
        let mut page = volume.page(pass.cursor.as_ref(), chunks)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        pass.cursor = Some(*last);
        // Disks like order.
        page.sort_unstable_by_key(|(_, entry)| entry.at);
        for (id, entry) in page {
            pass.checked += 1;
            pass.bytes += u64::from(entry.at.len);
            if volume.read_verified(&id) == Err(ChunkError::Damaged) {
                pass.damaged += 1;
                self.scrubbed.damaged.fetch_add(1, Ordering::Relaxed);
                self.drop_damaged(&[id]);
            }
            self.scrubbed.checked.fetch_add(1, Ordering::Relaxed);
            self.scrubbed.bytes.fetch_add(u64::from(entry.at.len), Ordering::Relaxed);
        }
        Ok(Some(pass))
    }

    /// What scrub has done since the node started.
    pub fn scrubbed(&self) -> &ScrubActivity {
        &self.scrubbed
    }

    /// All disks together.
    pub fn scrub_status(&self) -> pb::ScrubStatus {
        let passes: Vec<Pass> =
            self.volumes.iter().filter(|v| !v.has_failed()).map(Volume::pass).collect();
        let sum = |of: fn(&Pass) -> u64| passes.iter().map(of).sum();
        let least = |of: fn(&Pass) -> u64| passes.iter().map(of).min().unwrap_or(0);
        pb::ScrubStatus {
            running: passes.iter().any(|p| p.running),
            chunks_checked: sum(|p| p.checked),
            bytes_checked: sum(|p| p.bytes),
            chunks_total: sum(|p| p.total),
            damaged_found: sum(|p| p.damaged),
            passes: least(|p| p.passes),
            started_unix: passes.iter().map(|p| p.started).max().unwrap_or(0),
            finished_unix: least(|p| p.finished),
        }
    }
}

impl Volume {
    /// How far scrub is.
    pub fn pass(&self) -> Pass {
        *self.pass.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set_pass(&self, pass: Pass, durable: bool) -> Result<(), ChunkError> {
        *self.pass.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = pass;
        // It can wait for room.
        if !durable || self.index_room().is_err() {
            return Ok(());
        }
        let stored = self.core()?.index.store_scrub(&pass.encode());
        stored.map_err(|e| self.index_failed(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        segment::{SegmentId, format::HEADER_LEN},
        store::tests::{Rig, assert_all, put_all},
    };

    #[test]
    fn a_pass_is_stored_and_read() {
        let pass = Pass {
            running: true,
            cursor: Some(ChunkId::of(b"x")),
            checked: 1,
            bytes: 2,
            total: 3,
            damaged: 4,
            passes: 5,
            started: 6,
            finished: 7,
        };
        assert_eq!(Pass::decode(&pass.encode()), Some(pass));
        assert_eq!(Pass::decode(&Pass::default().encode()), Some(Pass::default()));
        let mut newer = pass.encode();
        newer[0] = 2;
        assert_eq!(Pass::decode(&newer), None);
        assert_eq!(Pass::decode(&[]), None);
    }

    #[tokio::test]
    async fn everything_is_read_once_and_a_restart_goes_on() {
        let mut rig = Rig::new(1);
        put_all(rig.store(), 0..100).await;
        rig.disks[0].flip_bit(&SegmentId(1).file_name(), HEADER_LEN as usize + 64);
        let mut pass = rig.store().new_pass(0, 1000).unwrap();
        for _ in 0..4 {
            pass = rig.store().scrub_some(0, pass, 16).unwrap().unwrap();
        }
        rig.store().set_pass(0, pass, true);
        rig.reopen().await;
        let (mut now, _) = rig.store().pass(0).unwrap();
        assert_eq!((now, now.checked), (pass, 64));
        while let Some(next) = rig.store().scrub_some(0, now, 16).unwrap() {
            now = next;
        }
        assert_eq!((now.checked, now.total, now.damaged), (100, 100, 1));
        assert_eq!(rig.store().damaged(), 1);
        put_all(rig.store(), 0..100).await;
        assert_eq!(rig.store().damaged(), 0);
        assert_all(rig.store(), 0..100).await;
    }
}
