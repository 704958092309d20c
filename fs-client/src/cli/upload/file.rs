//! One file, link or directory from here into the store.

use std::{
    fs::{File, Metadata},
    io::Read,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
};

use bytes::Bytes;
use cairn_proto::{Attr, FileName, FsError, Ino};

use super::plan::{HardLink, Item};
use crate::{
    cli::{
        failure::Failure,
        store::{Store, StorePath, timestamp},
    },
    vfs::{AttrChange, OpenMode, TimeChange},
};

/// Bytes that are read and handed on at once.
const PIECE: usize = 1 << 20;

/// Copies what is no directory. It appears under its name when it is complete.
pub(super) async fn copy_in(store: &Store, item: &Item) -> Result<(), Failure> {
    let (parent, name) = parent_of(store, &item.target).await?;
    let temporary = temporary_name(&name);
    let result = match make(store, item, parent, &temporary).await {
        Ok(attr) => finish(store, item, attr, parent, &temporary, &name).await,
        Err(failure) => Err(failure),
    };
    if result.is_err() {
        // The failure is what people must see; a left-over is hidden and named for what it is.
        let _ = store.vfs.unlink(store.caller, parent, &temporary).await;
    }
    result
}

/// Makes the inode under a temporary name, with its content.
async fn make(store: &Store, item: &Item, parent: Ino, name: &FileName) -> Result<Attr, Failure> {
    let at = |e| Failure::at(&item.target, e);
    let (vfs, caller) = (&store.vfs, store.caller);
    if item.metadata.is_symlink() {
        let target = std::fs::read_link(&item.source).map_err(|e| cannot_read(item, &e))?;
        let target = Bytes::from(target.into_os_string().into_vec());
        return vfs.symlink(caller, parent, name, target).await.map_err(at);
    }
    if !item.metadata.is_file() {
        let (mode, rdev) = (item.metadata.mode(), device(&item.metadata));
        return vfs.mknod(caller, parent, name, mode, rdev).await.map_err(at);
    }
    let local = File::open(&item.source).map_err(|e| cannot_read(item, &e))?;
    let mode = OpenMode { write: true, ..OpenMode::default() };
    let created = vfs.create(caller, parent, name, 0o600, mode, true).await.map_err(at)?;
    let written = write_all(store, item, local, created.opened.fh).await;
    let released = vfs.release(created.opened.fh).await.map_err(at);
    written.and(released).map(|()| created.opened.attr)
}

async fn write_all(
    store: &Store,
    item: &Item,
    mut local: File,
    fh: crate::vfs::Fh,
) -> Result<(), Failure> {
    let at = |e| Failure::at(&item.target, e);
    let mut offset = 0;
    let mut piece = vec![0; PIECE];
    loop {
        let n = local.read(&mut piece).map_err(|e| cannot_read(item, &e))?;
        if n == 0 {
            return Ok(());
        }
        store.vfs.write(fh, offset, &piece[..n]).await.map_err(at)?;
        offset += n as u64;
    }
}

/// Gives the new inode its attributes and its name.
async fn finish(
    store: &Store,
    item: &Item,
    attr: Attr,
    parent: Ino,
    temporary: &FileName,
    name: &FileName,
) -> Result<(), Failure> {
    let at = |e| Failure::at(&item.target, e);
    let change = attributes(store, &item.metadata);
    store.vfs.setattr(store.caller, attr.ino, change).await.map_err(at)?;
    store.vfs.rename(store.caller, parent, temporary, parent, name, 0).await.map_err(at)
}

/// Gives a file that was copied another name.
pub(super) async fn link(store: &Store, link: &HardLink) -> Result<(), Failure> {
    let existing = store.resolve(&link.existing).await?;
    let (parent, name) = parent_of(store, &link.target).await?;
    let at = |e| Failure::at(&link.target, e);
    match store.vfs.link(store.caller, existing.ino, parent, &name).await {
        Ok(_) => return Ok(()),
        Err(FsError::Exists) => {}
        Err(e) => return Err(at(e)),
    }
    store.vfs.unlink(store.caller, parent, &name).await.map_err(at)?;
    store.vfs.link(store.caller, existing.ino, parent, &name).await.map(drop).map_err(at)
}

/// Gives a directory that was copied its mode, owner and times.
pub(super) async fn set_directory(store: &Store, item: &Item) -> Result<(), Failure> {
    let attr = store.resolve(&item.target).await?;
    let change = attributes(store, &item.metadata);
    let set = store.vfs.setattr(store.caller, attr.ino, change).await;
    set.map(drop).map_err(|e| Failure::at(&item.target, e))
}

async fn parent_of(store: &Store, path: &StorePath) -> Result<(Ino, FileName), Failure> {
    let found = store.vfs.resolve_parent(store.caller, path.as_bytes(), Some(0o755)).await;
    found.map_err(|e| Failure::at(path, e))
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

/// `.NAME.uploading-PID`, cut so that it stays a valid name.
fn temporary_name(name: &FileName) -> FileName {
    let end = format!(".uploading-{}", std::process::id());
    let room = cairn_proto::limits::NAME_MAX - 1 - end.len();
    let name = name.as_bytes();
    let bytes = [&b"."[..], &name[..name.len().min(room)], end.as_bytes()].concat();
    FileName::try_from(Bytes::from(bytes)).expect("a valid name with a prefix, not too long")
}

/// The kernel's 32-bit form of a device number, as FUSE and the master keep it.
fn device(metadata: &Metadata) -> u32 {
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn cannot_read(item: &Item, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", item.source.display()))
}
