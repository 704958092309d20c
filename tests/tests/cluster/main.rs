//! The cluster looks after itself: nodes come, go, fill up and rot; copies, garbage and metadata are seen to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod copies;
mod drain;
mod full_disk;
mod garbage;
mod garbage_crash;
mod garbage_race;
mod join;
mod metadata;
mod mount_survives;
mod nodes;
mod overload;
mod pull;
mod quota;
mod repair;
mod scrub;
mod start;
mod stopped_node;
mod write_errors;
