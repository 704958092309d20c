//! The daemon of a mount dies again and again, is replaced, or cannot come back: programs in the mount
//! go on, nothing hangs, nothing acknowledged is lost, and what is lost is said.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use cairn_tests::{
    Cluster, Mount, Rng, chaos::check, command::try_sh, daemon::Daemon, mount::is_mounted,
    rng::scale, sh, wait_for, within,
};

/// Far more than the next daemon needs.
const BOUND: Duration = Duration::from_secs(20);

/// Kills the daemon and waits until another one serves.
fn kill(mount: &Mount) {
    let before = mount.daemon().expect("a mount has a daemon");
    mount.kill_daemon();
    let another = wait_for(BOUND, || mount.daemon().is_some_and(|d| d != before));
    assert!(another, "no other daemon is started");
}

fn looping(
    script: &'static str,
    place: &Path,
    stop: &Path,
) -> JoinHandle<cairn_tests::command::Ran> {
    let (place, stop) = (place.to_owned(), stop.to_owned());
    let script = script.replace("STOP", stop.to_str().unwrap());
    thread::spawn(move || try_sh(&place, 200, &script))
}

/// Made before the first daemon dies.
const BEFORE: &str = "
    mkdir shell && echo kept >shell/kept && sync shell/kept
    git init -q repo && cd repo
    git config user.name t && git config user.email t@example.org && git config gc.auto 0
    cd .. && sqlite3 db 'CREATE TABLE t(n INTEGER PRIMARY KEY);'
";

/// A shell whose working directory is in the mount all the time.
const SHELL: &str = r#"
    cd shell
    while [ ! -e STOP ]; do
        [ "$(pwd -P)" = "$PWD" ] && [ "$(ls)" = kept ] && [ "$(cat kept)" = kept ] && [ -d ../shell ]
        sleep 0.02
    done
"#;

/// Commits, each of which is there afterwards. A command may fail (a lock file that was made before the
/// daemon died is there already); then it is tried again, as people do.
const GIT: &str = r#"
    cd repo
    n=0
    while [ ! -e STOP ]; do
        echo "$n" >f$((n % 7)); echo $n >n
        if git add . && git commit -qm "commit $n"; then n=$((n + 1)); else rm -f .git/*.lock .git/refs/heads/*.lock; fi
    done
    git fsck --full >&2 && [ "$(git rev-list --count HEAD)" -ge $n ] && echo $n
"#;

/// Transactions, each of which is there afterwards; one that failed may be there.
const SQLITE: &str = r#"
    n=0
    while [ ! -e STOP ]; do
        n=$((n + 1))
        sqlite3 db "PRAGMA busy_timeout=5000; INSERT INTO t VALUES($n);" >/dev/null && echo $n
    done >"$(dirname STOP)/sqlite-acknowledged"
    sqlite3 db 'PRAGMA integrity_check;'
"#;

fn reader(path: &Path, content: Arc<Vec<u8>>, stop: &Arc<AtomicBool>) -> JoinHandle<Duration> {
    let (path, stop) = (path.to_owned(), Arc::clone(stop));
    thread::spawn(move || {
        let mut file = File::open(path).unwrap();
        let (mut longest, mut buffer) = (Duration::ZERO, vec![0; 1 << 20]);
        while !stop.load(Ordering::Relaxed) {
            file.seek(SeekFrom::Start(0)).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let mut at = 0;
            loop {
                let began = Instant::now();
                let n = file.read(&mut buffer).expect("the reader saw an error");
                longest = longest.max(began.elapsed());
                assert!(buffer[..n] == content[at..at + n], "wrong bytes at {at}");
                at += n;
                if n == 0 {
                    break;
                }
            }
            assert_eq!(at, content.len());
        }
        longest
    })
}

/// A client of the chaos suite: after an error it goes on, and it keeps a journal.
struct Writer {
    process: Daemon,
    journal: PathBuf,
}

impl Writer {
    fn start(cluster: &Cluster, mount: &Mount, stop: &Path) -> Self {
        fs::create_dir(mount.join("files")).unwrap();
        let journal = cluster.place().join("journal");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-test-client"));
        command.arg(mount.join("files")).arg(&journal).arg(stop).arg("3");
        let process = Daemon::start("client", command, &cluster.place().join("client.log"));
        Self { process, journal }
    }

    fn check(&self, mount: &Mount) {
        let seen = check::client(&self.journal, &mount.join("files")).unwrap();
        eprintln!(
            "{} actions acknowledged, {} in doubt, the longest took {:?}",
            seen.acknowledged, seen.doubts, seen.longest
        );
        assert!(seen.wrong.is_empty(), "{}", seen.wrong.join("\n"));
        assert!(seen.acknowledged > 0 && seen.longest < BOUND);
        let cut_off = io::Error::from_raw_os_error(libc::ENOTCONN).to_string();
        let journal = fs::read_to_string(&self.journal).unwrap();
        assert!(!journal.contains(&cut_off), "a writer saw that the daemon was gone");
    }
}

#[test]
fn programs_go_on_while_the_daemon_is_killed_again_and_again() {
    within(280 * scale(), || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let content = Arc::new(Rng::new(5).bytes(24 << 20));
        fs::write(mount.join("big"), &*content).unwrap();
        sh(mount.path(), 60, BEFORE);
        let stop = cluster.place().join("programs-stop");
        let told = Arc::new(AtomicBool::new(false));
        let programs = [SHELL, GIT, SQLITE].map(|script| looping(script, mount.path(), &stop));
        let reading = reader(&mount.join("big"), Arc::clone(&content), &told);
        let mut writer = Writer::start(&cluster, &mount, &stop);
        let mut rng = Rng::of_run("mount survives");
        for _ in 0..10 * scale() {
            thread::sleep(Duration::from_millis(300 + rng.below(1200)));
            kill(&mount);
        }
        File::create(&stop).unwrap();
        told.store(true, Ordering::Relaxed);
        let longest = reading.join().unwrap();
        let ran = programs.map(|program| program.join().unwrap());
        assert!(wait_for(BOUND * 2, || !writer.process.is_running()), "the writer hangs");
        eprintln!("longest read {longest:?}, {} commits", ran[1].stdout.trim());
        assert!(longest < BOUND, "a read took {longest:?}");
        for ran in &ran {
            assert!(ran.ok(), "{ran}");
            let cut_off = ran.stderr.contains("not connected");
            assert!(!cut_off, "a program saw that the daemon was gone: {ran}");
        }
        assert!(ran[2].stdout.contains("ok"), "{}", ran[2]);
        drop(mount);
        let mount = cluster.mount();
        writer.check(&mount);
        let said = cluster.place().join("sqlite-acknowledged");
        let said = fs::read_to_string(said).unwrap();
        let rows = try_sh(mount.path(), 60, "sqlite3 db 'SELECT n FROM t'");
        let rows: Vec<&str> = rows.stdout.lines().collect();
        assert!(said.lines().all(|n| rows.contains(&n)), "a transaction is lost");
        drop(mount);
        cluster.assert_sound();
    });
}

#[test]
fn handles_go_on_and_lost_bytes_are_reported_once() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let synced = Rng::new(1).bytes(100_000);
        let open = |name: &str| {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(mount.join(name))
        };
        let mut kept = open("kept").unwrap();
        kept.write_all(&synced).unwrap();
        kept.sync_all().unwrap();
        let unnamed = open("unnamed").unwrap();
        unnamed.write_all_at(b"no name", 0).unwrap();
        unnamed.sync_all().unwrap();
        fs::remove_file(mount.join("unnamed")).unwrap();
        fs::create_dir(mount.join("dir")).unwrap();
        (0..500).for_each(|n| drop(File::create(mount.join(format!("dir/{n}"))).unwrap()));
        let mut listing = fs::read_dir(mount.join("dir")).unwrap();
        let first = listing.by_ref().take(5).count();
        let lost = open("lost").unwrap();
        lost.write_all_at(b"not committed", 0).unwrap();
        kill(&mount);
        assert!(fs::read(mount.join("kept")).unwrap() == synced);
        kept.write_all(b"more").unwrap();
        kept.sync_all().unwrap();
        assert_eq!(kept.metadata().unwrap().len(), 100_004);
        let mut bytes = [0; 7];
        unnamed.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"no name", "a file without a name is not what it was");
        assert_eq!(first + listing.count(), 500, "the listing lost or doubled names");
        let error = lost.sync_all().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "lost bytes are not reported: {error}");
        lost.write_all_at(b"once more", 0).unwrap();
        lost.sync_all().expect("it is reported once");
        assert_eq!(fs::read_to_string(mount.join("lost")).unwrap(), "once more");
        drop((kept, unnamed, lost));
        mount.unmount();
        cluster.assert_sound();
    });
}

#[test]
fn an_upgrade_loses_nothing_at_all() {
    within(150, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let mut file = File::create(mount.join("f")).unwrap();
        let mut content = Vec::new();
        for n in 0..6 * scale() {
            let piece = Rng::new(n).bytes(70_000);
            // Neither synced nor closed when the daemon goes.
            file.write_all(&piece).unwrap();
            content.extend(piece);
            let before = mount.daemon();
            let ran = cluster.cairn(30, &["mount", "--upgrade", mount.path().to_str().unwrap()]);
            assert!(ran.ok(), "{ran}");
            assert!(wait_for(BOUND, || mount.daemon().is_some_and(|d| Some(d) != before)));
        }
        file.sync_all().expect("an upgrade loses bytes");
        drop(file);
        drop(mount);
        assert!(fs::read(cluster.mount().join("f")).unwrap() == content);
        cluster.assert_sound();
    });
}

#[test]
fn a_lock_that_is_lost_with_the_daemon_is_free_for_others_and_its_handle_fails() {
    within(100, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let held = File::create(one.join("f")).unwrap();
        held.try_lock().unwrap();
        let other = File::options().write(true).open(two.join("f")).unwrap();
        assert!(other.try_lock().is_err(), "two hold one lock");
        kill(&one);
        let freed = wait_for(BOUND, || other.try_lock().is_ok());
        assert!(freed, "the lock of a dead daemon is not free");
        let error = held.write_at(b"as if", 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        drop(held);
        other.unlock().unwrap();
        let again = File::options().write(true).open(one.join("f")).unwrap();
        again.try_lock().unwrap();
        again.write_at(b"right", 0).unwrap();
    });
}

#[test]
fn operations_fail_in_time_when_master_and_daemon_are_gone_and_work_again() {
    within(150, || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount_with(&["--deadline", "4"]);
        fs::write(mount.join("f"), "kept").unwrap();
        cluster.kill_master();
        mount.kill_daemon();
        let began = Instant::now();
        let error = fs::write(mount.join("g"), "x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(began.elapsed() < BOUND, "it took {:?}", began.elapsed());
        cluster.start_master();
        cluster.wait_healthy();
        let works = wait_for(BOUND, || fs::read_to_string(mount.join("f")).is_ok());
        assert!(works, "the mount does not come back");
        assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "kept");
        mount.unmount();
    });
}

#[test]
fn a_daemon_that_cannot_live_is_given_up_and_unmounted() {
    within(150, || {
        let cluster = Cluster::new();
        let mut mount = cluster.mount();
        let given_up = wait_for(Duration::from_secs(90), || {
            mount.kill_daemon();
            !mount.supervisor().is_running()
        });
        assert!(given_up, "it is tried for ever");
        assert!(!is_mounted(mount.path()), "a dead mount is left behind");
        assert!(mount.supervisor().log().contains("10 times in a row"), "it does not say why");
        mount.start(&cluster.master_address(), &[]);
        fs::write(mount.join("f"), "works").unwrap();
        // What a service manager does.
        let ended = mount.supervisor().terminate(Duration::from_secs(30));
        assert!(ended.is_some_and(|status| status.success()) && !is_mounted(mount.path()));
    });
}
