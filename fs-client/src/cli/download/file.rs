//! One file, link or device of the store onto the local disk.
//!
//! The local disk is used with `block_in_place`: it may be slow, and other copies go on meanwhile.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_daemon::io_error::explain;
use cairn_proto::{Attr, FileKind, FsError};
use tokio::task::block_in_place;

use super::{attributes, job::Job};
use crate::{
    cli::{failure::Failure, store::StorePath},
    vfs::{Fh, OpenMode, SeekTo},
};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Copies the inode `attr` at `path`, which is no directory, to `out`. It appears there when it is
/// complete and, if it is a file, synced.
///
/// # Errors
/// A sentence with the path at fault.
pub(super) async fn copy_out(
    job: &Job,
    path: &StorePath,
    attr: &Attr,
    out: &Path,
) -> Result<(), Failure> {
    let failed = |e: io::Error| cannot_write(out, &e);
    let name = out.file_name().unwrap_or_default().as_bytes();
    let directory = out.parent().unwrap_or(Path::new("")).to_owned();
    for old in job.left_overs.take(directory, job.names.stem(name)) {
        // It is in nobody's way if it cannot be removed.
        let _ = fs::remove_file(out.with_file_name(OsStr::from_bytes(&old)));
    }
    let temporary = out.with_file_name(OsStr::from_bytes(&job.names.name(name)));
    job.staged.add(temporary.clone());
    let result = async {
        let file = make(job, path, attr, &temporary, out).await?;
        let xattrs = attributes::xattrs(job, path, attr).await?;
        block_in_place(|| {
            attributes::apply(&temporary, attr, &xattrs).map_err(failed)?;
            file.map_or(Ok(()), |file| file.sync_all()).map_err(failed)?;
            fs::rename(&temporary, out).map_err(failed)
        })
    }
    .await;
    if result.is_ok() {
        job.staged.remove(&temporary);
    }
    result
}

/// Makes what `attr` says as `temporary`, which becomes `out`; answers the file if it is one.
async fn make(
    job: &Job,
    path: &StorePath,
    attr: &Attr,
    temporary: &Path,
    out: &Path,
) -> Result<Option<File>, Failure> {
    let failed = |e: io::Error| cannot_write(out, &e);
    let at = |e| Failure::at(path, e);
    match attr.kind() {
        FileKind::Regular => {
            job.progress.name(&path.to_string());
            let mut how = File::options();
            let file = how.write(true).create_new(true).mode(0o600).open(temporary);
            let file = file.map_err(failed)?;
            let opened = job.store.vfs.open(job.store.caller, attr.ino, OpenMode::READ).await;
            let opened = opened.map_err(at)?;
            let copied = copy_bytes(job, path, &opened.attr, opened.fh, &file, out).await;
            let released = job.store.vfs.release(opened.fh).await.map_err(at);
            copied.and(released).map(|()| Some(file))
        }
        FileKind::Symlink => {
            let target = job.store.vfs.readlink(job.store.caller, attr.ino).await.map_err(at)?;
            std::os::unix::fs::symlink(OsStr::from_bytes(&target), temporary).map_err(failed)?;
            Ok(None)
        }
        FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
            attributes::make_node(temporary, attr).map_err(failed)?;
            Ok(None)
        }
        FileKind::Directory => Err(at(FsError::IsDirectory)),
    }
}

/// Writes what the handle `fh` reads to `file`. Holes stay holes.
async fn copy_bytes(
    job: &Job,
    path: &StorePath,
    attr: &Attr,
    fh: Fh,
    file: &File,
    out: &Path,
) -> Result<(), Failure> {
    let has_holes = attr.allocated < attr.size;
    let mut offset = 0;
    while let Some((start, end)) = next_data(job, path, fh, offset, has_holes).await? {
        job.progress.add(start - offset);
        offset = start;
        while offset < end {
            let room = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
            let piece = job.store.vfs.read(fh, offset, room).await;
            let piece = piece.map_err(|e| Failure::at(path, e))?;
            if piece.is_empty() {
                break;
            }
            let written = block_in_place(|| file.write_all_at(&piece, offset));
            written.map_err(|e| cannot_write(out, &e))?;
            offset += piece.len() as u64;
            job.progress.add(piece.len() as u64);
        }
        if offset < end {
            break;
        }
    }
    // Without holes the end is where the reading ended: the file may have another length by now.
    let len = if has_holes { attr.size.max(offset) } else { offset };
    job.progress.add(len - offset);
    file.set_len(len).map_err(|e| cannot_write(out, &e))
}

/// The next range with data at or after `offset`; `None` when there is no more.
async fn next_data(
    job: &Job,
    path: &StorePath,
    fh: Fh,
    offset: u64,
    has_holes: bool,
) -> Result<Option<(u64, u64)>, Failure> {
    if !has_holes {
        return Ok(Some((offset, u64::MAX)));
    }
    let start = match job.store.vfs.lseek(fh, offset, SeekTo::Data).await {
        Ok(start) => start,
        Err(FsError::NoSuchDevice) => return Ok(None),
        Err(e) => return Err(Failure::at(path, e)),
    };
    match job.store.vfs.lseek(fh, start, SeekTo::Hole).await {
        Ok(end) => Ok(Some((start, end))),
        Err(e) => Err(Failure::at(path, e)),
    }
}

/// Finds what killed downloads have left in `directory`.
pub(super) fn find_left_overs(job: &Job, directory: &Path) {
    // A directory that cannot be listed is found out when something is written to it.
    let listing = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    for entry in listing.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let changed = entry.metadata().and_then(|m| m.modified()).ok();
        let age = changed.and_then(|at| at.elapsed().ok()).unwrap_or(Duration::ZERO);
        if let Some(stem) = job.names.left_over(name.as_bytes(), age) {
            job.left_overs.add(PathBuf::from(directory), stem, name.as_bytes());
        }
    }
}

/// `path` cannot be made or written.
pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {}", path.display(), explain(error)))
}
