//! The bytes of entries and totals. No other file knows them.

use fjall::Slice;

use super::{Entry, IndexError, Totals};
use crate::segment::{Location, SegmentId};

const ENTRY_VERSION: u8 = 1;
const ENTRY_LEN: usize = 29;
const QUARANTINED_VERSION: u8 = 2;
const QUARANTINED_LEN: usize = ENTRY_LEN + 8;

pub(super) fn encode_entry(entry: &Entry) -> Slice {
    let mut out = [0; QUARANTINED_LEN];
    out[0] = ENTRY_VERSION;
    out[1..9].copy_from_slice(&entry.at.segment.0.to_le_bytes());
    out[9..17].copy_from_slice(&entry.at.offset.to_le_bytes());
    out[17..21].copy_from_slice(&entry.at.len.to_le_bytes());
    out[21..29].copy_from_slice(&entry.epoch.to_le_bytes());
    if !entry.is_quarantined() {
        return Slice::from(&out[..ENTRY_LEN]);
    }
    out[0] = QUARANTINED_VERSION;
    out[29..37].copy_from_slice(&entry.quarantined.to_le_bytes());
    Slice::from(out.as_slice())
}

pub(super) fn decode_entry(value: &[u8]) -> Result<Entry, IndexError> {
    let len = match value.first() {
        Some(&ENTRY_VERSION) => ENTRY_LEN,
        Some(&QUARANTINED_VERSION) => QUARANTINED_LEN,
        Some(_) | None => 0,
    };
    if value.len() != len || len == 0 {
        return Err(IndexError::Damaged("an entry has an unknown form".into()));
    }
    let u64_at = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("8 bytes"));
    let payload = u32::from_le_bytes(value[17..21].try_into().expect("4 bytes"));
    let at = Location { segment: SegmentId(u64_at(1)), offset: u64_at(9), len: payload };
    let quarantined = if len == QUARANTINED_LEN { u64_at(29) } else { 0 };
    Ok(Entry { at, epoch: u64_at(21), quarantined })
}

pub(super) fn encode_totals(totals: Totals) -> [u8; 32] {
    let Totals { chunks, bytes, quarantined_chunks, quarantined_bytes } = totals;
    let mut out = [0; 32];
    let numbers = [chunks, bytes, quarantined_chunks, quarantined_bytes];
    for (place, number) in out.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *place = number.to_le_bytes();
    }
    out
}

pub(super) fn decode_totals(value: &[u8]) -> Result<Totals, IndexError> {
    let (numbers, rest) = value.as_chunks::<8>();
    let numbers: Vec<u64> = numbers.iter().map(|n| u64::from_le_bytes(*n)).collect();
    match (numbers.as_slice(), rest) {
        ([chunks, bytes], []) => Ok(Totals { chunks: *chunks, bytes: *bytes, ..Totals::default() }),
        ([chunks, bytes, quarantined_chunks, quarantined_bytes], []) => Ok(Totals {
            chunks: *chunks,
            bytes: *bytes,
            quarantined_chunks: *quarantined_chunks,
            quarantined_bytes: *quarantined_bytes,
        }),
        _ => Err(IndexError::Damaged("the totals have a wrong length".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_older_and_newer_forms_are_told_apart() {
        let at = Location { segment: SegmentId(7), offset: 64, len: 9 };
        for quarantined in [0, 3] {
            let entry = Entry { at, epoch: 5, quarantined };
            let bytes = encode_entry(&entry);
            assert_eq!(decode_entry(&bytes).unwrap(), entry);
            assert_eq!(bytes.len(), if quarantined == 0 { ENTRY_LEN } else { QUARANTINED_LEN });
            let mut newer = bytes.to_vec();
            newer[0] = 3;
            decode_entry(&newer).unwrap_err();
            decode_entry(&bytes[1..]).unwrap_err();
        }
    }

    #[test]
    fn totals_without_quarantine_are_those_of_older_releases() {
        let totals = Totals { chunks: 4, bytes: 5, quarantined_chunks: 2, quarantined_bytes: 3 };
        let bytes = encode_totals(totals);
        assert_eq!(decode_totals(&bytes).unwrap(), totals);
        let older = Totals { chunks: 4, bytes: 5, ..Totals::default() };
        assert_eq!(decode_totals(&bytes[..16]).unwrap(), older);
        decode_totals(&bytes[..17]).unwrap_err();
    }
}
