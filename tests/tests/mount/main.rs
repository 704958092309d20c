//! What users do with a mounted store: copy trees, work with git and sqlite, edit, map, share.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clone_files;
mod coherence;
mod compression;
mod daemon;
mod disk_cache;
mod edits;
mod memory;
mod programs;
mod same_machine;
mod trees;
