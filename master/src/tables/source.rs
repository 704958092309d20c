//! [`Source`]: where rows are read from. The pending group and a snapshot are both one, so that the
//! code that walks rows exists once.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::keys;
use crate::engine::{Direction, EngineError, KeyRange, Pair, Reader};

/// Something that rows can be read from.
pub trait Source {
    /// The row at `key`.
    fn get(&mut self, key: &Bytes) -> Result<Option<Bytes>, EngineError>;
    /// The first `limit` rows of `range`.
    fn page(&mut self, range: &KeyRange, limit: usize) -> Result<Vec<Pair>, EngineError>;
}

/// A snapshot as a source.
#[derive(Clone)]
pub struct Snapshot(pub Arc<dyn Reader>);

impl Source for Snapshot {
    fn get(&mut self, key: &Bytes) -> Result<Option<Bytes>, EngineError> {
        self.0.get(key)
    }

    fn page(&mut self, range: &KeyRange, limit: usize) -> Result<Vec<Pair>, EngineError> {
        self.0.scan(range.clone(), Direction::Forward).take(limit).collect()
    }
}

/// The row at `key`, decoded.
pub fn row<M: Message + Default>(
    source: &mut (impl Source + ?Sized),
    key: &Bytes,
) -> Result<Option<M>, EngineError> {
    source.get(key)?.map(|value| decode(key, value)).transpose()
}

/// Decodes the value of `key`.
pub fn decode<M: Message + Default>(key: &[u8], value: Bytes) -> Result<M, EngineError> {
    M::decode(value).map_err(|error| {
        EngineError::Damaged(format!("the row {} does not decode: {error}", key.escape_ascii()))
    })
}

/// The first number in the key of a row.
pub fn owner(key: &[u8]) -> Result<u64, EngineError> {
    keys::owner(key).ok_or_else(|| bad_key(key))
}

/// The second number in the key of a row.
pub fn second(key: &[u8]) -> Result<u64, EngineError> {
    keys::second(key).ok_or_else(|| bad_key(key))
}

/// A row whose key is none of ours.
pub fn bad_key(key: &[u8]) -> EngineError {
    EngineError::Damaged(format!("a row has the key {}", key.escape_ascii()))
}
