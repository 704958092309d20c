//! `cairn meta dump`: all metadata of a running master in one file, taken from a snapshot.
//!
//! A file appears under its name only when it is whole and synced: an interrupted dump leaves at most
//! `NAME.part`. Loading is the master's (`cairn-master load`): it makes a data directory.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use cairn_daemon::io_error::explain;
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION},
    progress::Progress,
    units,
};
use crate::rpc::Admin;

/// Save the master's metadata
#[derive(Args, Debug)]
pub struct Meta {
    #[command(subcommand)]
    verb: MetaVerb,
}

#[derive(Subcommand, Debug)]
enum MetaVerb {
    Dump(Dump),
}

/// Write all metadata into a file while the master serves; `cairn-master load` makes a master of it
#[derive(Args, Debug)]
struct Dump {
    /// The file to make or replace; - is standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// What was dumped. `cairn meta dump FILE --json`
#[derive(Serialize, JsonSchema)]
pub struct DumpReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// Where to.
    file: String,
    /// UUID of the file system.
    fs_uuid: String,
    /// Length of the file.
    bytes: u64,
    /// Rows in it.
    rows: u64,
    /// Inodes among them.
    inodes: u64,
}

impl Meta {
    /// # Errors
    /// When the master cannot be asked, or what it says cannot be written.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        match self.verb {
            MetaVerb::Dump(dump) => dump.run(connection).await,
        }
    }
}

impl Dump {
    async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let mut sink = self.sink()?;
        let admin = Admin::connect(&connection.config("cairn meta")?).await?;
        let status = admin.status().await?;
        let inodes = status.files + status.directories + status.other_inodes + status.orphans;
        let bar = Progress::counts(!self.json);
        // An inode, its name and its place in the listing.
        bar.begin("rows", Some(inodes * 3));
        let mut parts = admin.dump().await?;
        let (mut rows, mut bytes, mut end) = (0, 0, None);
        while let Some(part) = parts.next().await? {
            sink.write(&part.data)?;
            rows = part.rows;
            bytes += part.data.len() as u64;
            bar.reach(rows);
            if part.done {
                end = Some(part.counts);
            }
        }
        bar.end();
        let Some(counts) = end else {
            return Err(Failure::new("the master ended the dump before it was whole: try again"));
        };
        sink.keep()?;
        let inodes = counts.iter().find(|count| count.kind == "i").map_or(0, |count| count.rows);
        let report = DumpReport {
            version: JSON_VERSION,
            file: self.file.display().to_string(),
            fs_uuid: admin.fs_uuid().to_string(),
            bytes,
            rows,
            inodes,
        };
        self.print(&report)
    }

    fn sink(&self) -> Result<Sink, Failure> {
        if self.file.as_os_str() != "-" {
            return Sink::file(&self.file);
        }
        if self.json {
            return Err(Failure::usage("give --json only with the name of a file to dump into"));
        }
        if io::stdout().is_terminal() {
            return Err(Failure::usage(
                "a dump is nothing to look at: give the name of a file, or redirect the output",
            ));
        }
        Ok(Sink::Output(io::stdout()))
    }

    fn print(&self, report: &DumpReport) -> Result<(), Failure> {
        if self.json {
            return output::json(report);
        }
        let inodes = units::plural(report.inodes, "inode");
        let rows = units::plural(report.rows, "row");
        let (bytes, file) = (units::bytes(report.bytes), &report.file);
        let sentence = format!("{inodes} in {rows}, {bytes}, of file system {}", report.fs_uuid);
        if self.file.as_os_str() == "-" {
            eprintln!("{sentence}");
        } else {
            println!("{file}: {sentence}");
        }
        Ok(())
    }
}

/// Where a dump goes.
enum Sink {
    Output(io::Stdout),
    File { file: File, part: PathBuf, name: PathBuf },
}

fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| Failure::new(format!("cannot write {}: {}", path.display(), explain(&error)))
}

impl Sink {
    fn file(name: &Path) -> Result<Self, Failure> {
        let mut part = name.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(unwritable(&part))?;
        Ok(Self::File { file, part, name: name.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Output(out) => out.write_all(bytes).map_err(output::unwritable),
            Self::File { file, part, .. } => file.write_all(bytes).map_err(unwritable(part)),
        }
    }

    /// The dump is whole.
    fn keep(self) -> Result<(), Failure> {
        match self {
            Self::Output(mut out) => out.flush().map_err(output::unwritable),
            Self::File { file, part, name } => {
                file.sync_all().map_err(unwritable(&part))?;
                fs::rename(&part, &name).map_err(unwritable(&name))?;
                let directory = name.parent().filter(|p| !p.as_os_str().is_empty());
                let directory = directory.unwrap_or(Path::new("."));
                File::open(directory).and_then(|d| d.sync_all()).map_err(unwritable(directory))
            }
        }
    }
}
