//! `kill -9` of the master during a copy: it stalls, goes on, and is right.

use std::time::Duration;

use cairn_tests::{
    Cluster, Rng, rng::scale, sh, tree_compare::assert_same, tree_random, tree_random::Shape,
    within,
};

use super::acknowledged::{check, start};

#[test]
fn a_copy_survives_kills_of_the_master_at_random_moments() {
    within(500 * scale(), || {
        let mut cluster = Cluster::new();
        let mut rng = Rng::of_run("killed master");
        let source = cluster.place().join("source");
        let shape = Shape { files: 1200, ..Shape::default() };
        tree_random::make(&source, shape, &mut rng);
        let mount = cluster.mount();
        let target = mount.join("copy");
        let copy = std::thread::spawn({
            let (source, target) = (source.clone(), target.clone());
            move || {
                let script = format!("cp -a '{}' '{}'", source.display(), target.display());
                sh(&std::env::temp_dir(), 300, &script)
            }
        });
        for _ in 0..5 * scale() {
            std::thread::sleep(Duration::from_millis(50 + rng.below(600)));
            cluster.kill_master();
            std::thread::sleep(Duration::from_millis(rng.below(400)));
            cluster.start_master();
        }
        copy.join().unwrap();
        assert_same(&source, &target);
        drop(mount);
        let mount = cluster.mount();
        assert_same(&source, &mount.join("copy"));
        cluster.assert_sound();
    });
}

#[test]
fn synced_files_survive_kills_of_the_master_at_random_moments() {
    within(500 * scale(), || {
        let mut cluster = Cluster::new();
        let mut rng = Rng::of_run("killed master");
        let mount = cluster.mount();
        let writer = start(&cluster, &mount.join("files"), 0);
        for _ in 0..8 * scale() {
            std::thread::sleep(Duration::from_millis(100 + rng.below(500)));
            cluster.kill_master();
            cluster.start_master();
        }
        let acknowledged = writer.finish();
        assert!(acknowledged > 10, "only {acknowledged} files were written");
        drop(mount);
        check(cluster.mount().path().join("files").as_path(), acknowledged);
        cluster.assert_sound();
    });
}

#[test]
fn an_unlinked_open_file_outlives_the_master() {
    use std::{
        fs,
        io::{Read as _, Seek as _, Write as _},
    };
    within(120, || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount();
        let mut options = fs::File::options();
        let mut file =
            options.read(true).write(true).create_new(true).open(mount.join("f")).unwrap();
        file.write_all(b"before").unwrap();
        file.sync_all().unwrap();
        fs::remove_file(mount.join("f")).unwrap();
        cluster.kill_master();
        cluster.start_master();
        file.write_all(b" and after").unwrap();
        file.sync_all().unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before and after");
        drop(file);
        cluster.wait_healthy();
        cluster.assert_fsck_clean();
    });
}
