//! `cairn download`: copy files of the store to the local disk without a mount.
//!
//! A file appears under its name only when it is complete and synced: it is written under a temporary
//! name and renamed. Mode, owner (as root), times, holes, symbolic and hard links and special files are
//! kept.

mod attributes;
mod file;
mod job;
mod tree;

use std::{
    ffi::{OsStr, OsString},
    io::{IsTerminal, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cairn_proto::FileKind;
use clap::Args;
use tokio::time::timeout;

use self::job::Job;
use super::{
    cat,
    connection::Connection,
    copies::{Copies, finish},
    failure::Failure,
    interrupt,
    output::unwritable,
    progress::Progress,
    store::{Store, StorePath},
};

/// Copy a file out of the store
#[derive(Args, Debug)]
pub struct Download {
    /// Path in the store
    name: OsString,

    /// Local file, or an existing directory to put it into; `-` is standard output
    out: PathBuf,

    /// Copy a directory with everything in it
    #[arg(short, long)]
    recursive: bool,

    /// Print nothing when all goes well
    #[arg(short, long)]
    quiet: bool,
}

/// How long copies may take to stop.
const STOP: Duration = Duration::from_millis(500);

impl Download {
    /// # Errors
    /// The first thing that cannot be copied. Nothing half done remains.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let store = Store::open(connection, "cairn download").await?;
        let path = StorePath::new(&self.name);
        if self.out.as_os_str() == "-" {
            return self.print(store, &path).await;
        }
        let out = self.place(&path);
        let job = Arc::new(Job::new(store, Progress::bytes(!self.quiet)));
        let mut copies = Copies::new();
        let result = tokio::select! {
            result = self.copy(&job, &path, &out, &mut copies) => result,
            interrupted = interrupt::requested() => Err(interrupted),
        };
        job.progress.end();
        if result.is_err() {
            let _ = timeout(STOP, copies.shutdown()).await;
            job.clean_up();
        }
        job.store.clone().end(result).await?;
        if !self.quiet {
            println!("downloaded {path} to {}", out.display());
        }
        Ok(())
    }

    async fn copy(
        &self,
        job: &Arc<Job>,
        path: &StorePath,
        out: &Path,
        copies: &mut Copies,
    ) -> Result<(), Failure> {
        let attr = job.store.resolve(path).await?;
        if attr.kind() == FileKind::Directory {
            if !self.recursive {
                return Err(Failure::new(format!(
                    "{path} is a directory: add -r to copy it with everything in it"
                )));
            }
            return tree::copy(job, path, &attr, out, copies).await;
        }
        job.progress.begin("", Some(attr.size));
        file::find_left_overs(job, out.parent().unwrap_or(Path::new("")));
        // A task of its own, as writing blocks.
        let (job, path, out) = (Arc::clone(job), path.clone(), out.to_owned());
        copies.spawn(async move { file::copy_out(&job, &path, &attr, &out).await });
        finish(copies, 0).await
    }

    /// To standard output. The line would be in the way of what a terminal shows.
    async fn print(&self, store: Store, path: &StorePath) -> Result<(), Failure> {
        let progress = Progress::bytes(!self.quiet && !std::io::stdout().is_terminal());
        let write = async {
            let mut out = std::io::stdout().lock();
            cat::copy_out(&store, path, &mut out, &progress).await?;
            out.flush().map_err(unwritable)
        };
        let result = tokio::select! {
            result = write => result,
            interrupted = interrupt::requested() => Err(interrupted),
        };
        progress.end();
        store.end(result).await
    }

    /// OUT, or OUT/NAME when OUT is a directory.
    fn place(&self, path: &StorePath) -> PathBuf {
        if self.out.is_dir() && !path.is_root() {
            self.out.join(OsStr::from_bytes(path.name()))
        } else {
            self.out.clone()
        }
    }
}
