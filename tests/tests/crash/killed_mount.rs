//! `kill -9` of the mount daemon loses only what was not synced or closed; a new mount works at once.

use std::{
    fs,
    time::{Duration, Instant},
};

use cairn_tests::{Cluster, Rng, rng::scale, within};

use super::acknowledged::{check, start};

#[test]
fn synced_files_survive_kills_of_the_mount_daemon() {
    within(300, || {
        let cluster = Cluster::new();
        let mut rng = Rng::of_run("killed mount");
        let mut mount = cluster.mount();
        let mut acknowledged = 0;
        for _ in 0..4 * scale() {
            let writer = start(&cluster, &mount.join("files"), acknowledged);
            std::thread::sleep(Duration::from_millis(300 + rng.below(700)));
            mount.kill9();
            acknowledged = writer.abandon();
            let began = Instant::now();
            mount.start(&cluster.master_address(), &[]);
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "the new mount was not there at once"
            );
            check(&mount.join("files"), acknowledged);
        }
        assert!(acknowledged > 10);
        cluster.assert_sound();
    });
}

#[test]
fn closed_files_survive_a_kill_of_the_mount_daemon() {
    within(120, || {
        let cluster = Cluster::new();
        let mut mount = cluster.mount();
        for n in 0..50 {
            fs::write(mount.join(format!("f{n}")), Rng::new(n).bytes(50_000)).unwrap();
        }
        mount.kill9();
        mount.start(&cluster.master_address(), &[]);
        for n in 0..50 {
            assert!(fs::read(mount.join(format!("f{n}"))).unwrap() == Rng::new(n).bytes(50_000));
        }
        cluster.assert_sound();
    });
}
