//! `pjdfstest`, the suite for POSIX file systems that others wrote, as root on a mount.
//!
//! `CAIRN_SUITES_BIN_DIR` names the directory that the program is in. Every test of it runs; the table
//! below holds those that cannot, each with the limit that stops it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cairn_tests::{Cluster, Mount, command::Ran, run, within};
use tempfile::{Builder, TempDir};

/// Tests that do not apply, and why.
const EXCLUDED: &[(&str, &str)] = &[
    // glibc knows LINK_MAX for the file systems it has a list of, FUSE is not among them, and it
    // answers 127 for the others; the suite then does not try.
    ("link::link_count_max", "pathconf(_PC_LINK_MAX) knows no limit of FUSE file systems"),
];

/// The suite's features that Linux has. The others are FreeBSD's: chflags, NFSv4 access lists and
/// SF_SNAPSHOT; their tests are not even compiled in.
const CONFIG: &str = "
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
";

/// The suite calls mount(8) to make the mount read-only for a moment. The kernel does that by itself;
/// `-i` spares the helper, which is for mounting.
const MOUNT_WITHOUT_HELPER: &str = "#!/bin/sh\nexec /bin/mount -i \"$@\"\n";

fn program() -> PathBuf {
    let directory = std::env::var_os("CAIRN_SUITES_BIN_DIR").map(PathBuf::from).unwrap_or_default();
    let program = directory.join("pjdfstest");
    assert!(
        program.exists(),
        "{} is missing: run scripts/test.sh, or 'cargo install pjdfstest --root DIR' and set \
         CAIRN_SUITES_BIN_DIR=DIR/bin",
        program.display()
    );
    program
}

/// Two users with the group of each, as the system has them.
fn users() -> String {
    let table = |path: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    };
    let groups: BTreeMap<String, String> =
        table("/etc/group").into_iter().map(|g| (g[2].clone(), g[0].clone())).collect();
    let entries: Vec<String> = table("/etc/passwd")
        .into_iter()
        .filter(|user| user[0] == "nobody" || user[0] == "daemon")
        .map(|user| format!("[\"{}\", \"{}\"]", user[0], groups[&user[3]]))
        .collect();
    assert_eq!(entries.len(), 2, "the system has the users nobody and daemon");
    format!("[dummy_auth]\nentries = [{}]\n", entries.join(", "))
}

/// Where to mount: the suite binds sockets to names below it, and those have 107 bytes in all. The
/// temporary directory of a test run may lie deeper than that leaves room for.
fn short_place() -> TempDir {
    Builder::new().prefix("cairn-").tempdir_in("/tmp").expect("/tmp takes a directory")
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The names of the tests whose line ends with `word`.
fn named<'a>(report: &'a str, word: &str) -> Vec<&'a str> {
    let words = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|w| w.len() == 2 && w[1] == word).map(|w| w[0]).collect()
}

/// Runs the suite's tests whose name contains one of `patterns` (all without any); with `remount` it may
/// make the mount read-only.
fn run_suite(mount: &Path, place: &Path, remount: bool, patterns: &[&str]) -> Ran {
    let (tools, other) = (place.join("tools"), place.join("other"));
    fs::create_dir_all(&tools).unwrap();
    fs::create_dir_all(&other).unwrap();
    write_program(&tools.join("mount"), MOUNT_WITHOUT_HELPER);
    let config = place.join("pjdfstest.toml");
    fs::write(&config, format!("{CONFIG}allow_remount = {remount}\n{}", users())).unwrap();
    let mut command = Command::new(program());
    command.arg("-c").arg(&config).arg("-p").arg(mount).arg("-s").arg(&other).args(patterns);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", tools.display())).env("RUST_BACKTRACE", "0");
    run(command, Duration::from_secs(260))
}

#[test]
fn every_applicable_test_of_pjdfstest_passes() {
    within(560, || {
        assert_eq!(fs::metadata("/proc/self").unwrap().uid(), 0, "pjdfstest needs root");
        let cluster = Cluster::new();
        let mount = Mount::inside(short_place(), &cluster.master_address(), &[]);
        mount.open_to_everybody();
        let all = run_suite(mount.path(), cluster.place(), false, &[]);
        let failed = named(&all.stdout, "FAILED");
        assert!(all.ok() && failed.is_empty(), "failed: {failed:?}\n{all}");
        // Tests of the suite leave files open for writing, and then no file system can be made
        // read-only. So those that want it to be are run by themselves.
        let read_only = run_suite(mount.path(), cluster.place(), true, &["erofs"]);
        let failed = named(&read_only.stdout, "FAILED");
        assert!(read_only.ok() && failed.is_empty(), "failed: {failed:?}\n{read_only}");
        assert!(named(&read_only.stdout, "skipped").is_empty(), "{read_only}");
        let ran_later = named(&read_only.stdout, "ok");
        let excluded: Vec<&str> = named(&all.stdout, "skipped")
            .into_iter()
            .filter(|name| !ran_later.contains(name))
            .collect();
        let expected: Vec<&str> = EXCLUDED.iter().map(|(name, _)| *name).collect();
        assert_eq!(excluded, expected, "tests that did not run");
        let passed = named(&all.stdout, "ok").len() + ran_later.len();
        assert!(passed >= 397, "only {passed} tests of the suite ran\n{all}");
        mount.unmount();
        cluster.assert_fsck_clean();
    });
}
