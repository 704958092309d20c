//! A data directory made from what was kept elsewhere, without a serving master.
//!
//! - [`from_dump`]: from the file that `cairn meta dump` has written.
//!
//! - [`from_nodes`]: from the newest backup that lies in the storage nodes. [`nodes`]: asking them.
//! - [`moment`]: a time as people read it.
//!
//! `FORMAT` is written last: what was begun and not finished never serves.

pub mod from_dump;
pub mod from_nodes;
pub mod moment;
mod nodes;
