//! Disks that are full or give errors: a clear answer, nothing lost, nothing acknowledged wrongly.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    time::Duration,
};

use cairn_tests::{
    Cluster, Layout, Rng,
    powercut::{Fault, PowerCutDisk, Step, SyncedBy},
    sh, wait_for, within,
};

fn nodes_on(disks: &[PowerCutDisk]) -> Cluster {
    let node_dirs = disks.iter().map(|d| d.path().join("data")).collect();
    Cluster::with(Layout { node_dirs, ..Layout::default() })
}

#[test]
fn full_nodes_are_no_space_left_and_what_is_there_stays_readable() {
    within(300, || {
        let disks: Vec<_> = (0..2).map(|n| PowerCutDisk::new(n, SyncedBy::AnyFsync)).collect();
        disks.iter().for_each(|d| d.capacity(2 << 30));
        let cluster = nodes_on(&disks);
        let mount = cluster.mount_with(&["--deadline", "10"]);
        fs::write(mount.join("kept"), Rng::new(1).bytes(4 << 20)).unwrap();
        sh(mount.path(), 30, "sync kept");
        disks.iter().for_each(|d| d.capacity(300 << 20));
        let mut file = File::create(mount.join("too much")).unwrap();
        let mut rng = Rng::new(2);
        let error = (0..400).find_map(|_| file.write_all(&rng.bytes(1 << 20)).err());
        let error = error.or_else(|| file.sync_all().err()).expect("400 MiB fit on a full disk");
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        drop(file);
        assert!(fs::read(mount.join("kept")).unwrap() == Rng::new(1).bytes(4 << 20));
        fs::remove_file(mount.join("too much")).unwrap();
        disks.iter().for_each(|d| d.capacity(4 << 30));
        let works = wait_for(Duration::from_secs(30), || {
            fs::write(mount.join("again"), "works").is_ok()
                && File::open(mount.join("again")).is_ok_and(|f| f.sync_all().is_ok())
        });
        assert!(works, "no write succeeds although there is space again");
        cluster.assert_fsck_clean();
    });
}

#[test]
fn a_node_whose_disk_cannot_sync_acknowledges_nothing_and_the_other_carries_on() {
    within(200, || {
        let disks: Vec<_> = (0..2).map(|n| PowerCutDisk::new(n, SyncedBy::AnyFsync)).collect();
        let cluster = nodes_on(&disks);
        let mount = cluster.mount();
        fs::write(mount.join("before"), Rng::new(1).bytes(1 << 20)).unwrap();
        sh(mount.path(), 30, "sync before");
        disks[0].plan(Fault { step: Step::Sync, after: 0, times: u64::MAX, errno: libc::EIO });
        let mut after = File::create(mount.join("after")).unwrap();
        after.write_all(&Rng::new(2).bytes(1 << 20)).unwrap();
        after.sync_all().unwrap();
        assert!(disks[0].hits() > 0, "the fault was never met");
        drop(mount);
        let mount = cluster.mount();
        assert!(fs::read(mount.join("before")).unwrap() == Rng::new(1).bytes(1 << 20));
        assert!(fs::read(mount.join("after")).unwrap() == Rng::new(2).bytes(1 << 20));
        cluster.assert_fsck_clean();
    });
}

#[test]
fn short_writes_of_a_disk_are_completed() {
    within(200, || {
        let disks: Vec<_> = (0..2).map(|n| PowerCutDisk::new(n, SyncedBy::AnyFsync)).collect();
        disks.iter().for_each(|d| d.longest_write(5000));
        let mut cluster = nodes_on(&disks);
        fs::write(cluster.mount().join("f"), Rng::new(1).bytes(4 << 20)).unwrap();
        cluster.stop_all();
        disks.iter().for_each(PowerCutDisk::heal);
        cluster.start_all();
        assert!(fs::read(cluster.mount().join("f")).unwrap() == Rng::new(1).bytes(4 << 20));
        cluster.assert_sound();
    });
}

#[test]
fn a_full_disk_of_the_master_is_no_space_left_and_it_keeps_reading() {
    within(300, || {
        let disk = PowerCutDisk::new(1, SyncedBy::AnyFsync);
        let mut cluster = Cluster::with(Layout {
            master_dir: Some(disk.path().join("master")),
            ..Layout::default()
        });
        let mount = cluster.mount_with(&["--deadline", "10"]);
        fs::write(mount.join("kept"), "kept").unwrap();
        sh(mount.path(), 30, "sync kept");
        disk.capacity(1 << 20);
        let error = (0..20_000).find_map(|n| fs::create_dir(mount.join(format!("d{n}"))).err());
        let error = error.or_else(|| File::open(mount.path()).unwrap().sync_all().err());
        assert!(error.is_some(), "20,000 directories fit on a full disk");
        assert_eq!(fs::read_to_string(mount.join("kept")).unwrap(), "kept");
        disk.heal();
        cluster.kill_master();
        cluster.start_all();
        fs::write(mount.join("again"), "works").unwrap();
        drop(mount);
        cluster.assert_sound();
    });
}
