//! Whether two trees are the same: names, types, contents, modes, owners, times, links, attributes.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io::Read,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// Differences that are listed at most; more say nothing new.
const MOST: usize = 25;

/// Everything in which `right` differs from `left`, as sentences; empty when they are the same.
///
/// # Panics
/// When a tree cannot be read.
pub fn differences(left: &Path, right: &Path) -> Vec<String> {
    let (a, b) = (walk(left), walk(right));
    let mut found = Vec::new();
    for path in a.keys().filter(|path| !b.contains_key(*path)) {
        found.push(format!("{} is missing", path.display()));
    }
    for path in b.keys().filter(|path| !a.contains_key(*path)) {
        found.push(format!("{} is too much", path.display()));
    }
    for (path, one) in &a {
        if let Some(other) = b.get(path)
            && let Some(what) = difference((&left.join(path), one), (&right.join(path), other))
        {
            found.push(format!("{}: {what}", path.display()));
        }
        if found.len() > MOST {
            break;
        }
    }
    if links(&a) != links(&b) {
        found.push("the hard links connect different names".into());
    }
    found
}

/// Fails when the trees differ.
///
/// # Panics
/// When they do.
pub fn assert_same(left: &Path, right: &Path) {
    let found = differences(left, right);
    let (l, r) = (left.display(), right.display());
    assert!(found.is_empty(), "{r} differs from {l}:\n{}", found.join("\n"));
}

fn walk(root: &Path) -> BTreeMap<PathBuf, Metadata> {
    let mut all = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let full = root.join(&directory);
        let entries = fs::read_dir(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
        for entry in entries {
            let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", full.display()));
            let path = directory.join(entry.file_name());
            let full = root.join(&path);
            let meta = fs::symlink_metadata(&full);
            let meta = meta.unwrap_or_else(|e| panic!("{}: {e}", full.display()));
            if meta.is_dir() {
                open.push(path.clone());
            }
            all.insert(path, meta);
        }
    }
    all
}

/// The sets of names that are one file, as lists of names.
fn links(tree: &BTreeMap<PathBuf, Metadata>) -> Vec<Vec<&Path>> {
    let mut sets: BTreeMap<u64, Vec<&Path>> = BTreeMap::new();
    for (path, meta) in tree.iter().filter(|(_, m)| !m.is_dir() && m.nlink() > 1) {
        sets.entry(meta.ino()).or_default().push(path);
    }
    let mut sets: Vec<_> = sets.into_values().collect();
    sets.sort();
    sets
}

fn difference((a, ma): (&Path, &Metadata), (b, mb): (&Path, &Metadata)) -> Option<String> {
    let kinds = [ma, mb].map(|m| m.mode() & libc::S_IFMT);
    if kinds[0] != kinds[1] {
        return Some(format!("type {:o} became {:o}", kinds[0], kinds[1]));
    }
    let times = [ma, mb].map(|m| (m.mtime(), m.mtime_nsec()));
    let symbolic = ma.file_type().is_symlink();
    if ma.mode() != mb.mode() && !symbolic {
        return Some(format!("mode {:o} became {:o}", ma.mode(), mb.mode()));
    }
    if (ma.uid(), ma.gid()) != (mb.uid(), mb.gid()) {
        return Some("the owner changed".into());
    }
    if times[0] != times[1] && !symbolic {
        return Some(format!("mtime {:?} became {:?}", times[0], times[1]));
    }
    if ma.file_type().is_char_device() && ma.rdev() != mb.rdev() {
        return Some("the device changed".into());
    }
    if symbolic {
        let targets = [a, b].map(|p| fs::read_link(p).unwrap_or_default());
        return (targets[0] != targets[1]).then(|| format!("target {targets:?}"));
    }
    if ma.is_file() {
        if ma.len() != mb.len() {
            return Some(format!("length {} became {}", ma.len(), mb.len()));
        }
        if let Some(at) = first_difference(a, b) {
            return Some(format!("the content differs from byte {at} on"));
        }
    }
    let attributes = [a, b].map(user_attributes);
    (attributes[0] != attributes[1]).then(|| format!("attributes {attributes:?}"))
}

fn user_attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut names = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let names = names[..len].split(|&b| b == 0).filter(|n| n.starts_with(b"user."));
    names
        .map(|name| {
            let mut value = vec![0; 65_536];
            let name = OsStr::from_bytes(name);
            let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap_or(0);
            value.truncate(len);
            (name.to_owned(), value)
        })
        .collect()
}

/// Where two files begin to differ.
///
/// # Panics
/// When one cannot be read.
pub fn first_difference(a: &Path, b: &Path) -> Option<u64> {
    let open = |path: &Path| File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut one, mut other) = (open(a), open(b));
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0;
    loop {
        let (n, m) = (fill(&mut one, &mut x, a), fill(&mut other, &mut y, b));
        if let Some(at) = (0..n.min(m)).find(|&i| x[i] != y[i]) {
            return Some(offset + at as u64);
        }
        if n != m {
            return Some(offset + n.min(m) as u64);
        }
        if n == 0 {
            return None;
        }
        offset += n as u64;
    }
}

fn fill(file: &mut File, buffer: &mut [u8], path: &Path) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }
    filled
}
