//! What every Cairn process needs beside the wire. Nothing here knows a chunk or an inode.
//!
//! - [`program`]: a program one of whose verbs is a daemon, and how its settings are read: flags over
//!   `CAIRN_*` variables over a file ([`config_file`]) over defaults; [`print_config`] shows the result,
//!   [`configuration_page`] documents it. [`size`]: numbers of bytes as people write them.
//! - [`documents`]: man pages and completions.
//! - [`io_error`]: the system's errors for people.
//! - [`log`], [`notify`]: what a daemon tells its service manager.
//! - [`metrics`]: what it counts and measures. [`usage`]: what this process takes of its machine.
//!   [`memory`]: how it keeps that small. [`large_page`]: memory for what goes past the page cache.

pub mod config_file;
pub mod configuration_page;
pub mod documents;
pub mod io_error;
pub mod large_page;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod print_config;
pub mod program;
pub mod size;
pub mod span;
pub mod usage;
