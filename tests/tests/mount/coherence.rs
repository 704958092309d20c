//! Two mounts of one store: what one has closed, the other sees when it opens.

use std::{fs, io::Write as _, time::Duration};

use cairn_tests::{Cluster, Rng, wait_for, within};

#[test]
fn what_one_mount_closed_the_other_reads_after_opening() {
    within(180, || {
        let cluster = Cluster::new();
        let (one, other) = (cluster.mount(), cluster.mount());
        let mut rng = Rng::of_run("two mounts");
        fs::write(one.join("f"), "first").unwrap();
        assert!(wait_for(Duration::from_secs(5), || other.join("f").exists()));
        for round in 0..40 {
            let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
            let len = rng.index(300_000);
            let bytes = rng.bytes(len);
            fs::write(writer.join("f"), &bytes).unwrap();
            let read = fs::read(reader.join("f")).unwrap();
            assert!(read == bytes, "round {round}: {} bytes read, {len} written", read.len());
        }
    });
}

#[test]
fn names_of_one_mount_appear_in_the_other_within_seconds() {
    within(120, || {
        let cluster = Cluster::new();
        let (one, other) = (cluster.mount(), cluster.mount());
        assert!(!other.join("dir/file").exists());
        fs::create_dir(one.join("dir")).unwrap();
        fs::write(one.join("dir/file"), "x").unwrap();
        assert!(wait_for(Duration::from_secs(5), || other.join("dir/file").exists()));
        fs::rename(one.join("dir/file"), one.join("dir/moved")).unwrap();
        assert!(wait_for(Duration::from_secs(5), || {
            other.join("dir/moved").exists() && !other.join("dir/file").exists()
        }));
    });
}

#[test]
fn two_writers_of_one_file_do_not_lose_each_others_bytes() {
    within(180, || {
        let cluster = Cluster::new();
        let mounts = [cluster.mount(), cluster.mount()];
        fs::write(mounts[0].join("shared"), vec![b'.'; 400_000]).unwrap();
        assert!(wait_for(Duration::from_secs(5), || mounts[1].join("shared").exists()));
        std::thread::scope(|scope| {
            for (n, mount) in mounts.iter().enumerate() {
                let path = mount.join("shared");
                scope.spawn(move || {
                    use std::os::unix::fs::FileExt as _;
                    let file = fs::File::options().write(true).open(&path).unwrap();
                    let byte = [b'a' + u8::try_from(n).unwrap(); 100];
                    for at in (0..400_000u64).step_by(200) {
                        file.write_all_at(&byte, at + 100 * n as u64).unwrap();
                        if at % 40_000 == 0 {
                            file.sync_all().unwrap();
                        }
                    }
                });
            }
        });
        let bytes = fs::read(cluster.mount().join("shared")).unwrap();
        for (at, piece) in bytes.chunks(100).enumerate() {
            let expected = if at % 2 == 0 { b'a' } else { b'b' };
            assert!(
                piece.iter().all(|&b| b == expected),
                "bytes of {expected} lost at {}",
                at * 100
            );
        }
    });
}

#[test]
fn appends_of_two_mounts_never_overlap() {
    within(180, || {
        let cluster = Cluster::new();
        let mounts = [cluster.mount(), cluster.mount()];
        fs::write(mounts[0].join("log"), "").unwrap();
        assert!(wait_for(Duration::from_secs(5), || mounts[1].join("log").exists()));
        std::thread::scope(|scope| {
            for (n, mount) in mounts.iter().enumerate() {
                let path = mount.join("log");
                scope.spawn(move || {
                    for i in 0..100 {
                        let mut log = fs::File::options().append(true).open(&path).unwrap();
                        writeln!(log, "{n} {i:05}").unwrap();
                        log.sync_all().unwrap();
                    }
                });
            }
        });
        let log = fs::read_to_string(cluster.mount().join("log")).unwrap();
        let mut lines: Vec<_> = log.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 200);
    });
}
