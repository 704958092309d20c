//! Parts fail without dying: lost nodes, damaged bytes, disks that give errors or are full.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damaged_chunks;
mod disk_errors;
mod exec_closes;
mod no_nodes;
