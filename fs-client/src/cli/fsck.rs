//! `cairn fsck`: do names, inodes, link counts, lists of chunks and counters fit each other? With
//! `--repair` the master mends what it can.

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

/// What was mended may uncover more; after so many passes what is left is left to people.
const PASSES: u32 = 8;

/// Check the master's tables against each other; changes nothing unless told to
#[derive(Args, Debug)]
pub struct Fsck {
    /// Mend counts, listings and rows that belong to nothing, while the master serves; what has lost
    /// its name gets one in /lost+found
    #[arg(long)]
    repair: bool,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// The master's tables against each other. `cairn fsck --json`
#[derive(Default, Serialize, JsonSchema)]
pub struct FsckReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// Nothing was found, or all of it was repaired.
    ok: bool,
    /// Inodes checked.
    inodes: u64,
    /// Names checked.
    dentries: u64,
    /// Segments of lists of chunks checked.
    segments: u64,
    /// References to chunks checked.
    references: u64,
    /// What does not fit, one sentence each; with `--repair`, what is left.
    findings: Vec<String>,
    /// What `--repair` has mended.
    repaired: Vec<RepairedReport>,
}

/// One thing that was mended.
#[derive(Serialize, JsonSchema)]
struct RepairedReport {
    /// What did not fit.
    what: String,
    /// What was done about it.
    done: String,
}

impl Fsck {
    /// `Ok(false)`: something does not fit.
    ///
    /// # Errors
    /// When the master cannot be asked, or stops before the end.
    pub async fn run(self, connection: &Connection) -> Result<bool, Failure> {
        let admin = Admin::connect(&connection.config("cairn fsck")?).await?;
        let mut report = FsckReport { version: JSON_VERSION, ..FsckReport::default() };
        let mut settled = false;
        for _ in 0..PASSES {
            let mended = report.repaired.len();
            self.pass(&admin, &mut report).await?;
            // A pass that mended nothing has looked at everything as it is now.
            settled = report.repaired.len() == mended;
            if settled {
                break;
            }
        }
        report.ok = settled && report.findings.is_empty();
        if self.json {
            output::json(&report)?;
        } else {
            report.print();
        }
        Ok(report.ok)
    }

    /// Looks at everything once. Findings of earlier passes are forgotten, repairs are not.
    async fn pass(&self, admin: &Admin, report: &mut FsckReport) -> Result<(), Failure> {
        let mut answers = admin.fsck(self.repair).await?;
        let status = admin.status().await?;
        let inodes = status.files + status.directories + status.other_inodes + status.orphans;
        let bar = Progress::counts(!self.json);
        bar.begin("inodes", Some(inodes));
        report.inodes = 0;
        report.findings.clear();
        let mut done = false;
        while let Some(progress) = answers.next().await? {
            bar.add(progress.inodes.saturating_sub(report.inodes));
            report.inodes = progress.inodes;
            report.dentries = progress.dentries;
            report.segments = progress.segments;
            report.references = progress.references;
            for finding in progress.findings {
                if finding.done.is_empty() {
                    report.findings.push(finding.what);
                } else {
                    let (what, done) = (finding.what, finding.done);
                    report.repaired.push(RepairedReport { what, done });
                }
            }
            done |= progress.done;
        }
        drop(bar);
        if !done {
            return Err(Failure::new(
                "the master ended the check before it was complete: try again",
            ));
        }
        Ok(())
    }
}

impl FsckReport {
    fn print(&self) {
        for repaired in &self.repaired {
            println!("{}: {}", repaired.what, repaired.done);
        }
        for finding in &self.findings {
            println!("{finding}");
        }
        if !self.repaired.is_empty() {
            println!("{} repaired", units::plural(self.repaired.len() as u64, "finding"));
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
