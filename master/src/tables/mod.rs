//! The rows of the master's tables: their keys, their values, and how they are read and written.
//!
//! - [`keys`]: the only place where key bytes exist.
//! - [`rows`]: the values.
//! - [`group`]: the pending group of writes above the engine, with the cache of hot rows.
//!
//! Nothing here knows what an operation is.

mod cache;
pub mod group;
pub mod keys;
pub mod rows;
pub mod source;
