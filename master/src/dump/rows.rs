//! Rows as bytes: which rows of a snapshot make the file system ([`Rows`]), how one is written
//! ([`write_row`]), and how a stream of such bytes, cut anywhere, becomes rows again ([`Parser`]).
//!
//! A row is: length of the key, length of the value (both as protobuf varints), key, value.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use cairn_proto::pb;
use prost::encoding::{decode_varint, encode_varint};

use crate::{
    engine::{Direction, EngineError, Pair, Pairs, Reader},
    tables::keys,
};

/// Longest key that makes sense: a kind, a number and a name, with room to spare.
const KEY_MAX: u64 = 4096;
/// Longest value that makes sense: far above any row.
const VALUE_MAX: u64 = 16 << 20;
/// Two varints.
const LENGTHS_MAX: usize = 20;

/// The rows of a snapshot that make the file system, in the order of their keys.
pub(crate) struct Rows<'a>(Pairs<'a>);

impl<'a> Rows<'a> {
    /// All of them.
    pub(crate) fn of(reader: &'a dyn Reader) -> Self {
        Self(reader.scan(keys::everything(), Direction::Forward))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Pair, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find(|pair| match pair {
            Ok((key, _)) => keys::is_portable(key),
            Err(_) => true,
        })
    }
}

/// Appends one row; how many bytes it took.
pub(crate) fn write_row(key: &[u8], value: &[u8], to: &mut Vec<u8>) -> usize {
    let before = to.len();
    encode_varint(key.len() as u64, to);
    encode_varint(value.len() as u64, to);
    to.extend_from_slice(key);
    to.extend_from_slice(value);
    to.len() - before
}

/// Rows by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<u8, u64>);

impl Counts {
    pub(crate) fn add(&mut self, key: &[u8]) {
        *self.0.entry(key.first().copied().unwrap_or_default()).or_default() += 1;
    }

    /// Of all kinds.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub(crate) fn of(&self, kind: u8) -> u64 {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    pub(crate) fn to_wire(&self) -> Vec<pb::RowCount> {
        let count = |(kind, rows): (&u8, &u64)| pb::RowCount {
            kind: kind.escape_ascii().to_string(),
            rows: *rows,
        };
        self.0.iter().map(count).collect()
    }
}

/// Bytes to rows, however they are cut.
#[derive(Default)]
pub(crate) struct Parser(BytesMut);

impl Parser {
    /// What comes next.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole row; `None`: more bytes are needed.
    ///
    /// # Errors
    /// A reason when the bytes are no row.
    pub(crate) fn row(&mut self) -> Result<Option<Pair>, String> {
        let mut head = &self.0[..self.0.len().min(LENGTHS_MAX)];
        let given = head.len();
        let mut length = |most: u64, what: &str| match decode_varint(&mut head) {
            Ok(n) if n <= most => Ok(Some(n)),
            Ok(n) => Err(format!("a row has a {what} of {n} bytes")),
            Err(_) if given < LENGTHS_MAX => Ok(None),
            Err(error) => Err(format!("the length of a {what} is none: {error}")),
        };
        let (Some(key), Some(value)) = (length(KEY_MAX, "key")?, length(VALUE_MAX, "value")?)
        else {
            return Ok(None);
        };
        let (key, value) = (key as usize, value as usize);
        let lengths = given - head.len();
        if self.0.len() < lengths + key + value {
            return Ok(None);
        }
        self.0.advance(lengths);
        let key = Bytes::copy_from_slice(&self.0.split_to(key));
        Ok(Some((key, Bytes::copy_from_slice(&self.0.split_to(value)))))
    }

    /// Whether there is nothing left of a row that did not come to its end.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
