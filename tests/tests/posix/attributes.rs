//! Modes, owners, times, counts and errors: those of the local disk. What the local disk cannot say, or
//! says otherwise, follows after that.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    time::{Duration, SystemTime},
};

use cairn_tests::{Cluster, Mount, sh, wait_for, within};

use crate::local_disk::same_as_local;

#[test]
fn system_calls_make_of_attributes_and_names_what_they_do_on_the_local_disk() {
    same_as_local(&["python3", "-c", include_str!("attributes.py")], 1100);
}

fn atime(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().accessed().unwrap()
}

/// Reads past the kernel's page cache.
fn read_from_the_store(path: &Path) {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    file.read_at(&mut [0; 4096], 0).unwrap();
}

#[test]
fn times_of_reads_reach_other_mounts_and_stay() {
    within(120, || {
        let mut cluster = Cluster::new();
        let (mount, other) = (cluster.mount(), cluster.mount());
        fs::create_dir(mount.join("d")).unwrap();
        fs::write(mount.join("d/f"), "text").unwrap();
        let before = fs::metadata(mount.join("d/f")).unwrap();
        read_from_the_store(&mount.join("d/f"));
        let read = atime(&mount.join("d/f"));
        assert!(read > before.accessed().unwrap(), "shown at once");
        let seen = wait_for(Duration::from_secs(20), || atime(&other.join("d/f")) == read);
        assert!(seen, "the other mount does not see it");
        let after = fs::metadata(other.join("d/f")).unwrap();
        assert_eq!(after.ctime_nsec(), before.ctime_nsec(), "a read is no change");
        // Noted a moment before the end, it is not lost.
        fs::write(mount.join("d/g"), "text").unwrap();
        read_from_the_store(&mount.join("d/g"));
        let last = atime(&mount.join("d/g"));
        mount.unmount();
        other.unmount();
        cluster.stop_all();
        cluster.start_all();
        let mount = cluster.mount();
        assert_eq!((atime(&mount.join("d/f")), atime(&mount.join("d/g"))), (read, last));
        mount.unmount();
        cluster.assert_fsck_clean();
    });
}

#[test]
fn which_reads_count_is_a_mount_option() {
    within(120, || {
        let cluster = Cluster::new();
        let master = cluster.master_address();
        let counts = |mount: &Mount| -> Vec<bool> {
            let path = mount.join("f");
            fs::write(&path, "text").unwrap();
            let reads = (0..2).map(|_| {
                let before = atime(&path);
                read_from_the_store(&path);
                atime(&path) > before
            });
            reads.collect()
        };
        for (option, wanted) in [
            ("noatime", [false, false]),
            ("relatime", [true, false]),
            ("strictatime", [true, true]),
            ("atime=noatime", [false, false]),
        ] {
            let mount = Mount::new(&master, &["-o", option]);
            assert_eq!(counts(&mount), wanted, "{option}");
            mount.unmount();
        }
        let mount = cluster.mount();
        assert_eq!(counts(&mount), [true, false], "the default is relatime");
        let mut file = OpenOptions::new();
        file.read(true).custom_flags(libc::O_NOATIME | libc::O_DIRECT);
        fs::write(mount.join("f"), "other").unwrap();
        let before = atime(&mount.join("f"));
        file.open(mount.join("f")).unwrap().read_at(&mut [0; 4096], 0).unwrap();
        assert_eq!(atime(&mount.join("f")), before, "O_NOATIME");
    });
}

#[test]
fn numbers_of_blocks_mean_something() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let blocks = |name: &str| fs::metadata(mount.join(name)).unwrap().blocks();
        fs::write(mount.join("empty"), "").unwrap();
        assert_eq!(blocks("empty"), 0);
        // Also while the bytes are on their way: programs take a file without blocks for one hole.
        let mut small = File::create(mount.join("small")).unwrap();
        small.write_all(b"ten bytes.").unwrap();
        assert_eq!(blocks("small"), 1);
        small.sync_all().unwrap();
        assert_eq!(blocks("small"), 1);
        let sparse = File::create(mount.join("sparse")).unwrap();
        sparse.set_len(1 << 34).unwrap();
        assert_eq!(blocks("sparse"), 0);
        sparse.write_all_at(&[7; 65_536], 1 << 33).unwrap();
        sparse.sync_all().unwrap();
        assert_eq!(blocks("sparse"), 128);
        sh(mount.path(), 30, "head -c 1000000 /dev/urandom > full && sync full && cp full copy");
        assert_eq!(blocks("full"), 1_000_000_u64.div_ceil(512));
        assert_eq!(blocks("copy"), blocks("full"), "a copy counts, though it shares its chunks");
        let du =
            sh(mount.path(), 30, "du -B1 --apparent-size full | cut -f1; du -B1 full | cut -f1");
        assert_eq!(du, format!("1000000\n{}\n", blocks("full") * 512));
        sh(
            mount.path(),
            60,
            "mkdir out && tar --sparse -cf t.tar small sparse full && tar -C out -xf t.tar
            for f in small full; do cmp $f out/$f; done; stat -c %b out/sparse | grep -qx 128",
        );
    });
}

fn statvfs(path: &Path) -> rustix::fs::StatVfs {
    rustix::fs::statvfs(path).unwrap()
}

#[test]
fn statfs_adds_up_and_follows_what_is_written() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let known = wait_for(Duration::from_secs(30), || statvfs(mount.path()).f_blocks > 0);
        assert!(known, "the room of the nodes is not known");
        let before = statvfs(mount.path());
        assert!(before.f_bfree <= before.f_blocks && before.f_bavail <= before.f_bfree);
        assert!(before.f_ffree <= before.f_files && before.f_namemax == 255);
        let inodes = before.f_files - before.f_ffree;
        sh(
            mount.path(),
            30,
            "mkdir d && touch d/1 d/2 && mkfifo d/p && ln -s x d/l && ln d/1 d/again",
        );
        let after = statvfs(mount.path());
        assert_eq!(after.f_files - after.f_ffree, inodes + 5, "a further name is no further inode");
        let df = sh(mount.path(), 30, "df --output=size,used,avail -B1 . | tail -1");
        let numbers: Vec<u64> = df.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers[1] + numbers[2], numbers[0], "{df}");
        let links = fs::metadata(mount.join("d/1")).unwrap().nlink();
        assert_eq!(links, 2);
    });
}

fn path_of(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

#[test]
fn what_cannot_be_done_is_refused_properly() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        fs::write(mount.join("f"), "text").unwrap();
        let (from, to) = (path_of(&mount.join("f")), path_of(&mount.join("g")));
        // SAFETY: both paths are NUL-terminated strings that outlive the call.
        let whiteout = unsafe {
            let (from, to) = (from.as_ptr(), to.as_ptr());
            libc::renameat2(libc::AT_FDCWD, from, libc::AT_FDCWD, to, libc::RENAME_WHITEOUT)
        };
        assert_eq!((whiteout, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EINVAL)));
        assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "text");
        let nameless =
            OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(mount.path());
        assert_eq!(nameless.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        let file = OpenOptions::new().write(true).open(mount.join("f")).unwrap();
        let too_big =
            file.set_len(i64::MAX as u64).map(|()| file.write_all_at(b"x", i64::MAX as u64));
        assert_eq!(too_big.unwrap().unwrap_err().raw_os_error(), Some(libc::EINVAL));
        fs::write(mount.join("program"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(mount.join("program"), fs::Permissions::from_mode(0o644)).unwrap();
        let refused = std::process::Command::new(mount.join("program")).status().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
    });
}

#[test]
fn a_changed_mode_is_seen_at_once_whatever_is_cached() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let names: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
        for name in &names {
            fs::write(mount.join(name), name).unwrap();
        }
        // A listing that began before the change brings attributes from before it.
        let mut listing = fs::read_dir(mount.path()).unwrap();
        let first = listing.next().unwrap().unwrap();
        assert!(names.iter().any(|name| first.file_name() == name.as_str()));
        for name in &names {
            fs::set_permissions(mount.join(name), fs::Permissions::from_mode(0o604)).unwrap();
            OpenOptions::new().write(true).open(mount.join(name)).unwrap().set_len(1).unwrap();
        }
        assert!(listing.count() > 100);
        for name in &names {
            let meta = fs::metadata(mount.join(name)).unwrap();
            assert_eq!((meta.mode() & 0o777, meta.len()), (0o604, 1), "{name}");
            let mut text = String::new();
            File::open(mount.join(name)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, name[..1]);
        }
    });
}
