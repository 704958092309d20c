//! The writing process of these suites.

use std::path::Path;

use cairn_tests::{Cluster, acknowledged::Writer};

pub(crate) use cairn_tests::acknowledged::check;

/// Starts writing into `directory` of a mount of `cluster`.
pub(crate) fn start(cluster: &Cluster, directory: &Path, from: u64) -> Writer {
    Writer::start(env!("CARGO_BIN_EXE_cairn-test-writer"), cluster.place(), directory, from)
}
