//! `cairn-master restore-from-nodes`: its arguments, and what is said about what is lost.

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{print, read_token};
use crate::rebuild::{
    from_nodes::{self, Listed, Restored, Wanted},
    moment::utc,
};

/// See [`super::Verb`].
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Directory to make; must not exist or be empty
    #[arg(long, value_name = "DIR", env = "CAIRN_MASTER_DATA")]
    #[arg(required_unless_present = "list")]
    data: Option<PathBuf>,
    /// Address of a storage node; name as many as you know, others are found through them
    #[arg(long = "node", value_name = "HOST:PORT", required = true, num_args = 1..)]
    nodes: Vec<String>,
    /// UUID of the file system; that of the nodes by default
    #[arg(long, value_name = "UUID")]
    fs: Option<Uuid>,
    /// File with the shared secret that the nodes were given
    #[arg(long, value_name = "FILE", env = "CAIRN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Restore this backup, as --list names it, instead of the newest that is whole
    #[arg(long, value_name = "N.M", value_parser = from_nodes::generation)]
    generation: Option<u64>,
    /// Only show which backups there are
    #[arg(long)]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl RestoreArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let wanted = Wanted {
            nodes: self.nodes,
            fs: self.fs,
            token: self.token_file.as_deref().map(read_token).transpose()?,
            generation: self.generation,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start: {e}"))?;
        match self.data {
            Some(data) if !self.list => {
                let restored = runtime.block_on(from_nodes::restore(&data, &wanted));
                let restored = restored.map_err(|e| e.to_string())?;
                print(&if self.json { restored_json(&restored) } else { said(&restored) })
            }
            _ => {
                let listed = runtime.block_on(from_nodes::list(&wanted));
                let (listed, warnings) = listed.map_err(|e| e.to_string())?;
                warnings.iter().for_each(|warning| eprintln!("cairn-master: {warning}"));
                print(&if self.json { listed_json(&listed) } else { table(&listed) })
            }
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("strings and numbers are always JSON")
}

fn to_json(listed: &Listed) -> Value {
    let root = &listed.root;
    json!({
        "generation": listed.name(),
        "taken_unix_ms": root.taken_unix_ms,
        "current_unix_ms": root.current_unix_ms,
        "files": root.files,
        "directories": root.directories,
        "rows": root.rows,
        "bytes": root.bytes,
        "chunks": root.chunks,
        "problem": listed.missing,
    })
}

fn listed_json(listed: &[Listed]) -> String {
    let backups: Vec<_> = listed.iter().map(to_json).collect();
    pretty(&json!({ "version": 1, "backups": backups }))
}

fn restored_json(restored: &Restored) -> String {
    let passed_over: Vec<_> = restored.passed_over.iter().map(to_json).collect();
    let backup = to_json(&Listed { root: restored.root.clone(), missing: None });
    pretty(&json!({
        "version": 1,
        "fs_uuid": restored.root.fs_uuid,
        "backup": backup,
        "passed_over": passed_over,
        "warnings": restored.warnings,
    }))
}

fn table(listed: &[Listed]) -> String {
    if listed.is_empty() {
        return "the nodes that answer keep no backup".to_owned();
    }
    let mut text = format!(
        "{:<14}{:<25}{:<25}{:>12}{:>14}  STATE",
        "GENERATION", "TAKEN", "CURRENT UNTIL", "FILES", "BYTES"
    );
    for one in listed {
        let root = &one.root;
        let _infallible = write!(
            text,
            "\n{:<14}{:<25}{:<25}{:>12}{:>14}  {}",
            one.name(),
            utc(root.taken_unix_ms),
            utc(root.current_unix_ms),
            root.files,
            root.bytes,
            one.missing.as_deref().unwrap_or("whole")
        );
    }
    text
}

/// What people must know after a restore.
fn said(restored: &Restored) -> String {
    let Restored { root, passed_over, warnings } = restored;
    let listed = Listed { root: root.clone(), missing: None };
    let until = utc(root.current_unix_ms);
    let mut text = format!(
        "restored file system {} from generation {}: {} files, {} directories, {} rows\n\
         It is the file system of {}; until {until} nothing had changed since.\n\
         Lost is what was acknowledged after {until}: what was made later is missing, what was changed \
         later has its old content and name, what was removed later is back.",
        root.fs_uuid,
        listed.name(),
        root.files,
        root.directories,
        root.rows,
        utc(root.taken_unix_ms),
    );
    for one in passed_over {
        let why = one.missing.as_deref().unwrap_or_default();
        let taken = utc(one.root.taken_unix_ms);
        let _infallible =
            write!(text, "\nNewer, but not whole: generation {} of {taken}: {why}.", one.name());
    }
    for warning in warnings {
        let _infallible = write!(text, "\nNot asked: {warning}.");
    }
    text += "\nNow start the master on its old address, and then run `cairn fsck` and `cairn verify`: a \
             file that was removed after the backup may have lost chunks, and verify names it.";
    text
}
