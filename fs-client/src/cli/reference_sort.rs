//! [`ReferenceSort`]: references to chunks, counted, in the order of the chunks' ids, in bounded memory.
//!
//! Files name their chunks in the order of their bytes, nodes list theirs by id. To compare the two
//! for tens of millions of chunks, references are sorted in pieces; a full piece goes to a temporary
//! file without a name, and the pieces are merged while they are read.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
};

use cairn_proto::ChunkId;

/// References that are sorted in memory at once: 56 MiB.
const IN_MEMORY: usize = 1 << 20;
/// Files that are merged at once.
const RUNS: usize = 64;
/// Bytes of a counted reference in a file.
const RECORD: usize = ChunkId::LEN + 4 + 4 + 8;

/// A chunk, how often it is referred to, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Counted {
    /// The chunk.
    pub(super) id: ChunkId,
    /// Where the references are: whatever the caller distinguishes.
    pub(super) place: u32,
    /// Bytes of the chunk as it is stored.
    pub(super) stored_len: u32,
    /// References.
    pub(super) count: u64,
}

/// See the head of this file.
pub(super) struct ReferenceSort {
    piece: Vec<Counted>,
    piece_max: usize,
    runs: Vec<File>,
}

impl Default for ReferenceSort {
    fn default() -> Self {
        Self::with_piece(IN_MEMORY)
    }
}

impl ReferenceSort {
    fn with_piece(piece_max: usize) -> Self {
        Self { piece: Vec::new(), piece_max, runs: Vec::new() }
    }

    /// Adds one reference.
    ///
    /// # Errors
    /// When the temporary directory is full.
    pub(super) fn push(&mut self, id: ChunkId, place: u32, stored_len: u32) -> io::Result<()> {
        self.piece.push(Counted { id, place, stored_len, count: 1 });
        if self.piece.len() < self.piece_max {
            return Ok(());
        }
        self.compact();
        // Mostly the same chunks: there is room for more.
        if self.piece.len() < self.piece_max / 2 {
            return Ok(());
        }
        if self.runs.len() + 1 >= RUNS {
            let runs = std::mem::take(&mut self.runs);
            self.runs.push(write(Merged::of(runs, Vec::new())?)?);
        }
        let piece = std::mem::take(&mut self.piece);
        self.runs.push(write(piece.into_iter().map(Ok))?);
        Ok(())
    }

    fn compact(&mut self) {
        self.piece.sort_unstable();
        self.piece.dedup_by(|next, kept| {
            let same = (next.id, next.place) == (kept.id, kept.place);
            if same {
                kept.count += next.count;
            }
            same
        });
    }

    /// All references in order, each pair of chunk and place once.
    ///
    /// # Errors
    /// When a temporary file cannot be read.
    pub(super) fn finish(mut self) -> io::Result<Merged> {
        self.compact();
        Merged::of(self.runs, self.piece)
    }
}

fn write(records: impl Iterator<Item = io::Result<Counted>>) -> io::Result<File> {
    let mut file = BufWriter::new(tempfile::tempfile()?);
    for record in records {
        let record = record?;
        file.write_all(record.id.as_bytes())?;
        file.write_all(&record.place.to_le_bytes())?;
        file.write_all(&record.stored_len.to_le_bytes())?;
        file.write_all(&record.count.to_le_bytes())?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)
}

/// One sorted piece while it is read.
enum Run {
    File(BufReader<File>),
    Memory(std::vec::IntoIter<Counted>),
}

impl Run {
    fn next(&mut self) -> io::Result<Option<Counted>> {
        match self {
            Self::Memory(records) => Ok(records.next()),
            Self::File(file) => {
                let mut bytes = [0; RECORD];
                if file.by_ref().take(1).read(&mut bytes[..1])? == 0 {
                    return Ok(None);
                }
                file.read_exact(&mut bytes[1..])?;
                let (id, rest) = bytes.split_first_chunk().expect("a record begins with an id");
                let (place, rest) = rest.split_first_chunk().expect("then comes the place");
                let (len, count) = rest.split_first_chunk().expect("then the length");
                Ok(Some(Counted {
                    id: ChunkId::from_bytes(*id),
                    place: u32::from_le_bytes(*place),
                    stored_len: u32::from_le_bytes(*len),
                    count: u64::from_le_bytes(*count.first_chunk().expect("then the count")),
                }))
            }
        }
    }
}

/// What [`ReferenceSort::finish`] gives.
pub(super) struct Merged {
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<(Counted, usize)>>,
}

impl Merged {
    fn of(files: Vec<File>, piece: Vec<Counted>) -> io::Result<Self> {
        let mut runs = vec![Run::Memory(piece.into_iter())];
        for mut file in files {
            file.rewind()?;
            runs.push(Run::File(BufReader::new(file)));
        }
        let mut merged = Self { runs, heads: BinaryHeap::new() };
        for run in 0..merged.runs.len() {
            merged.refill(run)?;
        }
        Ok(merged)
    }

    fn refill(&mut self, run: usize) -> io::Result<()> {
        if let Some(record) = self.runs[run].next()? {
            self.heads.push(Reverse((record, run)));
        }
        Ok(())
    }

    fn advance(&mut self) -> io::Result<Option<Counted>> {
        let Some(Reverse((mut first, run))) = self.heads.pop() else { return Ok(None) };
        self.refill(run)?;
        while let Some(Reverse((next, run))) = self.heads.peek().copied() {
            if (next.id, next.place) != (first.id, first.place) {
                break;
            }
            first.count += next.count;
            self.heads.pop();
            self.refill(run)?;
        }
        Ok(Some(first))
    }
}

impl Iterator for Merged {
    type Item = io::Result<Counted>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn pieces_and_runs_of_runs_give_the_same_as_one_map() {
        let mut sort = ReferenceSort::with_piece(8);
        let mut expected = BTreeMap::new();
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (chunk, place) = ((state >> 33) % 700, u32::try_from((state >> 60) % 3).unwrap());
            let id = ChunkId::of(&chunk.to_le_bytes());
            sort.push(id, place, 100).unwrap();
            *expected.entry((id, place)).or_insert(0_u64) += 1;
        }
        assert!(sort.runs.len() < RUNS, "runs were not merged: {}", sort.runs.len());
        let counted: Vec<_> = sort.finish().unwrap().map(Result::unwrap).collect();
        assert!(counted.iter().all(|c| c.stored_len == 100));
        let counted: Vec<_> = counted.into_iter().map(|c| ((c.id, c.place), c.count)).collect();
        assert_eq!(counted, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_sorted_is_nothing() {
        assert_eq!(ReferenceSort::default().finish().unwrap().count(), 0);
    }
}
