//! `cairn fsck`: do names, inodes, link counts, lists of chunks and counters fit each other?

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION, Mood, painted},
    progress::Progress,
    units,
};
use crate::rpc::Admin;

/// Check the master's tables against each other; changes nothing
#[derive(Args, Debug)]
pub struct Fsck {
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// The master's tables against each other. `cairn fsck --json`
#[derive(Default, Serialize, JsonSchema)]
pub struct FsckReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// Nothing was found.
    ok: bool,
    /// Inodes checked.
    inodes: u64,
    /// Names checked.
    dentries: u64,
    /// Segments of lists of chunks checked.
    segments: u64,
    /// References to chunks checked.
    references: u64,
    /// What does not fit, one sentence each.
    findings: Vec<String>,
}

impl Fsck {
    /// `Ok(false)`: something does not fit.
    ///
    /// # Errors
    /// When the master cannot be asked, or stops before the end.
    pub async fn run(self, connection: &Connection) -> Result<bool, Failure> {
        let admin = Admin::connect(&connection.config("cairn fsck")?).await?;
        let mut answers = admin.fsck().await?;
        let status = admin.status().await?;
        let inodes = status.files + status.directories + status.other_inodes + status.orphans;
        let bar = Progress::counts(!self.json);
        bar.begin("inodes", Some(inodes));
        let mut report = FsckReport { version: JSON_VERSION, ..FsckReport::default() };
        let mut done = false;
        while let Some(progress) = answers.next().await? {
            bar.add(progress.inodes.saturating_sub(report.inodes));
            report.inodes = progress.inodes;
            report.dentries = progress.dentries;
            report.segments = progress.segments;
            report.references = progress.references;
            report.findings.extend(progress.findings.into_iter().map(|f| f.what));
            done |= progress.done;
        }
        drop(bar);
        if !done {
            return Err(Failure::new(
                "the master ended the check before it was complete: try again",
            ));
        }
        report.ok = report.findings.is_empty();
        if self.json {
            output::json(&report)?;
        } else {
            report.print();
        }
        Ok(report.ok)
    }
}

impl FsckReport {
    fn print(&self) {
        for finding in &self.findings {
            println!("{finding}");
        }
        println!(
            "{}, {}, {}, {} checked: {}",
            units::plural(self.inodes, "inode"),
            units::plural(self.dentries, "name"),
            units::plural(self.segments, "segment"),
            units::plural(self.references, "reference"),
            if self.ok {
                painted("everything fits", Mood::Good)
            } else {
                painted(&units::plural(self.findings.len() as u64, "finding"), Mood::Bad)
            }
        );
    }
}
