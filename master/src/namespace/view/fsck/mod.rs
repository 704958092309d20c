//! Checks a snapshot: names against inodes, link counts, parents, cookies, references, segments and
//! their users, what is to be freed, replies, numbers, counters. Every finding is a sentence, and most
//! say what would mend them ([`Remedy`]); nothing is changed here.
//!
//! Memory is bounded: what has to be counted across the whole store (names of an inode, users of a
//! segment) is counted for a batch of them in each pass.
//!
//! - [`inodes`]: each inode with what belongs to it, and the counters. [`content`]: references.
//! - [`quotas`]: what counts in each.
//! - [`names`]: names, how many lead where, listings. [`segments`]: who uses each segment.
//! - [`leftovers`]: rows that belong to nothing, and numbers that would be given out twice.

mod content;
mod inodes;
mod leftovers;
mod names;
mod quotas;
mod segments;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use cairn_proto::Ino;

use crate::{
    engine::{EngineError, Reader},
    namespace::{Counters, Remedy},
    tables::{
        keys,
        rows::InodeRow,
        source::{self, Snapshot},
    },
};

/// Inodes or segments counted in one pass.
const BATCH: usize = 1 << 20;
/// Rows between two reports.
const REPORT_EVERY: u64 = 10_000;
/// Findings in one report; a store that is damaged everywhere gives many reports.
const FINDINGS: usize = 1_000;

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, as a sentence.
    pub what: String,
    /// What would mend it; `None`: nothing that is known to harm no data.
    pub remedy: Option<Remedy>,
}

/// How far a check is, and what it found since the last report.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Inodes checked.
    pub inodes: u64,
    /// Names checked.
    pub dentries: u64,
    /// Segments of lists of chunks checked.
    pub segments: u64,
    /// References to chunks checked.
    pub references: u64,
    /// What does not fit.
    pub findings: Vec<Finding>,
    /// This is the last report.
    pub done: bool,
}

/// The caller wants no more.
enum Stop {
    Asked,
    Engine(EngineError),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

struct Check<'a> {
    source: Snapshot,
    chunk_size: u32,
    report: &'a mut dyn FnMut(Progress) -> bool,
    progress: Progress,
    rows: u64,
    found: Counters,
    /// Bytes and inodes that name each quota.
    accounts: BTreeMap<u64, (u64, u64)>,
    /// Directories known to lead to the root.
    rooted: HashSet<u64>,
}

pub(super) fn run(
    source: Snapshot,
    chunk_size: u32,
    report: &mut dyn FnMut(Progress) -> bool,
) -> Result<(), EngineError> {
    let mut check = Check {
        source,
        chunk_size,
        report,
        progress: Progress::default(),
        rows: 0,
        found: Counters::default(),
        accounts: BTreeMap::new(),
        rooted: HashSet::from([Ino::ROOT.get()]),
    };
    match check.all() {
        Ok(()) => {
            check.progress.done = true;
            (check.report)(check.progress);
            Ok(())
        }
        Err(Stop::Asked) => Ok(()),
        Err(Stop::Engine(error)) => Err(error),
    }
}

impl Check<'_> {
    fn all(&mut self) -> Result<(), Stop> {
        self.inodes()?;
        self.counters()?;
        self.quotas()?;
        self.names()?;
        self.name_counts()?;
        self.cookies()?;
        self.orphans()?;
        self.dead()?;
        self.lists()?;
        self.attributes_of_nothing()?;
        self.segments()?;
        self.shares()?;
        self.replies()?;
        self.locks()?;
        self.numbers()
    }

    /// Something that only a person can mend.
    fn say(&mut self, what: String) {
        self.progress.findings.push(Finding { what, remedy: None });
    }

    /// Something that `remedy` would mend.
    fn say_with(&mut self, what: String, remedy: Remedy) {
        self.progress.findings.push(Finding { what, remedy: Some(remedy) });
    }

    fn step(&mut self) -> Result<(), Stop> {
        self.rows += 1;
        if self.rows.is_multiple_of(REPORT_EVERY) || self.progress.findings.len() >= FINDINGS {
            let report = self.progress.clone();
            self.progress.findings.clear();
            if !(self.report)(report) {
                return Err(Stop::Asked);
            }
        }
        Ok(())
    }

    /// The snapshot, so that it can be scanned while findings are noted.
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.source.0)
    }

    fn inode(&mut self, ino: u64) -> Result<Option<InodeRow>, EngineError> {
        source::row(&mut self.source, &keys::inode(ino))
    }
}
