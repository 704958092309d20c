//! The mount behaves as a local disk does: suites that others wrote, a model, and real programs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acls;
mod attributes;
mod local_disk;
mod locks;
mod pjdfstest;
mod programs;
