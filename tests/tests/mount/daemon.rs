//! The mount daemon as a process: in the background by default, ready when the command returns,
//! cleaning up after a dead one, ending when it is unmounted.

use std::{fs, time::Duration};

use cairn_tests::{
    Cluster, Mount,
    mount::{detach, is_mounted},
    wait_for, within,
};

#[test]
fn mounting_in_the_background_returns_when_it_is_ready() {
    within(120, || {
        let cluster = Cluster::new();
        let dir = cluster.place().join("mnt");
        let (pid, log) = (cluster.place().join("mount.pid"), cluster.place().join("mount.log"));
        fs::create_dir(&dir).unwrap();
        let path = dir.to_str().unwrap();
        let files = ["--pid-file", pid.to_str().unwrap(), "--log-file", log.to_str().unwrap()];
        let mounted = cluster.cairn(30, &[&["mount", path], &files[..]].concat());
        let ready = fs::write(dir.join("at once"), "yes");
        let id: u32 = fs::read_to_string(&pid).unwrap_or_default().trim().parse().unwrap_or(0);
        let alive = fs::exists(format!("/proc/{id}")).unwrap_or(false);
        let unmounted = cluster.cairn(30, &["umount", path]);
        let ended =
            wait_for(Duration::from_secs(20), || !fs::exists(format!("/proc/{id}/exe")).unwrap());
        detach(&dir);
        assert!(mounted.ok(), "{mounted}");
        ready.unwrap();
        assert!(id != 0 && alive, "the pid file holds no living process");
        assert!(unmounted.ok(), "{unmounted}");
        assert!(ended && !is_mounted(&dir), "the daemon outlives its mount");
    });
}

#[test]
fn df_shows_the_room_as_soon_as_it_is_mounted() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let room = rustix::fs::statvfs(mount.path()).unwrap();
        assert!(room.f_blocks > 0, "df shows no room");
        assert!(room.f_bavail > 0 && room.f_bavail <= room.f_blocks);
    });
}

#[test]
fn a_dead_mount_is_cleaned_up_by_the_next() {
    within(120, || {
        let cluster = Cluster::new();
        let mut mount = cluster.mount();
        fs::write(mount.join("kept"), "kept").unwrap();
        fs::File::open(mount.join("kept")).unwrap().sync_all().unwrap();
        mount.kill9();
        assert!(fs::read_dir(mount.path()).is_err(), "the mount of a killed daemon answers");
        mount.start(&cluster.master_address(), &[]);
        assert_eq!(fs::read_to_string(mount.join("kept")).unwrap(), "kept");
        mount.unmount();
    });
}

#[test]
fn a_mount_without_a_master_fails_with_a_sentence() {
    within(60, || {
        let mut cluster = Cluster::new();
        cluster.kill_master();
        let dir = cluster.place().join("mnt");
        fs::create_dir(&dir).unwrap();
        let address = cluster.master_address();
        let ran = cluster.cairn(50, &["mount", dir.to_str().unwrap(), "--master", &address]);
        detach(&dir);
        assert!(!ran.ok() && ran.status.is_some(), "{ran}");
        assert!(ran.stderr.contains(&address), "{ran}");
    });
}

#[test]
fn a_read_only_mount_reads_and_refuses_writes() {
    within(60, || {
        let cluster = Cluster::new();
        fs::write(cluster.mount().join("f"), "x").unwrap();
        let mount = Mount::new(&cluster.master_address(), &["--read-only"]);
        assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "x");
        let error = fs::write(mount.join("g"), "y").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    });
}
