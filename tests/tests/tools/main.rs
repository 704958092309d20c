//! The tools around the mount, as people use them: verbs, reports, metrics, configuration, installation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agreement;
mod bench;
mod config;
mod errors;
mod install;
mod metrics;
mod monitor;
mod mount_options;
mod profile;
mod reports;
mod transfer;
