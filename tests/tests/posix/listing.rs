//! Listings: every name that was there all the time exactly once, whatever comes and goes meanwhile;
//! positions that stay good; a directory that is removed while it is listed; a very large one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use cairn_tests::{Cluster, Rng, inspect, rng::scale, sh, within};
use rustix::fs::{Dir, Mode, OFlags, open};

const MIB: u64 = 1 << 20;

fn open_dir(path: &Path) -> Dir {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Dir::new(open(path, flags, Mode::empty()).unwrap()).unwrap()
}

/// The rest of a listing: names and the position after each. `.` and `..` are among them.
fn rest(dir: &mut Dir) -> Vec<(String, i64)> {
    let entry = |entry: rustix::io::Result<rustix::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().to_str().unwrap().to_owned(), entry.offset())
    };
    std::iter::from_fn(|| dir.read()).map(entry).collect()
}

/// How often each name is in a listing.
fn counts(listing: &[(String, i64)]) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    for (name, _) in listing {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

#[test]
fn positions_stay_good_while_names_come_and_go() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let many = mount.join("many");
        fs::create_dir(&many).unwrap();
        let make = |n: u32| File::create(many.join(format!("f{n:05}"))).map(drop).unwrap();
        (0..3000).for_each(make);
        let mut dir = open_dir(&many);
        let before = rest(&mut dir);
        assert_eq!(before.len(), 3002);
        let again = rest(&mut dir);
        assert!(again.is_empty(), "the end stays the end: {again:?}");
        // Back to any place: what follows is what followed.
        let mut rng = Rng::of_run("positions");
        for _ in 0..40 {
            let at = rng.index(before.len());
            dir.seek(before[at].1).unwrap();
            assert_eq!(rest(&mut dir), before[at + 1..], "after {:?}", before[at]);
        }
        // Also when the entry itself is gone, and its neighbours, and others have come.
        for at in [100, 101, 1500] {
            fs::remove_file(many.join(&before[at].0)).unwrap();
        }
        (3000..3100).for_each(make);
        dir.seek(before[100].1).unwrap();
        let after: BTreeSet<_> = rest(&mut dir).into_iter().map(|(name, _)| name).collect();
        let expected: BTreeSet<_> = before[102..]
            .iter()
            .filter(|entry| entry.0 != before[1500].0)
            .map(|(name, _)| name.clone())
            .chain((3000..3100).map(|n| format!("f{n:05}")))
            .collect();
        assert_eq!(after, expected);
        dir.rewind();
        let from_the_start = rest(&mut dir);
        assert_eq!(from_the_start.len(), 3002 - 3 + 100);
        assert!(counts(&from_the_start).values().all(|n| *n == 1));
    });
}

#[test]
fn a_listing_brings_no_removed_name_back() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let many = mount.join("many");
        fs::create_dir(&many).unwrap();
        let name = |n: u32| many.join(format!("f{n:05}"));
        (0..600).for_each(|n| File::create(name(n)).map(drop).unwrap());
        // The first entries of a page are read, with attributes, as `ls -l` does.
        let mut dir = open_dir(&many);
        for _ in 0..10 {
            let entry = dir.read().unwrap().unwrap();
            drop(fs::symlink_metadata(many.join(entry.file_name().to_str().unwrap())));
        }
        // Then names behind them go, change what they stand for, and change their mode.
        (300..400).for_each(|n| fs::remove_file(name(n)).unwrap());
        (400..500).for_each(|n| fs::write(name(n).with_extension("new"), b"new").unwrap());
        (400..500).for_each(|n| fs::rename(name(n).with_extension("new"), name(n)).unwrap());
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |mode| fs::Permissions::from_mode(mode);
        (500..600).for_each(|n| fs::set_permissions(name(n), mode(0o640)).unwrap());
        drop(rest(&mut dir));
        for n in 300..400 {
            assert!(!name(n).exists(), "{} is back", name(n).display());
        }
        for n in 400..500 {
            assert_eq!(fs::symlink_metadata(name(n)).unwrap().len(), 3, "{}", name(n).display());
        }
        for n in 500..600 {
            let found = fs::symlink_metadata(name(n)).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, 0o640, "{}", name(n).display());
        }
    });
}

#[test]
fn removing_while_listing_misses_nothing() {
    within(180, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let many = mount.join("many");
        fs::create_dir(&many).unwrap();
        for round in 0..3 {
            (0..2500).for_each(|n| File::create(many.join(format!("f{n}"))).map(drop).unwrap());
            let mut dir = open_dir(&many);
            let mut read = 0;
            while let Some(entry) = dir.read() {
                let entry = entry.unwrap();
                let name = entry.file_name().to_str().unwrap();
                if !matches!(name, "." | "..") {
                    fs::remove_file(many.join(name)).unwrap();
                    read += 1;
                }
            }
            assert_eq!(read, 2500, "round {round}");
        }
        fs::remove_dir(&many).unwrap();
        cluster.assert_fsck_clean();
    });
}

/// `CAIRN_TEST_SCALE` 20 and more make it a million entries.
#[test]
fn a_very_large_directory_is_listed_while_it_changes_and_removed() {
    const WRITERS: u64 = 4;
    let files = (50_000 * scale()).min(1_000_000);
    // Who lists and who changes take turns in the kernel: a few thousand changes are enough.
    let step = usize::try_from(files / 3_000).unwrap();
    within(500 * scale().min(20), move || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount();
        let many = mount.join("many");
        fs::create_dir(&many).unwrap();
        let path = |n: u64| many.join(format!("an-entry-with-a-usual-name-{n:07}"));
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    for n in (writer..files).step_by(4) {
                        File::create(path(n)).unwrap();
                    }
                });
            }
        });
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Some entries go, some get another name.
            let done = &done;
            scope.spawn(move || {
                for (i, n) in (0..files).step_by(step).enumerate() {
                    if i % 2 == 0 {
                        fs::remove_file(path(n)).unwrap();
                    } else {
                        fs::rename(path(n), path(n + 10_000_000)).unwrap();
                    }
                }
                done.store(true, Ordering::Release);
            });
            let mut listings = 0;
            while listings == 0 || !done.load(Ordering::Acquire) {
                let listing = rest(&mut open_dir(&many));
                let counts = counts(&listing);
                let doubled = counts.iter().find(|(_, count)| **count > 1);
                assert!(doubled.is_none(), "listed twice: {doubled:?}");
                let stayed = (0..files).filter(|n| n % step as u64 != 0);
                for n in stayed {
                    let path = path(n);
                    let name = path.file_name().unwrap().to_str().unwrap();
                    assert!(counts.contains_key(name), "{name} was there all the time");
                }
                listings += 1;
            }
            eprintln!("{listings} listings of about {files} entries while they changed");
        });
        let left = files - (0..files).step_by(2 * step).count() as u64;
        let listed = sh(mount.path(), 3000, "ls -fU many | grep -c usual");
        assert_eq!(listed.trim(), left.to_string());
        sh(mount.path(), 6000, "rm -r many");
        let [daemon, master] = [mount.peak_rss(), cluster.master().peak_rss()];
        eprintln!("peak resident: mount {} MiB, master {} MiB", daemon / MIB, master / MIB);
        assert!(daemon < 600 * MIB && master < 500 * MIB);
        cluster.assert_fsck_clean();
        let status = inspect::status(&cluster).unwrap();
        assert_eq!((status.files, status.directories), (0, 1), "{status:?}");
    });
}
