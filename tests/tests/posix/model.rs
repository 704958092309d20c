//! Thousands of random operations, each done in the mount and on the local disk: the same answers, the
//! same trees. What may differ is listed in `cairn_tests::model`.

use std::{fs, os::unix::fs::PermissionsExt as _, thread::sleep, time::Duration};

use cairn_tests::{Cluster, Rng, model::Model, rng::scale, within};

/// A directory of the cluster's place on the local disk that every user may use.
fn local(cluster: &Cluster) -> std::path::PathBuf {
    let local = cluster.place().join("local");
    fs::create_dir(&local).unwrap();
    local
}

fn open_to_all(directory: &std::path::Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn random_operations_are_what_a_local_disk_makes_of_them() {
    within(560 * scale(), || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let local = local(&cluster);
        for directory in [mount.path(), &local] {
            open_to_all(directory);
        }
        let mut model = Model::new(&local, Rng::of_run("model"));
        model.run(mount.path(), 20_000 * scale());
        drop(mount);
        model.assert_same(cluster.mount().path());
        cluster.assert_sound();
    });
}

/// Two mounts take turns. Every handle is closed before a turn ends, and the other mount begins after the
/// second for which it may believe what it knew of names and attributes: that is all this relies on.
#[test]
fn two_mounts_taking_turns_are_one_local_disk() {
    const TURNS: u64 = 40;
    const BELIEVED: Duration = Duration::from_millis(1_100);
    within(300 * scale(), || {
        let cluster = Cluster::new();
        let mounts = [cluster.mount(), cluster.mount()];
        let local = local(&cluster);
        for directory in [mounts[0].path(), &local] {
            open_to_all(directory);
        }
        let mut model = Model::new(&local, Rng::of_run("model with two mounts"));
        for turn in 0..TURNS * scale() {
            sleep(BELIEVED);
            let mount = &mounts[usize::from(turn % 2 == 1)];
            model.assert_same(mount.path());
            model.run(mount.path(), 100);
        }
        drop(mounts);
        model.assert_same(cluster.mount().path());
        cluster.assert_sound();
    });
}
