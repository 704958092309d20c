//! `cairn upload`: copy local files into the store without a mount.
//!
//! Directories are made first, then files several at a time, then hard links, then the directories'
//! times. A file appears under its name only when it is complete: it is written under a temporary
//! name and renamed. Mode, owner (as root), times, symbolic and hard links and special files are kept.

mod file;
mod plan;

use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use cairn_proto::FileKind;
use clap::Args;
use futures_util::{TryStreamExt, stream};

use self::plan::Plan;
use super::{
    connection::Connection,
    failure::Failure,
    store::{Store, StorePath},
};

/// Copy files into the store
#[derive(Args, Debug)]
pub struct Upload {
    /// Local files; the last of several is where they go if it ends with / or does not exist here
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
}

/// Files that are copied at the same time.
const AT_ONCE: usize = 8;

impl Upload {
    /// # Errors
    /// The first thing that cannot be copied.
    pub async fn run(mut self, connection: &Connection) -> Result<(), Failure> {
        let destination = self.destination();
        let store = Store::open(connection, "cairn upload").await?;
        let mut plan = Plan::default();
        for (source, target) in self.targets(&store, destination.as_ref()).await? {
            plan.add(&source, target, self.recursive)?;
        }
        self.carry_out(&store, plan).await?;
        store.close().await
    }

    /// DEST: given with `--to`, or the last of several arguments when it cannot be a source: it ends
    /// with a slash, no such file exists here, or it is a directory here and those are not asked for.
    fn destination(&mut self) -> Option<OsString> {
        if self.to.is_some() {
            return self.to.take();
        }
        let last = self.files.last()?;
        let is_destination = last.as_os_str().as_bytes().ends_with(b"/")
            || last.symlink_metadata().is_err()
            || (last.is_dir() && !self.recursive);
        if self.files.len() > 1 && is_destination {
            return self.files.pop().map(PathBuf::into_os_string);
        }
        None
    }

    /// The name in the store for each source.
    async fn targets(
        &self,
        store: &Store,
        destination: Option<&OsString>,
    ) -> Result<Vec<(PathBuf, StorePath)>, Failure> {
        let base = StorePath::new(destination.map_or("".as_ref(), |d| d.as_os_str()));
        let is_dir = base.is_root()
            || self.files.len() > 1
            || destination.is_some_and(|d| d.as_bytes().ends_with(b"/"))
            || store.find(&base).await?.is_some_and(|a| a.kind() == FileKind::Directory);
        let target = |source: &PathBuf| {
            if !is_dir {
                return Ok((source.clone(), base.clone()));
            }
            match own_name(source) {
                Some(name) => Ok((source.clone(), base.join(name.as_bytes()))),
                None => Err(Failure::new(format!("{} has no name of its own", source.display()))),
            }
        };
        self.files.iter().map(target).collect()
    }

    async fn carry_out(&self, store: &Store, plan: Plan) -> Result<(), Failure> {
        for directory in &plan.directories {
            store.make_dirs(&directory.target, 0o755).await?;
        }
        stream::iter(plan.files.iter().map(Ok::<_, Failure>))
            .try_for_each_concurrent(AT_ONCE, |item| async {
                file::copy_in(store, item).await?;
                if plan.roots.contains(&item.target) {
                    self.say(&item.source, &item.target, "");
                }
                Ok(())
            })
            .await?;
        stream::iter(plan.links.iter().map(Ok::<_, Failure>))
            .try_for_each_concurrent(AT_ONCE, |link| file::link(store, link))
            .await?;
        // Children first: making an entry changes its directory's times.
        for directory in plan.directories.iter().rev() {
            file::set_directory(store, directory).await?;
            if plan.roots.contains(&directory.target) {
                self.say(&directory.source, &directory.target, " and all in it");
            }
        }
        Ok(())
    }

    fn say(&self, source: &Path, target: &StorePath, extent: &str) {
        if !self.quiet {
            println!("uploaded {}{extent} as {target}", source.display());
        }
    }
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

    fn destination(recursive: bool, files: &[&str]) -> Option<OsString> {
        let files = files.iter().map(PathBuf::from).collect();
        Upload { files, recursive, to: None, quiet: true }.destination()
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
}
