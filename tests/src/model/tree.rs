//! What is in a tree, as far as it must be the same everywhere.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FileType, Stat};

use super::side::{Side, digest};

/// Differences that are listed at most.
const MOST: usize = 20;
/// Times from here on were not set but taken: 2001.
const PRESENT: i64 = 978_307_200;
/// Times from here on were set: 2100.
const FUTURE: i64 = 4_102_444_800;

/// `mtime` when it was set, nothing when it is the time of a change.
fn set_time(seconds: i64, nanos: u64) -> Option<(i64, u64)> {
    (!(PRESENT..FUTURE).contains(&seconds)).then_some((seconds, nanos))
}

/// The attributes that must be the same.
pub(super) fn shown(stat: &Stat) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let size = if kind == FileType::Directory { 0 } else { stat.st_size };
    let mtime = set_time(stat.st_mtime, stat.st_mtime_nsec);
    format!(
        "mode {:o}, {} links, owner {}:{}, {size} bytes, mtime {mtime:?}",
        stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid
    )
}

/// Every path below `root` with everything that is compared.
fn walk(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut names_of: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let full = root.join(&directory);
        let mut paths = Vec::new();
        for entry in fs::read_dir(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display())) {
            paths.push(directory.join(entry.expect("an entry of a directory").file_name()));
        }
        // The first name of an inode stands for all, so it must be the same first name everywhere.
        paths.sort();
        for path in paths {
            let full = root.join(&path);
            let stat = rustix::fs::statat(CWD, &full, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.unwrap_or_else(|e| panic!("{}: {e}", full.display()));
            let mut line = shown(&stat);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => open.push(path.clone()),
                FileType::RegularFile => {
                    let bytes =
                        fs::read(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
                    line += &format!(", {}", digest(&bytes));
                }
                FileType::Symlink => {
                    line += &format!(", to {:?}", fs::read_link(&full).expect("a symbolic link"));
                }
                _ => {}
            }
            if stat.st_nlink > 1 && !full.is_dir() {
                let first = names_of.entry(stat.st_ino).or_insert_with(|| path.clone());
                line += &format!(", the same as {}", first.display());
            }
            line += &attributes(&full);
            all.insert(path, line);
        }
        // Depth first in the order of names, on every file system.
        open.sort_by(|a, b| b.cmp(a));
    }
    all
}

fn attributes(path: &Path) -> String {
    let mut list = vec![0u8; 65_536];
    let len = rustix::fs::llistxattr(path, &mut list).expect("the names of attributes");
    let mut names: Vec<&[u8]> = list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
    names.sort_unstable();
    let mut line = String::new();
    for name in names {
        let mut value = vec![0u8; 65_536];
        let len = rustix::fs::lgetxattr(path, name, &mut value).expect("a listed attribute");
        line += &format!(", {}: {}", name.escape_ascii(), digest(&value[..len]));
    }
    line
}

/// In what `tested` differs from `right`, as sentences.
pub(super) fn differences(right: &Side, tested: &Side) -> Vec<String> {
    let (a, b) = (walk(right.path()), walk(tested.path()));
    let mut found = Vec::new();
    for (path, line) in &a {
        match b.get(path) {
            None => found.push(format!("{} is missing", path.display())),
            Some(other) if other != line => {
                found.push(format!("{}:\n  right: {line}\n  found: {other}", path.display()));
            }
            Some(_) => {}
        }
    }
    for path in b.keys().filter(|path| !a.contains_key(*path)) {
        found.push(format!("{} is too much", path.display()));
    }
    found.truncate(MOST);
    found
}
