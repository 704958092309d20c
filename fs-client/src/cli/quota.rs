//! `cairn quota`: what directories may hold, and what they do.

use std::{ffi::OsString, time::Duration};

use cairn_daemon::size::Size;
use cairn_proto::pb;
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION},
    progress::Progress,
    store::StorePath,
    table::{Table, cell},
    units,
};
use crate::rpc::Admin;

/// How often the master is asked how far counting is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Limit what directories may hold; beyond it programs get EDQUOT
#[derive(Args, Debug)]
pub struct Quota {
    #[command(subcommand)]
    verb: QuotaVerb,
}

#[derive(Subcommand, Debug)]
enum QuotaVerb {
    Set(Set),
    Show(Show),
    List(List),
    Remove(Remove),
}

/// Give a directory a quota or change it; waits until what it holds already is counted
#[derive(Args, Debug)]
struct Set {
    /// The directory in the store
    #[arg(value_name = "DIR")]
    path: OsString,
    /// Bytes that the chunks of its files may take, like 10GiB; 0: any number
    #[arg(long, value_name = "BYTES", required_unless_present = "inodes")]
    bytes: Option<Size>,
    /// Files, directories and links that may be in it, itself included; 0: any number
    #[arg(long, value_name = "N")]
    inodes: Option<u64>,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// Show the quota that a directory or file counts in
#[derive(Args, Debug)]
struct Show {
    /// The path in the store
    #[arg(value_name = "PATH")]
    path: OsString,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// Show all quotas
#[derive(Args, Debug)]
struct List {
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// Take the quota of a directory away
#[derive(Args, Debug)]
struct Remove {
    /// The directory in the store
    #[arg(value_name = "DIR")]
    path: OsString,
}

/// Quotas of directories. `cairn quota list --json`, `cairn quota show PATH --json`
#[derive(Serialize, JsonSchema)]
pub struct QuotasReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// The quotas.
    quotas: Vec<QuotaReport>,
}

/// One directory with a quota.
#[derive(Serialize, JsonSchema)]
struct QuotaReport {
    /// Where the directory was when the quota was set.
    path: String,
    /// Its inode number.
    ino: u64,
    /// Bytes that chunks take, each reference counted.
    bytes: u64,
    /// Bytes that they may take; 0: any number.
    bytes_limit: u64,
    /// Inodes in it, itself included.
    inodes: u64,
    /// Inodes that may be in it; 0: any number.
    inodes_limit: u64,
    /// What it held before is still being counted.
    counting: bool,
    /// It was removed and is about to be gone.
    ending: bool,
}

impl From<pb::Quota> for QuotaReport {
    fn from(quota: pb::Quota) -> Self {
        Self {
            path: quota.path,
            ino: quota.ino,
            bytes: quota.bytes,
            bytes_limit: quota.bytes_limit,
            inodes: quota.inodes,
            inodes_limit: quota.inodes_limit,
            counting: quota.counting,
            ending: quota.ending,
        }
    }
}

/// The path as the master takes it.
fn text(path: &OsString) -> Result<String, Failure> {
    let path = StorePath::new(path);
    let text = String::from_utf8(path.as_bytes().to_vec());
    text.map_err(|_| Failure::usage("quotas are set on directories whose names are UTF-8"))
}

impl Quota {
    /// # Errors
    /// When the master cannot be asked, or there is no such directory.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn quota")?).await?;
        match self.verb {
            QuotaVerb::Set(set) => set.run(&admin).await,
            QuotaVerb::Show(show) => {
                // `/` and an empty path are both the root here, and an empty one is all to the master.
                let path = format!("/{}", text(&show.path)?);
                print(admin.quotas(&path).await?, show.json, "nothing limits it")
            }
            QuotaVerb::List(list) => {
                print(admin.quotas("").await?, list.json, "no directory has a quota")
            }
            QuotaVerb::Remove(remove) => {
                let quota = admin.remove_quota(&text(&remove.path)?).await?;
                settled(&admin, quota.ino, true).await?;
                println!("{}: has no quota any more", quota.path);
                Ok(())
            }
        }
    }
}

impl Set {
    async fn run(self, admin: &Admin) -> Result<(), Failure> {
        let bytes = self.bytes.map(|size| size.0);
        let quota = admin.set_quota(&text(&self.path)?, bytes, self.inodes).await?;
        let quota = settled(admin, quota.ino, !self.json).await?.unwrap_or(quota);
        print(vec![quota], self.json, "")
    }
}

/// Waits until an account is counted, or gone.
async fn settled(admin: &Admin, ino: u64, shown: bool) -> Result<Option<pb::Quota>, Failure> {
    let bar = Progress::counts(shown);
    bar.begin("inodes", None);
    loop {
        let found = admin.quotas("").await?.into_iter().find(|quota| quota.ino == ino);
        match found {
            Some(quota) if quota.counting || quota.ending => bar.reach(quota.inodes),
            settled => return Ok(settled),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn print(quotas: Vec<pb::Quota>, json: bool, none: &str) -> Result<(), Failure> {
    let quotas: Vec<_> = quotas.into_iter().map(QuotaReport::from).collect();
    if json {
        return output::json(&QuotasReport { version: JSON_VERSION, quotas });
    }
    if quotas.is_empty() {
        println!("{none}");
        return Ok(());
    }
    let header = ["DIRECTORY", "USED", "LIMIT", "INODES", "LIMIT", "STATE"];
    let mut table = Table::new("", header);
    let limit = |limit: u64, show: fn(u64) -> String| match limit {
        0 => "-".to_owned(),
        limit => show(limit),
    };
    for quota in &quotas {
        table.row([
            cell(&quota.path),
            cell(units::bytes(quota.bytes)),
            cell(limit(quota.bytes_limit, units::bytes)),
            cell(units::count(quota.inodes)),
            cell(limit(quota.inodes_limit, units::count)),
            cell(match (quota.counting, quota.ending) {
                (true, _) => "counting",
                (_, true) => "ending",
                _ => "",
            }),
        ]);
    }
    table.numbers(1, 5).print();
    Ok(())
}
