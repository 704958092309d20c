//! One file, link or device from here into the store.
//!
//! The local disk is used with `block_in_place`: it may be slow, and other copies go on meanwhile.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::{
        ffi::OsStringExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
    sync::atomic::Ordering::Relaxed,
};

use bytes::Bytes;
use cairn_proto::{Attr, FileName, FsError, Ino};
use tokio::task::block_in_place;

use super::{
    job::Job,
    source::Source,
    walk::{HardLink, Item, cannot_read},
    xattrs,
};
use crate::{
    cli::{
        device,
        failure::Failure,
        store::{Store, StorePath, timestamp},
    },
    vfs::{AttrChange, Fh, OpenMode, TimeChange},
};

/// Where a copy goes.
pub(super) struct Place<'a> {
    pub(super) target: &'a StorePath,
    pub(super) dir: Ino,
}

/// Copies what is no directory. It appears under its name when it is complete.
pub(super) async fn copy_in(job: &Job, item: &Item, dir: Ino) -> Result<(), Failure> {
    let place = Place { target: &item.target, dir };
    let change = attributes(&job.store, &item.metadata);
    let make = async |name: &FileName| {
        let made = make(job, item, &place, name).await?;
        xattrs::copy_in(job, item, &made).await?;
        Ok(made)
    };
    stage(job, &place, change, make).await?;
    job.done.files.fetch_add(1, Relaxed);
    Ok(())
}

/// Copies standard input.
pub(super) async fn copy_stdin(job: &Job, place: &Place<'_>, mode: u32) -> Result<(), Failure> {
    let change = AttrChange { mode: Some(mode), ..AttrChange::default() };
    let input = Path::new("standard input");
    let make = async |name: &FileName| {
        let stdin = rustix::io::dup(rustix::stdio::stdin());
        let stdin = stdin.map_err(|e| cannot_read(input, &e.into()))?;
        write_file(job, place, name, input, Source::stream(File::from(stdin))).await
    };
    stage(job, place, change, make).await?;
    job.done.files.fetch_add(1, Relaxed);
    Ok(())
}

/// Makes an inode under a temporary name, gives it its attributes and then its name.
async fn stage(
    job: &Job,
    place: &Place<'_>,
    change: AttrChange,
    make: impl AsyncFnOnce(&FileName) -> Result<Attr, Failure>,
) -> Result<(), Failure> {
    let at = |e| Failure::at(place.target, e);
    let (vfs, caller) = (&job.store.vfs, job.store.caller);
    let name = FileName::try_from(place.target.name()).map_err(at)?;
    for old in job.left_overs.take(place.dir, job.names.stem(name.as_bytes())) {
        let old = FileName::try_from(Bytes::from(old)).map_err(at)?;
        match vfs.unlink(caller, place.dir, &old).await {
            Ok(()) | Err(FsError::NotFound) => {}
            Err(e) => return Err(at(e)),
        }
    }
    let temporary = FileName::try_from(Bytes::from(job.names.name(name.as_bytes())));
    let temporary = temporary.expect("a valid name with something before and after, cut to fit");
    job.staged.add((place.dir, temporary.clone()));
    let result = async {
        let attr = make(&temporary).await?;
        vfs.setattr(caller, attr.ino, change).await.map_err(at)?;
        vfs.rename(caller, place.dir, &temporary, place.dir, &name, 0).await.map_err(at)
    }
    .await;
    if result.is_ok() {
        job.staged.remove(&(place.dir, temporary));
    }
    result
}

async fn make(job: &Job, item: &Item, place: &Place<'_>, name: &FileName) -> Result<Attr, Failure> {
    let at = |e| Failure::at(place.target, e);
    let (vfs, caller) = (&job.store.vfs, job.store.caller);
    if item.metadata.is_symlink() {
        let target = std::fs::read_link(&item.source).map_err(|e| cannot_read(&item.source, &e))?;
        let target = Bytes::from(target.into_os_string().into_vec());
        return vfs.symlink(caller, place.dir, name, target).await.map_err(at);
    }
    if !item.metadata.is_file() {
        let kind = item.metadata.file_type();
        let is_device = kind.is_char_device() || kind.is_block_device();
        let rdev = if is_device { device::pack(item.metadata.rdev()) } else { 0 };
        return vfs.mknod(caller, place.dir, name, item.metadata.mode(), rdev).await.map_err(at);
    }
    job.progress.name(&item.target.to_string());
    let local = File::open(&item.source).map_err(|e| cannot_read(&item.source, &e))?;
    let source = Source::file(local, &item.metadata);
    write_file(job, place, name, &item.source, source).await
}

/// Makes a regular file with the bytes of `source`, all of them committed.
async fn write_file(
    job: &Job,
    place: &Place<'_>,
    name: &FileName,
    path: &Path,
    source: Source,
) -> Result<Attr, Failure> {
    let at = |e| Failure::at(place.target, e);
    let (vfs, caller) = (&job.store.vfs, job.store.caller);
    let created = vfs.create(caller, place.dir, name, 0o600, OpenMode::WRITE, true).await;
    let created = created.map_err(at)?;
    let written = write_all(job, place, path, source, created.opened.fh).await;
    let released = vfs.release(created.opened.fh).await.map_err(at);
    let (end, len) = written?;
    released?;
    job.done.bytes.fetch_add(len, Relaxed);
    if len == end {
        return Ok(created.opened.attr);
    }
    // The file ends with a hole.
    job.done.holes.fetch_add(len - end, Relaxed);
    let change = AttrChange { size: Some(len), ..AttrChange::default() };
    vfs.setattr(caller, created.opened.attr.ino, change).await.map_err(at)
}

/// Where the data ends, and the file.
async fn write_all(
    job: &Job,
    place: &Place<'_>,
    path: &Path,
    mut source: Source,
    fh: Fh,
) -> Result<(u64, u64), Failure> {
    let cannot_read = |e: io::Error| cannot_read(path, &e);
    let mut end = 0;
    while let Some((offset, piece)) = block_in_place(|| source.next()).map_err(cannot_read)? {
        job.done.holes.fetch_add(offset - end, Relaxed);
        let written = job.store.vfs.write(fh, offset, piece).await;
        end = offset + written.map_err(|e| Failure::at(place.target, e))? as u64;
    }
    Ok((end, source.len().map_err(cannot_read)?))
}

/// Gives a file that was copied another name.
pub(super) async fn link(job: &Job, link: &HardLink, dir: Ino) -> Result<(), Failure> {
    let at = |e| Failure::at(&link.target, e);
    let (vfs, caller) = (&job.store.vfs, job.store.caller);
    let existing = job.store.resolve(&link.existing).await?;
    let name = FileName::try_from(link.target.name()).map_err(at)?;
    match vfs.link(caller, existing.ino, dir, &name).await {
        Ok(_) => return Ok(()),
        Err(FsError::Exists) => {}
        Err(e) => return Err(at(e)),
    }
    // The old one is replaced, not removed first.
    let place = Place { target: &link.target, dir };
    let unchanged = AttrChange::default();
    stage(job, &place, unchanged, async |temporary: &FileName| {
        vfs.link(caller, existing.ino, dir, temporary).await.map_err(at)
    })
    .await?;
    // Renaming one name of a file over another of the same file leaves both.
    let temporary = FileName::try_from(Bytes::from(job.names.name(name.as_bytes())));
    match vfs.unlink(caller, dir, &temporary.map_err(at)?).await {
        Ok(()) | Err(FsError::NotFound) => Ok(()),
        Err(e) => Err(at(e)),
    }
}

/// Gives a directory that was copied its extended attributes, mode, owner and times.
pub(super) async fn set_directory(job: &Job, item: &Item, ino: Ino) -> Result<(), Failure> {
    let made = job.store.vfs.getattr(job.store.caller, ino).await;
    xattrs::copy_in(job, item, &made.map_err(|e| Failure::at(&item.target, e))?).await?;
    let change = attributes(&job.store, &item.metadata);
    let set = job.store.vfs.setattr(job.store.caller, ino, change).await;
    set.map(drop).map_err(|e| Failure::at(&item.target, e))
}

/// Only root may give files away; others keep what they make.
fn attributes(store: &Store, metadata: &Metadata) -> AttrChange {
    let root = store.caller.uid == 0;
    let time = |s, n| Some(TimeChange::At(timestamp(s, n)));
    AttrChange {
        mode: (!metadata.is_symlink()).then_some(metadata.mode() & 0o7777),
        uid: root.then_some(metadata.uid()),
        gid: root.then_some(metadata.gid()),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ..AttrChange::default()
    }
}
