//! The store without a mount: the command line, the plain calls, the scripts, and everything that a
//! stranger may throw at an open port.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_calls;
mod bad_operations;
mod data_directories;
mod garbage;
mod in_process;
mod python_client;
mod run_script;
mod verbs;
