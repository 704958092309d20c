//! The client library.

pub mod chunks;
pub mod config;
pub mod rpc;
