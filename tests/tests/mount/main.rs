//! What users do with a mounted store: copy trees, work with git and sqlite, edit, map, share.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clone_files;
mod coherence;
mod daemon;
mod edits;
mod memory;
mod programs;
mod trees;
