//! Cairn's master: the namespace, the manifests, the cluster map.

mod acl;
mod activity;
mod backup;
pub mod cli;
pub mod clock;
mod cluster;
pub mod config;
mod dump;
pub mod engine;
pub mod failpoints;
pub mod format;
mod gc;
mod metrics;
pub mod namespace;
mod nodes;
mod op_thread;
pub mod rebuild;
mod repair;
pub mod server;
mod service;
mod session;
mod sync_thread;
pub mod tables;
#[cfg(test)]
mod testing;
