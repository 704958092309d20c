//! What an upload says at its end.

use std::sync::atomic::Ordering::Relaxed;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Named, job::Job};
use crate::cli::{output::JSON_VERSION, units};

/// What an upload has copied, and how much of it was sent. `cairn upload --json`
#[derive(Debug, JsonSchema, Serialize)]
pub struct UploadReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// What was named on the command line.
    uploaded: Vec<Uploaded>,
    /// Files, symbolic links and special files; further names of a file and directories are not counted.
    files: u64,
    /// Lengths of the files, added up.
    bytes: u64,
    /// Bytes of them that lie in holes and take no space.
    hole_bytes: u64,
    /// Bytes of content in chunks that at least one node lacked.
    sent_bytes: u64,
    /// Bytes of content in chunks that every node had, and that were not sent.
    present_bytes: u64,
    /// Bytes that went to the nodes, compressed where they were; every copy counts.
    wire_bytes: u64,
}

/// One thing that was named on the command line.
#[derive(Debug, JsonSchema, Serialize)]
struct Uploaded {
    /// Where it was; `-` is standard input.
    source: String,
    /// Its path in the store.
    target: String,
}

impl UploadReport {
    pub(super) fn new(job: &Job, named: &Named) -> Self {
        let traffic = job.store.vfs.chunks().traffic();
        let uploaded = named.iter().map(|(source, target)| Uploaded {
            source: source.display().to_string(),
            target: target.to_string(),
        });
        Self {
            version: JSON_VERSION,
            uploaded: uploaded.collect(),
            files: job.done.files.load(Relaxed),
            bytes: job.done.bytes.load(Relaxed),
            hole_bytes: job.done.holes.load(Relaxed),
            sent_bytes: traffic.sent,
            present_bytes: traffic.present,
            wire_bytes: traffic.wire,
        }
    }

    pub(super) fn print(&self) {
        let amount = format!(
            "{}, {} sent, {} were there",
            units::bytes(self.bytes),
            units::bytes(self.sent_bytes),
            units::bytes(self.present_bytes)
        );
        match &self.uploaded[..] {
            [one] if one.source == "-" => {
                println!("uploaded standard input as {}: {amount}", one.target)
            }
            [one] => println!("uploaded {} as {}: {amount}", one.source, one.target),
            several => {
                for one in several {
                    println!("uploaded {} as {}", one.source, one.target);
                }
                println!("{}: {amount}", units::plural(self.files, "file"));
            }
        }
    }
}
