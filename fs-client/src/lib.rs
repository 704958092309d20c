//! The client library: what the mount and the command line stand on.
//!
//! From bottom to top: [`rpc`] (the master) and [`chunks`] (the storage nodes) move bytes;
//! [`file`] is the content of one file; [`vfs`] the file system without FUSE; [`fuse`] shows it to the
//! kernel, [`daemon`] runs that for a mount, and [`supervisor`] keeps the mount when the daemon dies. [`activity`] counts what it is asked to do, [`metrics`]
//! shows it. [`cli`] is what people type.

pub mod activity;
pub mod chunks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod file;
pub mod fuse;
pub mod metrics;
pub mod rpc;
pub mod supervisor;
pub mod vfs;
