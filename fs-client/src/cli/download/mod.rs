//! `cairn download`: copy files of the store to the local disk without a mount.
//!
//! A file appears under its name only when it is complete: it is written under a temporary name and
//! renamed. Mode, owner (as root), times, symbolic and hard links and special files are kept.

mod attributes;
mod tree;

use std::{
    ffi::OsString,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use cairn_proto::{Attr, FileKind, FsError};
use clap::Args;

use super::{
    cat::copy_out,
    connection::Connection,
    failure::Failure,
    output::unwritable,
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

impl Download {
    /// # Errors
    /// The first thing that cannot be copied.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let store = Store::open(connection, "cairn download").await?;
        let path = StorePath::new(&self.name);
        if self.out.as_os_str() == "-" {
            let mut out = std::io::stdout().lock();
            copy_out(&store, &path, &mut out).await?;
            out.flush().map_err(unwritable)?;
            return store.close().await;
        }
        let attr = store.resolve(&path).await?;
        let is_tree = attr.kind() == FileKind::Directory;
        if is_tree && !self.recursive {
            return Err(Failure::new(format!(
                "{path} is a directory: add -r to copy it with everything in it"
            )));
        }
        let out = self.place(&path);
        if is_tree {
            tree::copy(&store, connection, &path, &out).await?;
        } else {
            fetch(&store, &path, &attr, &out).await?;
        }
        if !self.quiet {
            println!("downloaded {path} to {}", out.display());
        }
        store.close().await
    }

    /// OUT, or OUT/NAME when OUT is a directory.
    fn place(&self, path: &StorePath) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        if self.out.is_dir() && !path.is_root() {
            self.out.join(std::ffi::OsStr::from_bytes(path.name()))
        } else {
            self.out.clone()
        }
    }
}

/// Copies the inode `attr` at `path`, which is no directory, to `out`.
///
/// # Errors
/// A sentence with the path at fault.
async fn fetch(store: &Store, path: &StorePath, attr: &Attr, out: &Path) -> Result<(), Failure> {
    use std::os::unix::ffi::OsStrExt;
    let temporary = temporary_name(out);
    let failed = |e: std::io::Error| Failure::new(format!("cannot write {}: {e}", out.display()));
    let made = match attr.kind() {
        FileKind::Regular => fetch_bytes(store, path, &temporary).await,
        FileKind::Symlink => {
            let target = store.vfs.readlink(store.caller, attr.ino).await;
            let target = target.map_err(|e| Failure::at(path, e))?;
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&target), &temporary)
                .map_err(failed)
        }
        FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
            attributes::make_node(&temporary, attr).map_err(failed)
        }
        FileKind::Directory => Err(Failure::at(path, FsError::IsDirectory)),
    };
    let finished = made.and_then(|()| {
        attributes::apply(&temporary, attr).map_err(failed)?;
        std::fs::rename(&temporary, out).map_err(failed)
    });
    if finished.is_err() {
        // The failure is what people must see.
        let _ = std::fs::remove_file(&temporary);
    }
    finished
}

async fn fetch_bytes(store: &Store, path: &StorePath, out: &Path) -> Result<(), Failure> {
    let failed = |e| Failure::new(format!("cannot write {}: {e}", out.display()));
    let file = File::create(out).map_err(failed)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    copy_out(store, path, &mut writer).await?;
    writer.into_inner().map_err(|e| failed(e.into_error()))?;
    Ok(())
}

/// `DIR/.NAME.downloading-PID`
fn temporary_name(out: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    let own = out.file_name().unwrap_or_default().as_encoded_bytes();
    // A long name is cut so that the temporary one is valid too.
    let own = String::from_utf8_lossy(&own[..own.len().min(150)]).into_owned();
    name.push(own);
    name.push(format!(".downloading-{}", std::process::id()));
    out.with_file_name(name)
}
