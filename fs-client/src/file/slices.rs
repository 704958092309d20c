//! [`Slices`]: what a read found, as it lies in memory.

use bytes::{Bytes, BytesMut};

/// Bytes that follow each other in a file, in pieces that are shared with the caches and not copied.
#[derive(Clone, Debug, Default)]
pub struct Slices(Vec<Bytes>);

impl Slices {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there are none: the end of the file.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// All in one piece; more than one are copied.
    pub fn joined(self) -> Bytes {
        match &self.0[..] {
            [] => Bytes::new(),
            [piece] => piece.clone(),
            pieces => {
                let mut all = BytesMut::with_capacity(self.len());
                pieces.iter().for_each(|piece| all.extend_from_slice(piece));
                all.freeze()
            }
        }
    }
}

impl FromIterator<Bytes> for Slices {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        Self(pieces.into_iter().collect())
    }
}
