//! `cairn du`: how long files are, what that takes, and what of it others use too.
//!
//! [`tree`] assigns every file to a line of the answer while the whole tree is walked once (what is
//! shared can only be said by who knows all references); the references are sorted on disk, so memory
//! holds the lines and the files with several names only.

mod tree;

use std::ffi::OsString;

use cairn_proto::{FileKind, ManifestRun};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use self::tree::Tree;
use super::{
    connection::Connection,
    failure::Failure,
    local_path,
    output::{self, JSON_VERSION},
    progress::Progress,
    reference_sort::{Counted, ReferenceSort},
    spool,
    store::StorePath,
    table::{Table, cell},
    units,
};
use crate::rpc::Admin;

/// Show what directories take: their length, what is stored for it, what of that others share
#[derive(Args, Debug)]
pub struct Du {
    /// Paths in the store, or local paths inside a mount of it
    #[arg(default_value = "/", value_name = "PATH")]
    paths: Vec<OsString>,

    /// One line for each PATH only
    #[arg(short, long, conflicts_with = "depth")]
    summarize: bool,

    /// Show directories this many levels below each PATH [default: all]
    #[arg(short, long, value_name = "N")]
    depth: Option<u32>,

    /// Print exact numbers of bytes
    #[arg(short, long)]
    bytes: bool,

    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// What directories take. `cairn du --json`
#[derive(Serialize, JsonSchema)]
pub struct DuReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    pub version: u32,
    /// Directories below before the one that they are in.
    pub rows: Vec<DuRow>,
}

/// One directory or file with all below it.
#[derive(Serialize, JsonSchema)]
pub struct DuRow {
    /// Path in the store; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Regular files; a file with several names here counts once.
    pub files: u64,
    /// Sum of the files' lengths, in bytes.
    pub logical_bytes: u64,
    /// Bytes of the distinct chunks that the files refer to, one copy of each.
    pub stored_bytes: u64,
    /// Bytes of `stored_bytes` that something elsewhere refers to as well. The rest,
    /// `stored_bytes - shared_bytes`, is what nothing else needs.
    pub shared_bytes: u64,
}

impl Du {
    /// # Errors
    /// When a path does not exist, the master cannot be asked, or the temporary directory is full.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let (connection, paths) = local_path::locate(&self.paths, connection)?;
        let admin = Admin::connect(&connection.config("cairn du")?).await?;
        for path in &paths {
            must_exist(&admin, path).await?;
        }
        let depth = if self.summarize { 0 } else { self.depth.unwrap_or(u32::MAX) };
        let progress = Progress::counts(!self.json);
        let tree = measure(&admin, &paths, depth, &progress).await?;
        drop(progress);
        let report = DuReport { version: JSON_VERSION, rows: tree.rows() };
        if self.json {
            return output::json(&report);
        }
        self.print(&report);
        Ok(())
    }

    fn print(&self, report: &DuReport) {
        let size = |n: u64| if self.bytes { n.to_string() } else { units::bytes(n) };
        let mut table = Table::new("", ["LOGICAL", "STORED", "SHARED", "PATH"]);
        for row in &report.rows {
            table.row([
                cell(size(row.logical_bytes)),
                cell(size(row.stored_bytes)),
                cell(size(row.shared_bytes)),
                cell(row.path.replace(char::is_control, "?")),
            ]);
        }
        table.numbers(0, 3).print();
    }
}

/// Says soon what a walk of the whole tree would say late. A path that is no UTF-8 cannot be asked for.
async fn must_exist(admin: &Admin, path: &StorePath) -> Result<(), Failure> {
    if let Ok(text) = std::str::from_utf8(path.as_bytes()) {
        admin.walk(text, false).await?.next().await?;
    }
    Ok(())
}

async fn measure(
    admin: &Admin,
    paths: &[StorePath],
    depth: u32,
    progress: &Progress,
) -> Result<Tree, Failure> {
    progress.begin("files", Some(admin.status().await?.files));
    let mut tree = Tree::new(paths, depth);
    let mut sort = ReferenceSort::default();
    let mut entries = admin.walk("", true).await?;
    let mut continued = None;
    while let Some(entry) = entries.next().await? {
        let attr = entry.attr.unwrap_or_default();
        let kind = FileKind::from_mode(attr.mode);
        let line = match continued.take() {
            Some(line) => line,
            None => tree.enter(&entry.raw_path, kind == Some(FileKind::Directory))?,
        };
        if entry.more {
            continued = Some(line);
        } else if kind == Some(FileKind::Regular) {
            tree.file(line, attr.ino, attr.nlink, attr.size);
            progress.add(1);
        }
        for run in entry.runs {
            let run = ManifestRun::try_from(run)
                .map_err(|e| Failure::new(format!("/{}: {e}", entry.path)))?;
            for chunk in run.refs.into_iter().flatten() {
                sort.push(chunk.id, line, chunk.stored_len).map_err(spool::full)?;
            }
        }
    }
    if let Some(path) = tree.not_found() {
        return Err(Failure::at(path, cairn_proto::FsError::NotFound));
    }
    let mut chunk: Vec<Counted> = Vec::new();
    for counted in sort.finish().map_err(spool::full)? {
        let counted = counted.map_err(spool::full)?;
        if chunk.first().is_some_and(|c| c.id != counted.id) {
            tree.chunk(&chunk);
            chunk.clear();
        }
        chunk.push(counted);
    }
    tree.chunk(&chunk);
    tree.finish();
    Ok(tree)
}
