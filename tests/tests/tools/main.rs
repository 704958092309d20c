//! The tools around the mount, as people use them: verbs, reports, metrics, configuration, installation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod metrics;
mod profile;
mod reports;
mod transfer;
