//! [`Flights`]: chunks between being cut and being committed, in the order in which they took off.
//! Pure, but for the budget permits.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cairn_proto::ChunkRef;

use super::{dirty::Permit, extents::Extents};
use crate::chunks::Stored;

/// A chunk that can be committed.
#[derive(Clone, Copy, Debug)]
pub struct Landed {
    /// What it replaces.
    pub expected: Option<ChunkRef>,
    /// What it is; `None`: all zeros, a hole.
    pub stored: Option<Stored>,
}

/// One chunk in flight.
#[derive(Debug)]
pub struct Flight {
    /// Index of the chunk.
    pub index: u64,
    /// Our bytes; kept to be merged again after a conflict.
    pub ours: Extents<Bytes>,
    /// Once the nodes have it.
    pub landed: Option<Landed>,
    /// How often it was put before: the nodes are asked whether they still have it.
    pub tries: u32,
    /// Gives its part of the budget back.
    pub permit: Option<Permit>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Flights {
    by_seq: BTreeMap<u64, Flight>,
    by_index: HashMap<u64, u64>,
    next_seq: u64,
}

impl Flights {
    /// Adds a chunk that has no other version in flight. Answers its number.
    pub fn add(&mut self, flight: Flight) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.by_index.insert(flight.index, seq);
        self.by_seq.insert(seq, flight);
        seq
    }

    /// The flight with this number, unless it is committed or dropped.
    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Flight> {
        self.by_seq.get_mut(&seq)
    }

    /// The version of chunk `index` that is in flight.
    pub fn of_index(&self, index: u64) -> Option<&Flight> {
        self.by_index.get(&index).and_then(|seq| self.by_seq.get(seq))
    }

    /// Takes a flight out.
    pub fn remove(&mut self, seq: u64) -> Option<Flight> {
        let flight = self.by_seq.remove(&seq)?;
        self.by_index.remove(&flight.index);
        Some(flight)
    }

    /// Everything that takes off from now on has this number or a greater one.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The oldest flight's number.
    pub fn first_seq(&self) -> Option<u64> {
        self.by_seq.first_key_value().map(|(seq, _)| *seq)
    }

    /// Numbers of up to `most` flights that have landed and that nothing in the air precedes.
    pub fn landed_prefix(&self, most: usize) -> Vec<u64> {
        let landed = self.by_seq.iter().take_while(|(_, f)| f.landed.is_some());
        landed.take(most).map(|(seq, _)| *seq).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.by_seq.is_empty()
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.by_seq.clear();
        self.by_index.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(index: u64) -> Flight {
        Flight {
            index,
            ours: Extents::of(0, Bytes::from_static(b"x")),
            landed: None,
            tries: 0,
            permit: None,
        }
    }

    #[test]
    fn only_what_nothing_precedes_is_ready_to_be_committed() {
        let mut flights = Flights::default();
        let seqs: Vec<u64> = [7, 3, 9].into_iter().map(|i| flights.add(flight(i))).collect();
        let chunk = ChunkRef::plain(b"x");
        let land = |flights: &mut Flights, seq| {
            let stored = Stored { chunk, map_epoch: 1, degraded: None, gc_epoch: 1 };
            flights.get_mut(seq).unwrap().landed =
                Some(Landed { expected: None, stored: Some(stored) });
        };
        land(&mut flights, seqs[1]);
        assert!(flights.landed_prefix(10).is_empty());
        land(&mut flights, seqs[0]);
        assert_eq!(flights.landed_prefix(10), seqs[..2]);
        assert_eq!(flights.landed_prefix(1), seqs[..1]);
        assert_eq!(flights.remove(seqs[0]).unwrap().index, 7);
        assert!(flights.of_index(7).is_none());
        assert_eq!(flights.of_index(3).unwrap().index, 3);
        assert_eq!(flights.first_seq(), Some(seqs[1]));
    }
}
