//! A directory of the store with everything in it.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use cairn_proto::{Attr, FileKind, Ino, pb};
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{attributes, fetch};
use crate::{
    cli::{
        connection::Connection,
        failure::Failure,
        store::{Store, StorePath},
    },
    rpc::Admin,
};

/// Files that are copied at the same time.
const AT_ONCE: usize = 8;

/// Copies the directory `path` to `out`: files several at a time while the walk goes on, then hard
/// links, then the directories' attributes, children first.
pub(super) async fn copy(
    store: &Store,
    connection: &Connection,
    path: &StorePath,
    out: &Path,
) -> Result<(), Failure> {
    let admin = Admin::connect(&connection.config("cairn download")?).await?;
    let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
    let mut walk = admin.walk(&text, false).await?;
    let mut first_names: HashMap<Ino, PathBuf> = HashMap::new();
    let (mut links, mut directories) = (Vec::new(), Vec::new());
    let mut copies = FuturesUnordered::new();
    while let Some(entry) = walk.next().await? {
        let (attr, source, target) = place(&entry, path, out)?;
        if attr.kind() == FileKind::Directory {
            make_directory(&target)?;
            directories.push((target, attr));
            continue;
        }
        if attr.nlink > 1 {
            if let Some(first) = first_names.get(&attr.ino) {
                links.push((first.clone(), target));
                continue;
            }
            first_names.insert(attr.ino, target.clone());
        }
        copies.push(async move { fetch(store, &source, &attr, &target).await });
        if copies.len() >= AT_ONCE {
            copies.next().await.expect("there are copies under way")?;
        }
    }
    while let Some(result) = copies.next().await {
        result?;
    }
    for (first, target) in links {
        hard_link(&first, &target)
            .map_err(|e| Failure::new(format!("cannot link {}: {e}", target.display())))?;
    }
    for (target, attr) in directories.iter().rev() {
        attributes::apply(target, attr)
            .map_err(|e| Failure::new(format!("cannot set up {}: {e}", target.display())))?;
    }
    Ok(())
}

/// The attributes of `entry`, its path in the store, and where it goes below `out`.
fn place(
    entry: &pb::WalkEntry,
    base: &StorePath,
    out: &Path,
) -> Result<(Attr, StorePath, PathBuf), Failure> {
    let wrong = |why: &str| Failure::new(format!("the master lists {:?}, {why}", entry.path));
    let attr = entry.attr.ok_or_else(|| wrong("without attributes"))?;
    let attr = Attr::try_from(attr).map_err(|e| wrong(&e.to_string()))?;
    let source = StorePath::new(OsStr::from_bytes(&entry.raw_path));
    let base = if base.is_root() { &b""[..] } else { base.as_bytes() };
    let below = source
        .as_bytes()
        .strip_prefix(base)
        .ok_or_else(|| wrong("which is not below what was asked for"))?;
    let below = StorePath::new(OsStr::from_bytes(below));
    let climbs = |name: &[u8]| name == b"..";
    if below.as_bytes().split(|b| *b == b'/').any(climbs) {
        return Err(wrong("which leaves the directory"));
    }
    let target = if below.is_root() {
        out.to_owned()
    } else {
        out.join(OsStr::from_bytes(below.as_bytes()))
    };
    Ok((attr, source, target))
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(|e| Failure::new(format!("cannot make {}: {e}", path.display()))),
    }
}

fn hard_link(first: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(first, target) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(target)?;
            fs::hard_link(first, target)
        }
        linked => linked,
    }
}
