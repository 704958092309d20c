//! [`ChunkRef`] and [`ManifestRun`]: which chunks make a file.

use crate::{ChunkId, Codec, Malformed, limits::CHUNK_SIZE_MAX, pb};

/// A reference to one chunk. The content is the first `logical_len` bytes of what decoding the
/// stored bytes gives; the rest of the chunk up to the chunk size reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// SHA-256 of the stored bytes.
    pub id: ChunkId,
    /// Length of the stored bytes.
    pub stored_len: u32,
    /// Bytes of content; a truncation shortens it without touching the chunk.
    pub logical_len: u32,
    /// How the stored bytes become the content.
    pub codec: Codec,
}

impl ChunkRef {
    /// The reference to `data` stored as is.
    pub fn plain(data: &[u8]) -> Self {
        let len = u32::try_from(data.len()).expect("chunks are at most 16 MiB");
        Self { id: ChunkId::of(data), stored_len: len, logical_len: len, codec: Codec::Plain }
    }

    /// The same with at most `len` bytes of content; `None` when nothing is left.
    pub fn clipped(self, len: u32) -> Option<Self> {
        let logical_len = self.logical_len.min(len);
        (logical_len > 0).then_some(Self { logical_len, ..self })
    }
}

/// References of consecutive chunks; `None` is a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestRun {
    /// Index of the first chunk.
    pub first_index: u64,
    /// The references in order.
    pub refs: Vec<Option<ChunkRef>>,
}

/// The wire form of a reference or a hole.
pub fn to_wire(chunk: Option<ChunkRef>) -> pb::ChunkRef {
    match chunk {
        None => pb::ChunkRef::default(),
        Some(c) => pb::ChunkRef {
            id: c.id.to_wire(),
            stored_len: c.stored_len,
            logical_len: c.logical_len,
            codec: c.codec.number(),
        },
    }
}

/// Checks a received reference; an empty id is a hole.
pub fn from_wire(chunk: &pb::ChunkRef) -> Result<Option<ChunkRef>, Malformed> {
    if chunk.id.is_empty() {
        return Ok(None);
    }
    let wrong = |why: String| Malformed::new("chunk reference", why);
    let codec = Codec::try_from(chunk.codec)?;
    if chunk.stored_len == 0 || chunk.stored_len > CHUNK_SIZE_MAX {
        return Err(wrong(format!("stored length {}", chunk.stored_len)));
    }
    let most = match codec {
        Codec::Plain => chunk.stored_len,
        Codec::Lz4 | Codec::Zstd => CHUNK_SIZE_MAX,
    };
    if chunk.logical_len == 0 || chunk.logical_len > most {
        return Err(wrong(format!("content length {} of {}", chunk.logical_len, chunk.stored_len)));
    }
    Ok(Some(ChunkRef {
        id: ChunkId::try_from(chunk.id.as_ref())?,
        stored_len: chunk.stored_len,
        logical_len: chunk.logical_len,
        codec,
    }))
}

impl From<ManifestRun> for pb::ManifestRun {
    fn from(run: ManifestRun) -> Self {
        Self { first_index: run.first_index, refs: run.refs.into_iter().map(to_wire).collect() }
    }
}

impl TryFrom<pb::ManifestRun> for ManifestRun {
    type Error = Malformed;

    fn try_from(run: pb::ManifestRun) -> Result<Self, Malformed> {
        if run.first_index.checked_add(run.refs.len() as u64).is_none() {
            return Err(Malformed::new("manifest run", "index overflows"));
        }
        Ok(Self {
            first_index: run.first_index,
            refs: run.refs.iter().map(from_wire).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_holes_survive_the_wire() {
        let r = ChunkRef::plain(b"hello").clipped(3);
        assert_eq!(from_wire(&to_wire(r)), Ok(r));
        assert_eq!(from_wire(&to_wire(None)), Ok(None));
        for codec in [Codec::Lz4, Codec::Zstd] {
            // A frame is shorter than its content.
            let r = r.map(|r| ChunkRef { codec, stored_len: 2, ..r });
            assert_eq!(from_wire(&to_wire(r)), Ok(r));
        }
        assert_eq!(ChunkRef::plain(b"hello").clipped(0), None);
    }

    #[test]
    fn nonsense_is_refused() {
        let good = to_wire(Some(ChunkRef::plain(b"hello")));
        for wrong in [
            pb::ChunkRef { codec: 7, ..good.clone() },
            pb::ChunkRef { stored_len: 0, ..good.clone() },
            pb::ChunkRef { logical_len: 6, ..good.clone() },
            pb::ChunkRef { codec: 2, logical_len: CHUNK_SIZE_MAX + 1, ..good.clone() },
            pb::ChunkRef { logical_len: 0, ..good.clone() },
            pb::ChunkRef { stored_len: u32::MAX, ..good.clone() },
            pb::ChunkRef { id: vec![1; 31].into(), ..good },
        ] {
            assert!(from_wire(&wrong).is_err(), "{wrong:?}");
        }
    }
}
