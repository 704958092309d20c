//! What every Cairn process needs beside the wire. Nothing here knows a chunk or an inode.
//!
//! [`metrics`]: what it counts and measures. [`usage`]: what this process takes of its machine.

pub mod metrics;
pub mod usage;
