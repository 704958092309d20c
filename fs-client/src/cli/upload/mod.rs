//! `cairn upload`: copy local files into the store without a mount.
//!
//! The walk finds directories and files; directories are made as it goes, files are copied several at a
//! time, then come hard links, then the directories' modes and times. A file appears under its name only
//! when it is complete. Mode, owner (as root), times, holes, symbolic and hard links and special files
//! are kept. The nodes are asked for each chunk before it is sent, so an upload that is started again
//! sends only what is missing.

mod directories;
mod file;
mod job;
mod report;
mod source;
mod walk;
mod xattrs;

use std::{
    collections::HashSet,
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cairn_proto::{FileKind, FsError, Ino};
use clap::Args;
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

pub use self::report::UploadReport;
use self::{
    directories::Directories,
    file::Place,
    job::Job,
    walk::{Found, HardLink, Item, LocalWalk},
};
use super::{
    connection::Connection,
    copies::{Copies, finish},
    failure::Failure,
    interrupt, output,
    progress::Progress,
    store::{Store, StorePath},
};

/// Copy files into the store; what the nodes have already is not sent again
#[derive(Args, Debug)]
pub struct Upload {
    /// Local files, - is standard input; the last of several is where they go if it ends with / or
    /// does not exist here
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Copy directories with everything in them
    #[arg(short, long)]
    recursive: bool,

    /// Where in the store they go: a directory, or the new name of a single file
    #[arg(short, long, value_name = "DEST")]
    to: Option<OsString>,

    /// Print nothing when all goes well
    #[arg(short, long)]
    quiet: bool,

    /// Print JSON for programs instead of text
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// What is given on the command line, and its name in the store.
type Named = Vec<(PathBuf, StorePath)>;

/// Files that are copied at the same time.
const AT_ONCE: usize = 16;
/// How far the walk may be ahead of the copies.
const AHEAD: usize = 256;
/// How long copies may take to stop.
const STOP: Duration = Duration::from_millis(300);

impl Upload {
    /// # Errors
    /// The first thing that cannot be copied. Nothing half done remains, as far as the store answers.
    pub async fn run(mut self, connection: &Connection) -> Result<(), Failure> {
        let destination = self.destination();
        self.check(destination.as_ref())?;
        let mut config = connection.config("cairn upload")?;
        config.ask_before_put = true;
        let store = Store::with(&config).await?;
        let named = match self.targets(&store, destination.as_ref()).await {
            Ok(named) => named,
            Err(failure) => return store.end(Err(failure)).await,
        };
        let progress = Progress::bytes(!self.quiet && !self.json);
        let job = Arc::new(Job::new(store, progress));
        let mut copies = Copies::new();
        let result = tokio::select! {
            result = self.copy(&job, &named, &mut copies) => result,
            () = job.follow() => Ok(()),
            interrupted = interrupt::requested() => Err(interrupted
                .and(": the same command goes on where this one has stopped")),
        };
        job.progress.end();
        if result.is_err() {
            let _ = timeout(STOP, copies.shutdown()).await;
            job.clean_up().await;
        }
        job.store.clone().end(result).await?;
        let report = UploadReport::new(&job, &named);
        match (self.json, self.quiet) {
            (true, _) => output::json(&report)?,
            (false, false) => report.print(),
            (false, true) => {}
        }
        Ok(())
    }

    /// DEST: given with `--to`, or the last of several arguments when it cannot be a source: it ends
    /// with a slash, no such file exists here, or it is a directory here and those are not asked for.
    fn destination(&mut self) -> Option<OsString> {
        if self.to.is_some() {
            return self.to.take();
        }
        let from_stdin = self.is_stdin();
        let last = self.files.last()?;
        let is_destination = from_stdin
            || last.as_os_str().as_bytes().ends_with(b"/")
            || last.symlink_metadata().is_err()
            || (last.is_dir() && !self.recursive);
        if self.files.len() > 1 && is_destination {
            return self.files.pop().map(PathBuf::into_os_string);
        }
        None
    }

    fn is_stdin(&self) -> bool {
        self.files.first().is_some_and(|file| file.as_os_str() == "-")
    }

    /// Standard input has no name and stands alone.
    fn check(&self, destination: Option<&OsString>) -> Result<(), Failure> {
        if !self.files.iter().any(|file| file.as_os_str() == "-") {
            return Ok(());
        }
        if self.files.len() > 1 {
            return Err(Failure::usage(
                "standard input (-) is uploaded alone: name the other files in another command",
            ));
        }
        if destination.is_none_or(|d| d.as_bytes().ends_with(b"/")) {
            return Err(Failure::usage(
                "standard input has no name: say what it shall be called, as in cairn upload - NAME",
            ));
        }
        Ok(())
    }

    /// The name in the store for each source.
    async fn targets(
        &self,
        store: &Store,
        destination: Option<&OsString>,
    ) -> Result<Named, Failure> {
        let base = StorePath::new(destination.map_or("".as_ref(), |d| d.as_os_str()));
        let exists = || async {
            let found = store.find(&base).await?;
            Ok::<_, Failure>(found.is_some_and(|attr| attr.kind() == FileKind::Directory))
        };
        if self.is_stdin() {
            if base.is_root() || exists().await? {
                return Err(Failure::at(&base, FsError::IsDirectory).and(": name a file in it"));
            }
            return Ok(vec![("-".into(), base)]);
        }
        let is_dir = base.is_root()
            || self.files.len() > 1
            || destination.is_some_and(|d| d.as_bytes().ends_with(b"/"))
            || exists().await?;
        let mut seen = HashSet::new();
        let target = |source: &PathBuf| {
            let target = match own_name(source) {
                _ if !is_dir => base.clone(),
                Some(name) => base.join(name.as_bytes()),
                None => {
                    let source = source.display();
                    return Err(Failure::new(format!("{source} has no name of its own: use --to")));
                }
            };
            if seen.insert(target.clone()) {
                return Ok((source.clone(), target));
            }
            Err(Failure::new(format!("two of the files would become {target}: upload one of them")))
        };
        self.files.iter().map(target).collect()
    }

    async fn copy(
        &self,
        job: &Arc<Job>,
        named: &Named,
        copies: &mut Copies,
    ) -> Result<(), Failure> {
        let mut directories = Directories::default();
        if self.is_stdin() {
            job.progress.begin("standard input", None);
            let target = named[0].1.clone();
            let dir = directories.open(job, &target.parent()).await?;
            // A task of its own: reading may wait for ever.
            let job = Arc::clone(job);
            copies.spawn(async move {
                let place = Place { target: &target, dir };
                file::copy_stdin(&job, &place, 0o666 & !umask()).await
            });
            return finish(copies, 0).await;
        }
        self.count(job, named);
        let (mut made, mut links) = (Vec::new(), Vec::new());
        let mut found = self.walk(named);
        while let Some(found) = found.recv().await {
            match found? {
                Found::Directory(item) => {
                    let ino = directories.enter(&job.store, &item.target).await?;
                    made.push((item, ino));
                }
                Found::Link(link) => links.push(link),
                Found::File(item) => {
                    let dir = directories.open(job, &item.target.parent()).await?;
                    let job = Arc::clone(job);
                    copies.spawn(async move { file::copy_in(&job, &item, dir).await });
                    finish(copies, AT_ONCE - 1).await?;
                }
            }
        }
        finish(copies, 0).await?;
        self.link(job, &mut directories, links, copies).await?;
        dress(job, made, copies).await
    }

    /// Walks on a thread of its own.
    fn walk(&self, named: &Named) -> mpsc::Receiver<Result<Found, Failure>> {
        let (send, found) = mpsc::channel(AHEAD);
        let walk = LocalWalk::new(named, self.recursive);
        spawn_blocking(move || {
            for found in walk {
                // Nobody waits for the rest when the upload has ended.
                if send.blocking_send(found).is_err() {
                    return;
                }
            }
        });
        found
    }

    /// Finds out how much there is, for those who look at the line, while copying goes on.
    fn count(&self, job: &Job, named: &Named) {
        job.progress.begin("", Some(0));
        if !job.progress.is_shown() {
            return;
        }
        let (walk, progress) = (LocalWalk::new(named, self.recursive), job.progress.clone());
        spawn_blocking(move || {
            // The walk that copies reports what is wrong.
            for found in walk.map_while(Result::ok) {
                if let Found::File(item) = found
                    && item.metadata.is_file()
                {
                    progress.add_total(item.metadata.len());
                }
            }
        });
    }

    async fn link(
        &self,
        job: &Arc<Job>,
        directories: &mut Directories,
        links: Vec<HardLink>,
        copies: &mut Copies,
    ) -> Result<(), Failure> {
        for link in links {
            let dir = directories.open(job, &link.target.parent()).await?;
            let job = Arc::clone(job);
            copies.spawn(async move { file::link(&job, &link, dir).await });
            finish(copies, AT_ONCE - 1).await?;
        }
        finish(copies, 0).await
    }
}

/// Gives directories their attributes, when nothing is put into them any more.
async fn dress(job: &Arc<Job>, made: Vec<(Item, Ino)>, copies: &mut Copies) -> Result<(), Failure> {
    for (item, ino) in made {
        let job = Arc::clone(job);
        copies.spawn(async move { file::set_directory(&job, &item, ino).await });
        finish(copies, AT_ONCE - 1).await?;
    }
    finish(copies, 0).await
}

/// The mode bits that new files shall not have.
fn umask() -> u32 {
    // Linux tells it only in exchange for a new one. No other thread makes files meanwhile.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    mask.bits()
}

/// The last component of `path`; of `.` and `..` that of where they lead.
fn own_name(path: &Path) -> Option<OsString> {
    match path.file_name() {
        Some(name) => Some(name.to_owned()),
        None => path.canonicalize().ok()?.file_name().map(ToOwned::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(recursive: bool, files: &[&str]) -> Upload {
        let files = files.iter().map(PathBuf::from).collect();
        Upload { files, recursive, to: None, quiet: true, json: false }
    }

    fn destination(recursive: bool, files: &[&str]) -> Option<OsString> {
        upload(recursive, files).destination()
    }

    #[test]
    fn the_last_argument_is_the_destination_when_it_cannot_be_a_source() {
        assert_eq!(destination(false, &["Cargo.toml"]), None);
        assert_eq!(destination(false, &["Cargo.toml", "src/main.rs"]), None);
        assert_eq!(destination(false, &["Cargo.toml", "nowhere"]), Some("nowhere".into()));
        assert_eq!(destination(false, &["Cargo.toml", "src"]), Some("src".into()));
        assert_eq!(destination(true, &["Cargo.toml", "src"]), None);
        assert_eq!(destination(true, &["src", "/"]), Some("/".into()));
        assert_eq!(destination(true, &["/"]), None);
    }

    #[test]
    fn standard_input_needs_a_name_and_stands_alone() {
        assert_eq!(destination(false, &["-", "Cargo.toml"]), Some("Cargo.toml".into()));
        let refused = |files: &[&str]| {
            let mut upload = upload(false, files);
            let destination = upload.destination();
            upload.check(destination.as_ref()).is_err()
        };
        assert!(refused(&["-"]) && refused(&["-", "dir/"]) && refused(&["-", "Cargo.toml", "x"]));
        assert!(!refused(&["-", "name"]) && !refused(&["./-"]));
    }
}
