//! The tools around the mount, as people use them: verbs, reports, metrics, configuration, installation.
mod bench;

mod reports;
