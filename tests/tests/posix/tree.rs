//! The tree stays a tree, whatever is moved where at once: directories into each other, exchanges, links
//! and removals by many threads, on one mount and on two.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use cairn_tests::{Cluster, Rng, inspect, rng::scale, within};
use rustix::fs::{CWD, RenameFlags, renameat_with};

const THREADS: usize = 6;
const DIRECTORIES: [&str; 5] = ["d0", "d1", "d2", "d3", "d4"];

/// What a losing racer may be told. Anything else is wrong, above all EIO.
fn may_fail(result: io::Result<()>, what: &str) {
    let Err(error) = result else { return };
    let allowed = [
        libc::ENOENT,
        libc::EEXIST,
        libc::ENOTEMPTY,
        libc::EINVAL,
        libc::ENOTDIR,
        libc::EISDIR,
        // A second name for a directory, when an exchange has put one where a file was.
        libc::EPERM,
        // What another mount has moved meanwhile: the kernel refuses to see a directory within itself.
        libc::ESTALE,
        libc::ELOOP,
    ];
    assert!(error.raw_os_error().is_some_and(|e| allowed.contains(&e)), "{what}: {error}");
}

/// A directory somewhere in the tree.
fn somewhere(root: &Path, rng: &mut Rng) -> PathBuf {
    let mut path = root.to_owned();
    for _ in 0..rng.below(4) {
        path.push(DIRECTORIES[rng.index(DIRECTORIES.len())]);
    }
    path
}

fn directory(root: &Path, rng: &mut Rng) -> PathBuf {
    somewhere(root, rng).join(DIRECTORIES[rng.index(DIRECTORIES.len())])
}

fn file(root: &Path, rng: &mut Rng) -> PathBuf {
    somewhere(root, rng).join(format!("f{}", rng.below(6)))
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, flags)?)
}

fn one_change(root: &Path, rng: &mut Rng) {
    match rng.below(20) {
        0..4 => may_fail(fs::create_dir(directory(root, rng)), "mkdir"),
        4..10 => {
            let flags = [RenameFlags::empty(), RenameFlags::NOREPLACE][rng.index(2)];
            let (from, to) = (directory(root, rng), directory(root, rng));
            may_fail(rename(&from, &to, flags), "rename of a directory");
        }
        10..13 => {
            let from = directory(root, rng);
            let to = if rng.one_in(3) { file(root, rng) } else { directory(root, rng) };
            may_fail(rename(&from, &to, RenameFlags::EXCHANGE), "exchange");
        }
        13 => may_fail(fs::remove_dir(directory(root, rng)), "rmdir"),
        14 | 15 => may_fail(fs::write(file(root, rng), b"content"), "write"),
        16 => {
            let (from, to) = (file(root, rng), file(root, rng));
            may_fail(fs::hard_link(from, to), "link");
        }
        17 => {
            let (from, to) = (file(root, rng), file(root, rng));
            may_fail(rename(&from, &to, RenameFlags::empty()), "rename of a file");
        }
        18 => may_fail(fs::remove_file(file(root, rng)), "unlink"),
        _ => {
            if let Ok(entries) = fs::read_dir(somewhere(root, rng)) {
                for entry in entries {
                    may_fail(entry.map(drop), "readdir");
                }
            }
        }
    }
}

/// Carries a file of its own from place to place; nobody else removes or replaces it.
fn carry(root: &Path, name: &str, rng: &mut Rng) {
    let to = somewhere(root, rng).join(name);
    let from = found(root).into_iter().find(|(path, _)| path.file_name() == Some(name.as_ref()));
    if let Some((from, _)) = from {
        may_fail(rename(&root.join(from), &to, RenameFlags::NOREPLACE), "carrying");
    }
}

/// All paths below `root`, with inode and link count; what disappears meanwhile is passed over.
fn found(root: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut all = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(root.join(&directory)) else { continue };
        for entry in entries.flatten() {
            let path = directory.join(entry.file_name());
            let Ok(stat) = fs::symlink_metadata(root.join(&path)) else { continue };
            // A directory that moves while it is walked can be met again and again.
            if stat.is_dir() && path.components().count() < 40 {
                open.push(path.clone());
            }
            all.insert(path, (stat.ino(), stat.nlink()));
        }
    }
    all
}

/// What a quiet tree must look like, seen through the mount alone.
fn assert_is_a_tree(root: &Path, carried: &[String]) {
    let all = found(root);
    let mut names: BTreeMap<u64, u64> = BTreeMap::new();
    for (path, (ino, _)) in &all {
        let is_dir = fs::symlink_metadata(root.join(path)).unwrap().is_dir();
        let count = names.entry(*ino).or_default();
        *count += 1;
        assert!(!is_dir || *count == 1, "a directory has two names, one is {}", path.display());
    }
    for (path, (ino, links)) in &all {
        let full = root.join(path);
        if fs::symlink_metadata(&full).unwrap().is_dir() {
            let below = fs::read_dir(&full).unwrap();
            let directories = below.filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir());
            assert_eq!(*links, 2 + directories.count() as u64, "{}", path.display());
            let up = fs::symlink_metadata(full.join("..")).unwrap().ino();
            let parent = fs::symlink_metadata(full.parent().unwrap()).unwrap().ino();
            assert_eq!(up, parent, "`..` of {}", path.display());
        } else {
            assert_eq!(*links, names[ino], "links of {}", path.display());
        }
    }
    for name in carried {
        let name: OsString = name.into();
        let places = all.keys().filter(|path| path.file_name() == Some(&name)).count();
        assert_eq!(places, 1, "{} was lost or doubled", name.display());
    }
}

fn race(mounts: usize) {
    let cluster = Cluster::new();
    let mounts: Vec<_> = (0..mounts).map(|_| cluster.mount()).collect();
    let mut rng = Rng::of_run("changes of one tree at once");
    let carried: Vec<String> = (0..THREADS).map(|n| format!("carried{n}")).collect();
    for name in &carried {
        fs::write(mounts[0].join(name), name).unwrap();
    }
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for (n, name) in carried.iter().enumerate() {
                let (root, mut rng) = (mounts[n % mounts.len()].path(), Rng::new(rng.next_u64()));
                scope.spawn(move || {
                    for step in 0..400 * scale() {
                        one_change(root, &mut rng);
                        if step % 40 == 0 {
                            carry(root, name, &mut rng);
                        }
                    }
                });
            }
        });
        // A mount that knows nothing yet sees what there is.
        assert_is_a_tree(cluster.mount().path(), &carried);
        cluster.assert_fsck_clean();
    }
    drop(mounts);
    let mount = cluster.mount();
    for entry in fs::read_dir(mount.path()).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    drop(mount);
    cluster.assert_sound();
    let status = inspect::status(&cluster).unwrap();
    assert_eq!((status.files, status.directories, status.other_inodes), (0, 1, 0), "{status:?}");
}

#[test]
fn changes_by_many_threads_leave_a_tree() {
    within(280 * scale(), || race(1));
}

#[test]
fn changes_on_two_mounts_leave_a_tree() {
    within(280 * scale(), || race(2));
}
