//! The mount behaves as a local disk does: suites that others wrote, a model, and real programs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acls;
mod attributes;
mod fsx;
mod holes;
mod listing;
mod local_disk;
mod lock_agent;
mod locks;
mod mappings;
mod model;
mod open_flags;
mod pjdfstest;
mod programs;
mod repair;
mod tree;
