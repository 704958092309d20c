//! The ways in which programs change files, each checked byte by byte against the local disk.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    ptr,
};

use cairn_tests::{Cluster, Rng, rng::scale, sh, tree_compare::first_difference, within};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// Runs the same script in the mount and in a local directory; the results must be the same, also
/// in a second mount, which has nothing cached.
fn same_as_locally(script: &'static str) {
    within(200, move || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let local = cluster.place().join("local");
        fs::create_dir(&local).unwrap();
        sh(&local, 60, script);
        sh(mount.path(), 100, script);
        sh(mount.path(), 60, &format!("diff -r . '{}'", local.display()));
        drop(mount);
        let mount = cluster.mount();
        sh(mount.path(), 60, &format!("diff -r . '{}'", local.display()));
        cluster.assert_fsck_clean();
    });
}

#[test]
fn save_by_rename_as_editors_do() {
    same_as_locally(
        "for i in $(seq 50); do
           echo \"version $i\" >.doc.swp && sync .doc.swp && mv .doc.swp doc
           [ \"$(cat doc)\" = \"version $i\" ]
         done
         cp doc doc~ && ln doc backup && echo new >doc.new && mv -f doc.new doc && cat backup",
    );
}

#[test]
fn appending_dd_in_the_middle_and_truncation() {
    same_as_locally(
        "seq 100000 >log; for i in $(seq 100); do echo \"line $i\" >>log; done
         cp log mid; printf 'MIDDLE' | dd of=mid bs=1 seek=65533 conv=notrunc status=none
         seq 300000 >src; dd if=src of=mid bs=4096 seek=7 count=20 conv=notrunc status=none
         cp log down; truncate -s 70001 down; cp down up; truncate -s 500000 up
         truncate -s 10 up; truncate -s 70000 up; printf end >>up
         truncate -s 3000000 hole; printf x | dd of=hole bs=1 seek=1500000 conv=notrunc status=none
         : >log2; seq 10 >log2; : >log2; printf again >>log2",
    );
}

#[test]
fn random_edits_are_the_same_as_on_the_local_disk() {
    within(300, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let mut rng = Rng::of_run("edits");
        let paths = [cluster.place().join("model"), mount.join("file")];
        let open = |path: &Path| {
            File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
        };
        let mut files = [open(&paths[0]), open(&paths[1])];
        for step in 0..1500 * scale() {
            let (offset, len) = (rng.below(700_000), rng.index(90_000));
            match rng.below(10) {
                0 => files.iter().for_each(|f| f.set_len(offset).unwrap()),
                1 => files[1].sync_all().unwrap(),
                2 => files[1] = open(&paths[1]),
                3 => {
                    let bytes = rng.bytes(len);
                    for file in &mut files {
                        file.seek(SeekFrom::End(0)).unwrap();
                        file.write_all(&bytes[..len / 9]).unwrap();
                    }
                }
                4..=6 => {
                    let bytes = rng.bytes(len);
                    files.iter().for_each(|f| f.write_all_at(&bytes, offset).unwrap());
                }
                _ => {
                    let read = files.each_ref().map(|f| {
                        let mut bytes = vec![0; len];
                        let n = f.read_at(&mut bytes, offset).unwrap();
                        bytes.truncate(n);
                        bytes
                    });
                    assert!(read[0] == read[1], "step {step}: read at {offset} of {len} bytes");
                }
            }
        }
        drop(files);
        assert_eq!(first_difference(&paths[0], &paths[1]), None);
        drop(mount);
        let mount = cluster.mount();
        assert_eq!(first_difference(&paths[0], &mount.join("file")), None);
    });
}

#[test]
fn a_shared_mapping_is_written_back() {
    const LEN: usize = 300_000;
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let mut expected = Rng::new(7).bytes(LEN);
        fs::write(mount.join("mapped"), &expected).unwrap();
        let file = File::options().read(true).write(true).open(mount.join("mapped")).unwrap();
        // SAFETY: a fresh mapping of a file that nobody truncates; unmapped below, not used after.
        unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let at = mmap(ptr::null_mut(), LEN, protection, MapFlags::SHARED, &file, 0).unwrap();
            let bytes = std::slice::from_raw_parts_mut(at.cast::<u8>(), LEN);
            assert!(bytes == expected);
            for position in (0..LEN).step_by(1237) {
                bytes[position] ^= 0xff;
                expected[position] ^= 0xff;
            }
            msync(at, LEN, MsyncFlags::SYNC).unwrap();
            munmap(at, LEN).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        assert!(fs::read(mount.join("mapped")).unwrap() == expected);
        drop(mount);
        let mount = cluster.mount();
        assert!(fs::read(mount.join("mapped")).unwrap() == expected);
    });
}

#[test]
fn sixteen_writers_of_different_files_at_once() {
    within(240, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        std::thread::scope(|scope| {
            for n in 0..16 {
                let dir = mount.join(format!("writer-{n}"));
                scope.spawn(move || {
                    fs::create_dir(&dir).unwrap();
                    let mut rng = Rng::new(n);
                    for i in 0..20 {
                        fs::write(dir.join(format!("f{i}")), rng.bytes(200_000)).unwrap();
                    }
                });
            }
        });
        drop(mount);
        let mount = cluster.mount();
        for n in 0..16 {
            let mut rng = Rng::new(n);
            for i in 0..20 {
                let read = fs::read(mount.join(format!("writer-{n}/f{i}"))).unwrap();
                assert!(read == rng.bytes(200_000), "writer {n}, file {i}");
            }
        }
        cluster.assert_sound();
    });
}

#[test]
fn parallel_appends_of_one_mount_never_overlap() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = mount.join("log");
                scope.spawn(move || {
                    let mut log = File::options().append(true).create(true).open(path).unwrap();
                    for i in 0..200 {
                        log.write_all(format!("{n} {i:04} {}\n", "x".repeat(90)).as_bytes())
                            .unwrap();
                    }
                });
            }
        });
        let log = fs::read_to_string(mount.join("log")).unwrap();
        assert_eq!(log.lines().count(), 1600);
        assert!(log.lines().all(|line| line.len() == 97));
    });
}

#[test]
fn an_unlinked_open_file_is_read_and_written_on() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let path = mount.join("gone");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(&[1; 200_000]).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!path.exists());
        file.write_all(&[2; 200_000]).unwrap();
        file.sync_all().unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes[..200_000].iter().all(|&b| b == 1) && bytes.len() == 400_000);
        assert!(bytes[200_000..].iter().all(|&b| b == 2));
        fs::write(&path, "another").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 400_000);
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        drop(mount);
        cluster.assert_fsck_clean();
    });
}
