//! [`ChunkId`]: the SHA-256 of a chunk's stored bytes, and nothing but those bytes.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::{Malformed, sha256};

/// The name of a chunk: the SHA-256 of its stored bytes. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId([u8; ChunkId::LEN]);

impl ChunkId {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The id of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256::digest(data).into())
    }

    /// The ids of several chunks, in their order: cheaper than one by one.
    pub fn of_each(data: &[&[u8]]) -> Vec<Self> {
        sha256::each(data).into_iter().map(Self).collect()
    }

    /// Whether `data` is what this id names.
    pub fn verify(&self, data: &[u8]) -> bool {
        Self::of(data) == *self
    }

    /// The id with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The 32 bytes as the wire carries them.
    pub fn to_wire(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl TryFrom<&[u8]> for ChunkId {
    type Error = Malformed;

    fn try_from(bytes: &[u8]) -> Result<Self, Malformed> {
        bytes.try_into().map(Self).map_err(|_| {
            Malformed::new("chunk id", format!("{} bytes instead of {}", bytes.len(), Self::LEN))
        })
    }
}

impl FromStr for ChunkId {
    type Err = Malformed;

    /// Accepts exactly 64 lower-case hex digits, as the protocol writes ids.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let wrong =
            || Malformed::new("chunk id", "is not 64 lower-case hex digits (SHA-256 of the data)");
        let digit = |b: u8| match b {
            b'0'..=b'9' => Ok(b - b'0'),
            b'a'..=b'f' => Ok(b - b'a' + 10),
            _ => Err(wrong()),
        };
        let text = text.as_bytes();
        if text.len() != 2 * Self::LEN {
            return Err(wrong());
        }
        let mut bytes = [0; Self::LEN];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn is_the_plain_sha256_of_the_data() {
        assert_eq!(ChunkId::of(b"abc").to_string(), ABC);
        assert!(ChunkId::of(b"abc").verify(b"abc"));
        assert!(!ChunkId::of(b"abc").verify(b"abd"));
    }

    #[test]
    fn text_form_is_exactly_64_lower_case_digits() {
        assert_eq!(ABC.parse::<ChunkId>().unwrap(), ChunkId::of(b"abc"));
        for wrong in ["", "ab", &ABC[1..], &ABC.to_uppercase(), &format!("{ABC}0"), &"g".repeat(64)]
        {
            assert!(wrong.parse::<ChunkId>().is_err(), "{wrong}");
        }
    }
}
