//! Processes die at bad moments; nothing that was acknowledged may be lost, nothing may need a hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acknowledged;
mod failpoints;
mod killed_master;
mod killed_mount;
mod killed_node;
mod power;
