//! The same content takes its space once, and a copy inside the mount takes none.

use std::{fs, time::Instant};

use cairn_tests::{
    Cluster, Rng, inspect::stored_bytes, mount::store, sh, tree_compare::first_difference, within,
};

#[test]
fn the_same_content_written_three_times_takes_its_space_once() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let bytes = Rng::new(3).bytes(20 << 20);
        for name in ["a", "b", "c"] {
            store(&mount.join(name), &bytes);
        }
        assert_eq!(stored_bytes(&cluster, 2), 2 * (20 << 20), "two copies of each chunk, no more");
        drop(mount);
        let mount = cluster.mount();
        assert!(["a", "b", "c"].iter().all(|n| fs::read(mount.join(n)).unwrap() == bytes));
    });
}

#[test]
fn a_copy_inside_the_mount_takes_no_space() {
    within(180, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        fs::write(mount.join("big"), Rng::new(4).bytes((128 << 20) + 12_345)).unwrap();
        sh(mount.path(), 60, "sync big");
        let before = stored_bytes(&cluster, 2);
        let began = Instant::now();
        sh(mount.path(), 60, "cp big copy && sync copy");
        eprintln!("cp of 128 MiB inside the mount: {:?}", began.elapsed());
        assert_eq!(stored_bytes(&cluster, 2), before);
        assert_eq!(first_difference(&mount.join("big"), &mount.join("copy")), None);
        sh(
            mount.path(),
            60,
            "printf changed | dd of=copy bs=1 seek=70000 conv=notrunc status=none",
        );
        drop(mount);
        let mount = cluster.mount();
        assert_eq!(first_difference(&mount.join("big"), &mount.join("copy")), Some(70_000));
        cluster.assert_sound();
    });
}
