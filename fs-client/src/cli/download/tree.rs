//! A directory of the store with everything in it.
//!
//! The local disk is used with `block_in_place`: it may be slow, and other copies go on meanwhile.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use cairn_proto::{Attr, FileKind, Ino};
use tokio::task::block_in_place;

use super::{
    attributes,
    file::{self, cannot_write},
    job::Job,
};
use crate::cli::{
    copies::{Copies, finish},
    failure::Failure,
    store::StorePath,
    walk::Walk,
};

/// Files that are copied at the same time.
const AT_ONCE: usize = 16;

/// Copies the directory `root` at `path` to `out`: files several at a time while the walk goes on, then
/// hard links, then the directories' attributes, children first. Held: the directories, and the first
/// name of each file that has several.
pub(super) async fn copy(
    job: &Arc<Job>,
    path: &StorePath,
    root: &Attr,
    out: &Path,
    copies: &mut Copies,
) -> Result<(), Failure> {
    count(job, path, root);
    let mut first_names: HashMap<Ino, PathBuf> = HashMap::new();
    let mut links = Vec::new();
    enter(job, out)?;
    let mut directories = vec![(out.to_owned(), path.clone(), *root)];
    let mut walk = Walk::new(path.clone(), root.ino, true);
    while let Some(entry) = walk.next(&job.store).await? {
        let attr = entry.attr()?;
        let target = place(&entry.path, path, out)?;
        if attr.kind() == FileKind::Directory {
            enter(job, &target)?;
            directories.push((target, entry.path, attr));
            continue;
        }
        if attr.nlink > 1 {
            if let Some(first) = first_names.get(&attr.ino) {
                links.push((first.clone(), target));
                continue;
            }
            first_names.insert(attr.ino, target.clone());
        }
        let (job, source) = (Arc::clone(job), entry.path);
        copies.spawn(async move { file::copy_out(&job, &source, &attr, &target).await });
        finish(copies, AT_ONCE - 1).await?;
    }
    finish(copies, 0).await?;
    for (first, target) in links {
        hard_link(job, &first, &target).map_err(|e| {
            Failure::new(format!("cannot link {} to {}: {e}", target.display(), first.display()))
        })?;
    }
    for (target, source, attr) in directories.iter().rev() {
        let xattrs = attributes::xattrs(job, source, attr).await?;
        attributes::apply(target, attr, &xattrs).map_err(|e| cannot_write(target, &e))?;
    }
    Ok(())
}

/// Finds out how much there is, for those who look at the line, while copying goes on.
fn count(job: &Arc<Job>, path: &StorePath, root: &Attr) {
    job.progress.begin("", Some(0));
    if !job.progress.is_shown() {
        return;
    }
    let (job, mut walk) = (Arc::clone(job), Walk::new(path.clone(), root.ino, true));
    tokio::spawn(async move {
        // The walk that copies reports what is wrong.
        while let Ok(Some(entry)) = walk.next(&job.store).await {
            if entry.item.kind == FileKind::Regular {
                job.progress.add_total(entry.item.attr.map_or(0, |attr| attr.size));
            }
        }
    });
}

/// Where the entry at `path` goes, below `out` as it is below `base`.
fn place(path: &StorePath, base: &StorePath, out: &Path) -> Result<PathBuf, Failure> {
    let base = if base.is_root() { &b""[..] } else { base.as_bytes() };
    let below = path.as_bytes().strip_prefix(base).map(|b| b.strip_prefix(b"/").unwrap_or(b));
    let mut parts = below.unwrap_or_default().split(|b| *b == b'/');
    match below {
        Some(below) if parts.all(|part| !matches!(part, b"" | b"." | b"..")) => {
            Ok(out.join(OsStr::from_bytes(below)))
        }
        Some(_) | None => {
            Err(Failure::new(format!("the master lists {path}, which leaves the directory")))
        }
    }
}

/// Makes the directory `path`, or sees what killed downloads have left in it.
fn enter(job: &Job, path: &Path) -> Result<(), Failure> {
    block_in_place(|| match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            file::find_left_overs(job, path);
            Ok(())
        }
        made => made.map_err(|e| Failure::new(format!("cannot make {}: {e}", path.display()))),
    })
}

/// Makes `target` a further name of `first`; what is there is replaced.
fn hard_link(job: &Job, first: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(first, target) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let name = target.file_name().unwrap_or_default().as_bytes();
            let temporary = target.with_file_name(OsStr::from_bytes(&job.names.name(name)));
            fs::hard_link(first, &temporary)?;
            fs::rename(&temporary, target)?;
            // Renaming one name of a file over another of the same file leaves both.
            match fs::remove_file(&temporary) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            }
        }
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_beside_the_directory_that_was_named() {
        let path = |t: &str| StorePath::new(OsStr::new(t));
        let place = |p: &str, base: &str| place(&path(p), &path(base), Path::new("out")).ok();
        assert_eq!(place("a/b/c", "a"), Some("out/b/c".into()));
        assert_eq!(place("a", ""), Some("out/a".into()));
        assert_eq!(place("b/c", "a"), None);
        assert_eq!(place("a/../c", "a"), None);
        assert_eq!(place("a//c/d", "a"), None);
    }
}
