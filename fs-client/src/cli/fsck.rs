//! `cairn fsck`: do names, inodes, link counts, lists of chunks and counters fit each other?

use clap::Args;
use serde::Serialize;

use super::{connection::Connection, failure::Failure, units};
use crate::rpc::Admin;

/// Check the master's tables against each other; changes nothing
#[derive(Args, Debug)]
pub struct Fsck {
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Fields are only ever added.
#[derive(Default, Serialize)]
struct Report {
    ok: bool,
    inodes: u64,
    dentries: u64,
    segments: u64,
    references: u64,
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
        let mut report = Report::default();
        let mut done = false;
        while let Some(progress) = answers.next().await? {
            report.inodes = progress.inodes;
            report.dentries = progress.dentries;
            report.segments = progress.segments;
            report.references = progress.references;
            report.findings.extend(progress.findings.into_iter().map(|f| f.what));
            done |= progress.done;
        }
        if !done {
            return Err(Failure::new(
                "the master ended the check before it was complete: try again",
            ));
        }
        report.ok = report.findings.is_empty();
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report).expect("plain data"));
        } else {
            report.print();
        }
        Ok(report.ok)
    }
}

impl Report {
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
                "everything fits".to_owned()
            } else {
                units::plural(self.findings.len() as u64, "finding")
            }
        );
    }
}
