//! The power goes at random moments: all that was synced is there, whatever else the disk lost or tore.

use std::time::Duration;

use cairn_tests::{
    Cluster, Layout, Rng,
    powercut::{PowerCutDisk, SyncedBy},
    rng::scale,
    within,
};

use super::acknowledged::{check, start};

/// A disk for each server, all of them on the same power.
struct Site {
    cluster: Cluster,
    disks: Vec<PowerCutDisk>,
}

impl Site {
    fn new(rng: &mut Rng, synced_by: SyncedBy) -> Self {
        let disks: Vec<_> = (0..3).map(|_| PowerCutDisk::new(rng.next_u64(), synced_by)).collect();
        let cluster = Cluster::with(Layout {
            master_dir: Some(disks[0].path().join("master")),
            node_dirs: vec![disks[1].path().join("node1"), disks[2].path().join("node2")],
            ..Layout::default()
        });
        for disk in &disks {
            std::fs::File::open(disk.path()).unwrap().sync_all().unwrap();
        }
        Self { cluster, disks }
    }

    fn power_cut(&mut self) {
        self.disks.iter().for_each(PowerCutDisk::freeze);
        let dead = self.cluster.power_off();
        self.disks.iter().for_each(PowerCutDisk::abandon);
        drop(dead);
        self.disks.iter_mut().for_each(PowerCutDisk::cut);
    }
}

/// Clients lose their power too: only what was synced counts.
fn whole_site(synced_by: SyncedBy) {
    within(500 * scale(), move || {
        let mut rng = Rng::of_run("power cut");
        let mut site = Site::new(&mut rng, synced_by);
        let mut mount = site.cluster.mount_with(&["--deadline", "10"]);
        let mut acknowledged = 0;
        for _ in 0..5 * scale() {
            let writer = start(&site.cluster, &mount.join("files"), acknowledged);
            std::thread::sleep(Duration::from_millis(200 + rng.below(800)));
            site.power_cut();
            mount.kill9();
            acknowledged = writer.abandon();
            site.cluster.start_all();
            mount.start(&site.cluster.master_address(), &["--deadline", "10"]);
            check(&mount.join("files"), acknowledged);
            site.cluster.assert_fsck_clean();
        }
        assert!(acknowledged > 10, "only {acknowledged} files were synced");
        site.cluster.assert_sound();
    });
}

#[test]
fn what_was_synced_survives_on_disks_with_a_journal() {
    whole_site(SyncedBy::AnyFsync);
}

#[test]
fn what_was_synced_survives_on_disks_that_promise_only_what_posix_does() {
    whole_site(SyncedBy::ItsDirectory);
}

/// Only the servers lose their power: the living client repeats what was not durable yet.
#[test]
fn a_living_client_loses_nothing_at_all() {
    within(400 * scale(), || {
        let mut rng = Rng::of_run("power cut of the servers");
        let mut site = Site::new(&mut rng, SyncedBy::AnyFsync);
        let mount = site.cluster.mount();
        let mut written = 0;
        for _ in 0..4 * scale() {
            let until = written + 30 + rng.below(60);
            while written < until {
                let path = mount.join(format!("f{written}"));
                std::fs::write(path, Rng::new(written).bytes(3000)).unwrap();
                written += 1;
            }
            site.power_cut();
            site.cluster.start_all();
        }
        for n in 0..written {
            let read = std::fs::read(mount.join(format!("f{n}"))).unwrap();
            assert!(read == Rng::new(n).bytes(3000), "f{n}");
        }
        drop(mount);
        site.cluster.assert_sound();
    });
}
