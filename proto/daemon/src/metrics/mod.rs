//! What a process counts and measures of itself.
//!
//! [`latency`]: how often and how long, readable.

pub mod latency;
