//! Bytes that change on a node's disk are never given to a reader, and `verify` finds them.

use std::{fs, os::unix::fs::FileExt as _, path::Path};

use cairn_tests::{Cluster, Rng, inspect, within};

/// Flips one byte of the stored `content` in every segment below `data` that has it.
fn flip(data: &Path, content: &[u8]) -> usize {
    let needle = &content[1000..1064];
    let mut flipped = 0;
    for entry in fs::read_dir(data.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) else { continue };
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[bytes[at] ^ 0x40], at as u64).unwrap();
        flipped += 1;
    }
    flipped
}

#[test]
fn a_flipped_byte_is_read_right_from_the_other_copy_and_found_by_verify() {
    within(200, || {
        let mut cluster = Cluster::new();
        let content = Rng::new(5).bytes(3 << 20);
        fs::write(cluster.mount().join("precious"), &content).unwrap();
        let clean = cluster.cairn(60, &["verify"]);
        assert!(clean.ok(), "{clean}");
        cluster.stop_all();
        assert_eq!(flip(cluster.node_data(0), &content), 1);
        cluster.start_all();
        for _ in 0..3 {
            assert!(fs::read(cluster.mount().join("precious")).unwrap() == content);
        }
        let found = cluster.cairn(60, &["verify"]);
        assert_eq!(found.code(), Some(1), "{found}");
        assert!(found.stdout.contains("node1"), "verify does not name the node: {found}");
        assert!(found.stdout.contains("precious"), "verify does not name the file: {found}");
    });
}

#[test]
fn a_chunk_damaged_everywhere_is_an_error_and_never_zeros() {
    within(200, || {
        let mut cluster = Cluster::new();
        let content = Rng::new(6).bytes(1 << 20);
        fs::write(cluster.mount().join("lost"), &content).unwrap();
        cluster.stop_all();
        assert_eq!(flip(cluster.node_data(0), &content) + flip(cluster.node_data(1), &content), 2);
        cluster.start_all();
        let mount = cluster.mount_with(&["--deadline", "5"]);
        let error = fs::read(mount.join("lost")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let file = fs::File::open(mount.join("lost")).unwrap();
        let mut rest = vec![0; 65_536];
        file.read_exact_at(&mut rest, 512 << 10).unwrap();
        assert!(
            rest == content[512 << 10..(512 << 10) + 65_536],
            "the other chunks are still there"
        );
        let found = cluster.cairn(60, &["verify"]);
        assert_eq!(found.code(), Some(1), "{found}");
    });
}

#[test]
fn a_store_that_lost_its_index_builds_it_again_from_the_segments() {
    within(200, || {
        let mut cluster = Cluster::new();
        let content = Rng::new(8).bytes(5 << 20);
        fs::write(cluster.mount().join("f"), &content).unwrap();
        let chunks = inspect::stored_chunks(&cluster, 2);
        cluster.stop_all();
        fs::remove_dir_all(cluster.node_data(0).join("index")).unwrap();
        cluster.start_all();
        assert_eq!(inspect::stored_chunks(&cluster, 2), chunks);
        cluster.kill_node(1);
        assert!(fs::read(cluster.mount().join("f")).unwrap() == content);
        cluster.start_node(1);
        cluster.assert_sound();
    });
}
