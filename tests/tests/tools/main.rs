//! The tools around the mount, as people use them: verbs, reports, metrics, configuration, installation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agreement;
mod bench;
mod metrics;
mod monitor;
mod profile;
mod errors;
mod reports;
mod transfer;
