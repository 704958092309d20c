//! What a process counts and measures of itself, and the page that shows it to Prometheus.
//!
//! - [`latency`]: how often and how long, readable by everybody.
//! - [`registry`]: names and explains what is shown. Every number belongs to the part of the program
//!   that counts it; the registry only reads, when somebody asks. Nothing is global, so several servers
//!   in one process do not share numbers.
//! - [`process`]: processor time, memory and files of the process. [`classic`]: the older text format.
//! - [`page`]: HTTP over TCP or a Unix socket.

pub mod classic;
pub mod latency;
pub mod page;
mod process;
pub mod registry;

pub use self::{latency::Latency, page::Page, registry::Registry};
