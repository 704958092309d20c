//! `scripts/run.sh`: from nothing to a mounted store and back, as often as one likes.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use cairn_tests::{
    binaries::{checkout, release_directory},
    command::{Ran, run},
    mount::{detach, is_mounted},
    scratch, within,
};
use tempfile::TempDir;

/// One `CAIRN_HOME`. Taken down when dropped.
struct Home {
    place: TempDir,
    port: u16,
}

impl Home {
    fn new() -> Self {
        // Each test of this process gets ports of its own: what is free now, another may take.
        static HOMES: AtomicU16 = AtomicU16::new(0);
        let step = HOMES.fetch_add(1, Ordering::Relaxed) * 10;
        let free = |port: u16| (0..3).all(|n| TcpListener::bind(("127.0.0.1", port + n)).is_ok());
        let start = 30_100 + u16::try_from(std::process::id() % 200).unwrap() * 10 + step;
        let port = (start..32_700).step_by(10).find(|p| free(*p)).unwrap();
        Self { place: scratch("home"), port }
    }

    fn mnt(&self) -> PathBuf {
        self.place.path().join("my mnt")
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(checkout().join("scripts/run.sh"));
        command.args(arguments).current_dir(self.place.path());
        command.env("CAIRN_HOME", self.place.path().join("home"));
        command.env("CAIRN_PORT", self.port.to_string()).env_remove("CAIRN_MASTER");
        command.env("CAIRN_BIN_DIR", release_directory());
        run(command, Duration::from_secs(120))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert!(ran.ok(), "{ran}");
        ran.stdout
    }

    fn pid(&self, name: &str) -> String {
        let path = self.place.path().join(format!("home/run/{name}.pid"));
        fs::read_to_string(path).unwrap().trim().to_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["down"]);
        detach(&self.mnt());
    }
}

fn alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).join("exe").exists()
}

#[test]
fn up_is_one_command_down_another_and_both_may_be_repeated() {
    within(300, || {
        let home = Home::new();
        let mnt = home.mnt();
        let mnt_arg = mnt.to_str().unwrap();
        home.ok(&["up", mnt_arg]);
        assert!(is_mounted(&mnt));
        fs::write(mnt.join("f"), "kept").unwrap();
        home.ok(&["up", mnt_arg]);
        assert!(home.ok(&["start"]).contains("lready running"));
        assert!(home.ok(&["list"]).contains('f'));
        home.ok(&["verify"]);
        assert!(home.ok(&["status"]).contains("running"));
        let node = home.pid("node1");
        assert!(alive(&node));
        home.ok(&["down"]);
        assert!(!alive(&node) && !mnt.join("f").exists());
        home.ok(&["stop"]);
        assert!(!home.run(&["status"]).ok());
        home.ok(&["up", mnt_arg]);
        assert_eq!(fs::read_to_string(mnt.join("f")).unwrap(), "kept");
        home.ok(&["restart"]);
        assert_eq!(fs::read_to_string(mnt.join("f")).unwrap(), "kept");
        home.ok(&["umount", mnt_arg]);
        home.ok(&["umount", mnt_arg]);
    });
}

#[test]
fn killed_processes_and_their_pid_files_are_no_obstacle() {
    within(200, || {
        let home = Home::new();
        home.ok(&["start"]);
        for name in ["node1", "master"] {
            let killed = Command::new("kill").args(["-9", &home.pid(name)]).status().unwrap();
            assert!(killed.success());
        }
        std::thread::sleep(Duration::from_millis(100));
        home.ok(&["start"]);
        assert!(alive(&home.pid("node1")) && alive(&home.pid("master")));
        let foreign = home.place.path().join("home/run/node2.pid");
        home.ok(&["stop"]);
        fs::write(&foreign, std::process::id().to_string()).unwrap();
        home.ok(&["start"]);
        assert_ne!(home.pid("node2"), std::process::id().to_string());
    });
}

#[test]
fn a_port_in_use_is_a_sentence_with_a_remedy() {
    within(120, || {
        let home = Home::new();
        let _occupied = TcpListener::bind(("127.0.0.1", home.port)).unwrap();
        let ran = home.run(&["start"]);
        assert_eq!(ran.code(), Some(1), "{ran}");
        assert!(ran.stderr.contains("in use") && ran.stderr.contains("CAIRN_PORT="), "{ran}");
    });
}
