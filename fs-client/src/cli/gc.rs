//! `cairn gc`: what nothing refers to is erased now instead of with the next cycles, or only counted.

use std::time::Duration;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use cairn_proto::pb;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION, Mood, painted},
    progress::Progress,
    units,
};
use crate::rpc::{Admin, CallError, admin::Answers};

/// How long a master that has just started may keep us waiting.
const SAFE_MODE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);

/// Erase the chunks that nothing refers to and give their room back; the master does so by itself, only
/// later
#[derive(Args, Debug)]
pub struct Gc {
    /// Count what would go, and erase nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on although far more would go than the usage counters predict
    #[arg(long)]
    force: bool,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// What garbage collection found and did. `cairn gc --json`
#[derive(Serialize, JsonSchema)]
pub struct GcReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// All nodes took part and nothing failed.
    ok: bool,
    /// Nothing was erased because that was asked for.
    dry_run: bool,
    /// Cycles that were run.
    cycles: u32,
    /// References of files to chunks.
    references: u64,
    /// Sum of their lengths, each counted as often as it is referred to.
    referenced_bytes: u64,
    /// Copies that are referred to, over all nodes.
    live: TallyReport,
    /// Copies that are not referred to and were not erased: put a moment ago, or, in a dry run, garbage.
    unreferenced: TallyReport,
    /// Copies that were erased.
    erased: TallyReport,
    /// Bytes that were given back to the disks. More may follow with later cycles.
    returned_bytes: u64,
    /// Nodes that took part in the last cycle.
    nodes_swept: u32,
    /// Nodes that did not, with the reason.
    nodes_left_out: Vec<String>,
    /// Why the last cycle did not end; null: it did.
    failure: Option<String>,
}

/// Copies of chunks and their bytes.
#[derive(Clone, Copy, Default, Serialize, JsonSchema)]
struct TallyReport {
    /// Copies.
    chunks: u64,
    /// Bytes.
    bytes: u64,
}

impl TallyReport {
    fn add(&mut self, tally: Option<pb::ChunkTally>) {
        let tally = tally.unwrap_or_default();
        self.chunks += tally.chunks;
        self.bytes += tally.bytes;
    }
}

impl Gc {
    /// `Ok(false)`: a node was left out, or a cycle did not end.
    ///
    /// # Errors
    /// When the master cannot be asked, or ends without a result.
    pub async fn run(self, connection: &Connection) -> Result<bool, Failure> {
        let admin = Admin::connect(&connection.config("cairn gc")?).await?;
        let mut answers = self.begin(&admin).await?;
        let bar = Progress::counts(!self.json);
        let mut report = GcReport::new(self.dry_run);
        let mut done = false;
        while let Some(progress) = answers.next().await? {
            if !progress.step.is_empty() {
                bar.name(&format!("cycle {}: {}", progress.cycle, progress.step));
            }
            if let Some(finished) = progress.finished {
                report.take(progress.cycle, finished);
            }
            done |= progress.done;
        }
        drop(bar);
        if !done {
            return Err(Failure::new("the master ended before a result: see `cairn status`"));
        }
        if self.json {
            output::json(&report)?;
        } else {
            report.print();
        }
        Ok(report.ok)
    }

    /// A master that has just started does not collect yet.
    async fn begin(&self, admin: &Admin) -> Result<Answers<pb::CollectProgress>, CallError> {
        let request = pb::CollectRequest { dry_run: self.dry_run, force: self.force };
        let until = Instant::now() + SAFE_MODE;
        loop {
            match admin.collect_garbage(request).await {
                Err(error) if error.code == tonic::Code::Unavailable && Instant::now() < until => {
                    sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}

impl GcReport {
    fn new(dry_run: bool) -> Self {
        Self {
            version: JSON_VERSION,
            ok: false,
            dry_run,
            cycles: 0,
            references: 0,
            referenced_bytes: 0,
            live: TallyReport::default(),
            unreferenced: TallyReport::default(),
            erased: TallyReport::default(),
            returned_bytes: 0,
            nodes_swept: 0,
            nodes_left_out: Vec::new(),
            failure: None,
        }
    }

    /// A cycle has ended: the last says how things are, erasures add up.
    fn take(&mut self, cycle: u32, finished: pb::CycleReport) {
        self.cycles = cycle;
        self.references = finished.references;
        self.referenced_bytes = finished.referenced_bytes;
        self.live = TallyReport::default();
        self.live.add(finished.live);
        self.live.add(finished.restored);
        self.unreferenced = TallyReport::default();
        for tally in [finished.young, finished.quarantined, finished.waiting] {
            self.unreferenced.add(tally);
        }
        match self.dry_run {
            true => self.unreferenced.add(finished.erased),
            false => self.erased.add(finished.erased),
        }
        self.returned_bytes += finished.returned_bytes;
        self.nodes_swept = finished.nodes_swept;
        self.nodes_left_out = finished.nodes_left_out;
        self.failure = (!finished.failure.is_empty()).then_some(finished.failure);
        self.ok = self.failure.is_none() && self.nodes_left_out.is_empty();
    }

    fn print(&self) {
        let tally = |tally: TallyReport| {
            format!("{} ({})", units::plural(tally.chunks, "chunk"), units::bytes(tally.bytes))
        };
        println!(
            "{} on {}, each copy counted: {} referred to, {} not",
            units::plural(self.references, "reference"),
            units::plural(u64::from(self.nodes_swept), "node"),
            tally(self.live),
            tally(self.unreferenced),
        );
        if self.dry_run {
            println!("a dry run: nothing was erased");
        } else {
            println!(
                "{} erased in {}, {} given back",
                tally(self.erased),
                units::plural(u64::from(self.cycles), "cycle"),
                units::bytes(self.returned_bytes),
            );
        }
        for node in &self.nodes_left_out {
            println!("{} {node}", painted("left out:", Mood::Bad));
        }
        if let Some(failure) = &self.failure {
            println!("{} {failure}", painted("stopped:", Mood::Bad));
        }
    }
}
