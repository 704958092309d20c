//! The client library: what the mount and the command line stand on.
//!
//! From bottom to top: [`rpc`] (the master) and [`chunks`] (the storage nodes) move bytes;
//! [`file`] is the content of one file; [`vfs`] the file system without FUSE.

pub mod chunks;
pub mod cli;
pub mod config;
pub mod file;
pub mod rpc;
pub mod vfs;
