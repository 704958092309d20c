//! With every node dead, reads and writes fail within the deadline and can be interrupted.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    process::Command,
    time::{Duration, Instant},
};

use cairn_tests::{Cluster, Rng, command::run, sh, within};

#[test]
fn reads_and_writes_fail_within_the_deadline_and_work_again_later() {
    within(200, || {
        let mut cluster = Cluster::new();
        fs::write(cluster.mount().join("old"), Rng::new(1).bytes(1 << 20)).unwrap();
        let mount = cluster.mount_with(&["--deadline", "6"]);
        cluster.kill_node(0);
        cluster.kill_node(1);
        let began = Instant::now();
        let read = File::open(mount.join("old")).unwrap().read(&mut [0; 4096]);
        assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EIO));
        assert!(began.elapsed() < Duration::from_secs(12), "read: {:?}", began.elapsed());
        let began = Instant::now();
        let mut file = File::create(mount.join("new")).unwrap();
        let written = file.write_all(&[1; 300_000]).and_then(|()| file.sync_all());
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EIO));
        assert!(began.elapsed() < Duration::from_secs(18), "write: {:?}", began.elapsed());
        drop(file);
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 2, "names need no storage node");
        cluster.start_node(0);
        cluster.start_node(1);
        cluster.wait_healthy();
        assert!(fs::read(mount.join("old")).unwrap() == Rng::new(1).bytes(1 << 20));
        fs::write(mount.join("new"), "works").unwrap();
        sh(mount.path(), 30, "sync new");
        drop(mount);
        assert_eq!(fs::read_to_string(cluster.mount().join("new")).unwrap(), "works");
        cluster.assert_sound();
    });
}

#[test]
fn a_waiting_read_and_a_waiting_sync_can_be_interrupted() {
    within(120, || {
        let mut cluster = Cluster::new();
        fs::write(cluster.mount().join("old"), Rng::new(1).bytes(1 << 20)).unwrap();
        let mount = cluster.mount_with(&["--deadline", "60"]);
        cluster.kill_node(0);
        cluster.kill_node(1);
        for script in [
            "cat old >/dev/null",
            "dd if=/dev/urandom of=new bs=64k count=4 conv=fsync status=none",
        ] {
            let mut command = Command::new("timeout");
            command.args(["--signal=INT", "--kill-after=8", "2", "bash", "-c"]);
            command.arg(format!("exec {script}")).current_dir(mount.path());
            let ran = run(command, Duration::from_secs(30));
            assert!(ran.took < Duration::from_secs(8), "Ctrl+C did not end it: {ran}");
            assert!(ran.took > Duration::from_millis(1500), "it did not wait at all: {ran}");
        }
    });
}

#[test]
fn operations_wait_for_the_master_and_fail_at_the_deadline() {
    within(120, || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount_with(&["--deadline", "5"]);
        fs::create_dir(mount.join("dir")).unwrap();
        cluster.kill_master();
        let began = Instant::now();
        let error = fs::create_dir(mount.join("other")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        cluster.start_master();
        cluster.wait_healthy();
        fs::create_dir(mount.join("third")).unwrap();
        assert!(mount.join("dir").is_dir());
        cluster.assert_fsck_clean();
    });
}
