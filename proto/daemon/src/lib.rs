//! What every Cairn process needs beside the wire. Nothing here knows a chunk or an inode.
//!
//! [`usage`]: what this process takes of its machine.

pub mod usage;
