//! [`Peaks`]: the slowest operation of each of the last seconds, so that "the slowest of late" can be
//! asked for any span without remembering every operation.

use std::time::Duration;

use super::Operation;

/// Seconds that are remembered.
pub(super) const SECONDS: u64 = 64;

#[derive(Clone, Copy, Debug)]
struct Peak {
    second: u64,
    took: Duration,
    operation: Operation,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Peaks {
    /// By second modulo [`SECONDS`]; made with the first operation.
    slots: Vec<Option<Peak>>,
}

impl Peaks {
    /// In `second` an operation ended that took `took`.
    pub(super) fn note(&mut self, second: u64, took: Duration, operation: Operation) {
        if self.slots.is_empty() {
            self.slots = vec![None; SECONDS as usize];
        }
        let slot = &mut self.slots[(second % SECONDS) as usize];
        if slot.is_none_or(|peak| peak.second != second || peak.took < took) {
            *slot = Some(Peak { second, took, operation });
        }
    }

    /// The slowest of the last `span` seconds before and including `second`.
    pub(super) fn worst(&self, second: u64, span: u64) -> Option<(Operation, Duration)> {
        let recent = |peak: &&Peak| peak.second <= second && second - peak.second < span;
        let worst = self.slots.iter().flatten().filter(recent).max_by_key(|peak| peak.took);
        worst.map(|peak| (peak.operation, peak.took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_of_late_counts() {
        let mut peaks = Peaks::default();
        assert_eq!(peaks.worst(0, 10), None);
        let ms = Duration::from_millis;
        peaks.note(10, ms(500), Operation::Read);
        peaks.note(12, ms(7), Operation::Write);
        peaks.note(12, ms(3), Operation::Read);
        assert_eq!(peaks.worst(12, 1), Some((Operation::Write, ms(7))));
        assert_eq!(peaks.worst(12, 3), Some((Operation::Read, ms(500))));
        assert_eq!(peaks.worst(13, 1), None);
        peaks.note(10 + SECONDS, ms(1), Operation::Open);
        assert_eq!(peaks.worst(10 + SECONDS, SECONDS), Some((Operation::Write, ms(7))));
    }
}
