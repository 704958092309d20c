//! Cairn's master: the namespace, the manifests, the cluster map.

pub mod clock;
pub mod engine;
pub mod failpoints;
pub mod namespace;
pub mod tables;
