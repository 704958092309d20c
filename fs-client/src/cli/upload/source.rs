//! [`Source`]: the bytes of a local file, piece by piece, without those that lie in holes.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

/// Most bytes that are read and handed on at once.
const PIECE: usize = 1 << 20;

/// See the head of this file. Reading blocks.
pub(super) struct Source {
    file: File,
    buffer: Vec<u8>,
    at: u64,
    /// Where the data that `at` lies in ends; only known of files with holes.
    data_end: Option<u64>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Has no positions.
    Stream,
    Dense,
    WithHoles,
}

impl Source {
    /// A regular file.
    pub(super) fn file(file: File, metadata: &Metadata) -> Self {
        let holes = metadata.blocks().saturating_mul(512) < metadata.len();
        // One byte more than there is, so that the end is found at the first try.
        let room = usize::try_from(metadata.len()).map_or(PIECE, |len| (len + 1).min(PIECE));
        Self::new(file, room, if holes { Kind::WithHoles } else { Kind::Dense })
    }

    /// A pipe, a terminal.
    pub(super) fn stream(file: File) -> Self {
        Self::new(file, PIECE, Kind::Stream)
    }

    fn new(file: File, room: usize, kind: Kind) -> Self {
        Self { file, buffer: vec![0; room], at: 0, data_end: None, kind }
    }

    /// The next bytes and where they belong; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        let n = match self.kind {
            Kind::Stream => self.fill()?,
            Kind::Dense => self.file.read_at(&mut self.buffer, self.at)?,
            Kind::WithHoles => self.read_data()?,
        };
        let offset = self.at;
        self.at += n as u64;
        Ok((n > 0).then(|| (offset, &self.buffer[..n])))
    }

    /// The length of the file, holes included, when the end has been reached.
    pub(super) fn len(&self) -> io::Result<u64> {
        match self.kind {
            Kind::Stream | Kind::Dense => Ok(self.at),
            Kind::WithHoles => Ok(self.file.metadata()?.len().max(self.at)),
        }
    }

    /// Fills the buffer as far as the stream reaches: pipes give little at a time.
    fn fill(&mut self) -> io::Result<usize> {
        let mut filled = 0;
        while filled < PIECE {
            match self.file.read(&mut self.buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn read_data(&mut self) -> io::Result<usize> {
        let end = match self.data_end {
            Some(end) if self.at < end => end,
            Some(_) | None => match self.find_data()? {
                Some(end) => end,
                None => return Ok(0),
            },
        };
        let room = usize::try_from(end - self.at).unwrap_or(PIECE).min(self.buffer.len());
        self.file.read_at(&mut self.buffer[..room], self.at)
    }

    /// Goes to the next data; where it ends.
    fn find_data(&mut self) -> io::Result<Option<u64>> {
        match seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(at) => self.at = at,
            Err(Errno::NXIO) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let end = seek(&self.file, SeekFrom::Hole(self.at))?;
        self.data_end = Some(end);
        Ok(Some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut source: Source) -> (Vec<(u64, Vec<u8>)>, u64) {
        let mut pieces = Vec::new();
        while let Some((offset, bytes)) = source.next().unwrap() {
            pieces.push((offset, bytes.to_vec()));
        }
        (pieces, source.len().unwrap())
    }

    #[test]
    fn holes_are_left_out_and_counted() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"end", 20 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.set_len(40 << 20).unwrap();
        let metadata = file.metadata().unwrap();
        let (pieces, len) = all(Source::file(file, &metadata));
        assert_eq!(len, 40 << 20);
        let bytes: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 1 << 20, "holes were read: {bytes}");
        let at = |offset: u64, wanted: &[u8]| {
            pieces.iter().any(|(start, bytes)| {
                let from = offset.checked_sub(*start).and_then(|d| usize::try_from(d).ok());
                from.and_then(|f| bytes.get(f..f + wanted.len())).is_some_and(|b| b == wanted)
            })
        };
        assert!(at(0, b"begin") && at(20 << 20, b"end"));
    }

    #[test]
    fn a_dense_file_and_a_stream_come_whole() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let metadata = file.metadata().unwrap();
        for source in [
            Source::stream(file.try_clone().unwrap()),
            Source::file(file.try_clone().unwrap(), &metadata),
        ] {
            let (pieces, len) = all(source);
            assert_eq!(len, bytes.len() as u64);
            assert!(pieces.into_iter().flat_map(|(_, bytes)| bytes).eq(bytes.iter().copied()));
        }
    }
}
