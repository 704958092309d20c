//! The tools around the mount, as people use them: verbs, reports, metrics, configuration, installation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agreement;
mod bench;
mod errors;
mod metrics;
mod monitor;
mod profile;
mod reports;
mod transfer;
