//! upload and download: what goes in comes out, nothing is half written, what is interrupted goes on.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use cairn_tests::{
    Cluster, Rng, binaries,
    command::{Ran, run},
    inspect,
    rng::scale,
    sh, spawner, tree_random,
    tree_random::Shape,
    wait_for, within,
};
use rustix::process::{Pid, Signal, kill_process};

const MIB: usize = 1 << 20;

/// A `cairn` that reads its standard input from this process; killed when dropped.
struct Running {
    child: Child,
    input: Option<std::process::ChildStdin>,
}

impl Running {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let mut command = Command::new(binaries::cairn());
        command.args(arguments).env("CAIRN_MASTER", cluster.master_address());
        command.current_dir(cluster.place()).process_group(0);
        let log = File::create(cluster.place().join("running.log")).unwrap();
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = spawner::spawn(command).unwrap();
        let input = child.stdin.take();
        Self { child, input }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(&mut self, seconds: u64) -> ExitStatus {
        let mut status = None;
        wait_for(Duration::from_secs(seconds), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it does not end")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn ok(cluster: &Cluster, arguments: &[&str]) -> Ran {
    let ran = cluster.cairn(200, arguments);
    assert!(ran.ok(), "{ran}");
    ran
}

fn wait_stored(cluster: &Cluster, bytes: usize) {
    let there = || inspect::stored_bytes(cluster, 2) >= 2 * bytes as u64;
    assert!(wait_for(Duration::from_secs(120), there), "the nodes do not get {bytes} bytes");
}

/// Starts to upload `bytes` as `/target` and returns when the nodes have the first half.
fn half_uploaded(cluster: &Cluster, bytes: &[u8]) -> Running {
    let mut upload = Running::start(cluster, &["upload", "-", "/target"]);
    upload.feed(&bytes[..bytes.len() / 2]);
    wait_stored(cluster, bytes.len() / 2);
    upload
}

/// Uploads `bytes` again, from a file; less than 55 % may travel, and the file must be right.
fn upload_the_rest(cluster: &Cluster, bytes: &[u8]) {
    fs::write(cluster.place().join("file"), bytes).unwrap();
    let report = ok(cluster, &["upload", "file", "/target", "--json"]).stdout;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let (sent, wire) = (&report["sent_bytes"], &report["wire_bytes"]);
    let all = bytes.len() as u64;
    assert!(sent.as_u64().unwrap() * 100 < all * 55, "{report}");
    assert!(wire.as_u64().unwrap() * 100 < 2 * all * 55, "{report}");
    let present = report["present_bytes"].as_u64().unwrap();
    assert_eq!(present + sent.as_u64().unwrap(), all, "{report}");
    ok(cluster, &["download", "/target", "back"]);
    assert!(fs::read(cluster.place().join("back")).unwrap() == bytes);
    assert_eq!(ok(cluster, &["list", "/"]).stdout, "target\n", "something was left over");
    cluster.assert_sound();
}

fn size() -> usize {
    if scale() >= 4 { 2048 * MIB } else { 256 * MIB }
}

#[test]
fn an_upload_killed_half_way_goes_on_where_it_stopped() {
    within(900, || {
        let cluster = Cluster::new();
        let bytes = Rng::new(1).bytes(size());
        let mut upload = half_uploaded(&cluster, &bytes);
        upload.signal(Signal::KILL);
        assert!(!upload.end(20).success());
        let listed = ok(&cluster, &["list", "/"]).stdout;
        assert!(listed.starts_with(".target.uploading-"), "half a file appeared: {listed}");
        upload_the_rest(&cluster, &bytes);
    });
}

#[test]
fn an_upload_interrupted_half_way_leaves_nothing_and_goes_on_where_it_stopped() {
    within(900, || {
        let cluster = Cluster::new();
        let bytes = Rng::new(2).bytes(size());
        let mut upload = half_uploaded(&cluster, &bytes);
        upload.signal(Signal::INT);
        assert_eq!(upload.end(10).code(), Some(130));
        let said = fs::read_to_string(cluster.place().join("running.log")).unwrap();
        assert!(said.contains("interrupted"), "{said}");
        assert_eq!(ok(&cluster, &["list", "/"]).stdout, "", "something was left over");
        upload_the_rest(&cluster, &bytes);
    });
}

#[test]
fn standard_streams_are_a_source_and_a_target() {
    within(120, || {
        let cluster = Cluster::new();
        let bytes = Rng::new(3).bytes(3 * MIB + 17);
        let mut upload = Running::start(&cluster, &["upload", "-", "/dir/name"]);
        upload.feed(&bytes);
        drop(upload.input.take());
        assert!(upload.end(60).success());
        let mut command = Command::new(binaries::cairn());
        command.args(["download", "/dir/name", "-"]).env("CAIRN_MASTER", cluster.master_address());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success() && output.stdout == bytes);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        for wrong in [&["upload", "-"][..], &["upload", "-", "dir/"], &["upload", "-", "x", "y"]] {
            let ran = cluster.cairn(20, wrong);
            assert_eq!(ran.code(), Some(2), "{ran}");
            assert!(ran.stderr.contains("standard input"), "{ran}");
        }
        let ran = cluster.cairn(20, &["upload", "-", "/dir"]);
        assert!(ran.code() == Some(1) && ran.stderr.contains("is a directory"), "{ran}");
    });
}

/// What `tree_random` leaves out.
fn more_oddities(root: &Path) {
    sh(
        root,
        20,
        "mknod null c 1 3; mknod loop b 7 300; chown 1000:1001 null; truncate -s 50M holes
         printf begin | dd of=holes conv=notrunc status=none
         printf middle | dd of=holes conv=notrunc status=none bs=1 seek=30000001
         touch -a -d '2001-02-03 04:05:06.789 UTC' holes
         ln -s nowhere dangling; touch -h -d '2002-02-02' dangling",
    );
}

fn assert_same(left: &Path, right: &Path) {
    // Named pipes are never the same for diff; rsync looks at their types, modes and times.
    let (l, r) = (left.display(), right.display());
    let place = std::env::temp_dir();
    sh(&place, 200, &format!("diff -r --no-dereference -x fifo -x null -x loop '{l}' '{r}'"));
    let differs = sh(&place, 200, &format!("rsync -aDnHci --delete '{l}/' '{r}/'"));
    assert_eq!(differs.trim(), "", "rsync would change this");
    let holes = fs::metadata(right.join("holes")).unwrap();
    assert!(holes.blocks() * 512 < 1 << 20, "holes take space: {} blocks", holes.blocks());
}

#[test]
fn a_tree_comes_back_as_it_went_in_also_over_an_older_one() {
    within(400, || {
        let cluster = Cluster::new();
        let source = cluster.place().join("tree");
        let files = 300 * usize::try_from(scale()).unwrap();
        tree_random::make(&source, Shape { files, ..Shape::default() }, &mut Rng::of_run("up"));
        more_oddities(&source);
        for round in ["first", "again"] {
            let up = ok(&cluster, &["upload", "-r", "tree", "--to", "/"]);
            assert!(round == "first" || up.stdout.contains(" 0 B sent"), "{up}");
            ok(&cluster, &["download", "-r", "/tree", "back"]);
            let back = cluster.place().join("back");
            if round == "first" {
                // Before anybody reads it again.
                let holes = fs::metadata(back.join("holes")).unwrap();
                assert_eq!((holes.atime(), holes.atime_nsec()), (981_173_106, 789_000_000));
            }
            let back = if round == "first" { back } else { back.join("tree") };
            assert_same(&source, &back);
        }
        // Over a tree that is there, with other contents under the same names.
        sh(&source, 60, "find . -type f -links 1 -name '*1' -exec sh -c 'echo new >\"$0\"' {} ';'");
        sh(&source, 60, "touch -d '2003-03-03' odd/one");
        ok(&cluster, &["upload", "-r", "tree", "--to", "/"]);
        ok(&cluster, &["download", "-r", "/tree", "back"]);
        assert_same(&source, &cluster.place().join("back/tree"));
        let mount = cluster.mount();
        assert_same(&source, &mount.join("tree"));
        let names = ok(&cluster, &["list", "-r", "/"]).stdout;
        assert!(!names.contains(".uploading-"), "something was left over");
        cluster.assert_fsck_clean();
    });
}

#[test]
fn a_target_is_the_old_or_the_new_file_and_a_reader_keeps_the_one_it_opened() {
    within(300, || {
        let cluster = Cluster::new();
        let (old, new) = (vec![b'o'; 24 * MIB], vec![b'n'; 32 * MIB]);
        fs::write(cluster.place().join("old"), &old).unwrap();
        ok(&cluster, &["upload", "old", "/target"]);
        let mount = cluster.mount();
        let target = mount.join("target");
        let mut reader = File::open(&target).unwrap();
        let mut begin = vec![0; MIB];
        reader.read_exact(&mut begin).unwrap();
        let mut killed = Running::start(&cluster, &["upload", "-", "/target"]);
        killed.feed(&new[..16 * MIB]);
        for _ in 0..20 {
            assert!(fs::read(&target).unwrap() == old, "it changed before it was complete");
        }
        killed.signal(Signal::KILL);
        killed.end(20);
        assert!(fs::read(&target).unwrap() == old, "a killed upload changed it");
        let mut upload = Running::start(&cluster, &["upload", "-", "/target"]);
        for piece in new.chunks(4 * MIB) {
            upload.feed(piece);
            let now = fs::read(&target).unwrap();
            assert!(now == old || now == new, "neither the old nor the new file");
        }
        drop(upload.input.take());
        assert!(upload.end(60).success());
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(begin.iter().chain(&rest).all(|b| *b == b'o'), "an open file was changed");
        assert_eq!(begin.len() + rest.len(), old.len());
        let replaced = || fs::read(&target).is_ok_and(|now| now == new);
        assert!(wait_for(Duration::from_secs(5), replaced), "the new file does not appear");
        assert_eq!(ok(&cluster, &["list", "/"]).stdout, "target\n", "something was left over");
    });
}

/// Runs `cairn` in a pseudo terminal; everything that it shows there.
fn in_terminal(cluster: &Cluster, arguments: &str, set: &str) -> String {
    let mut command = Command::new("script");
    let cairn = binaries::cairn();
    let line = format!("{set} {} {arguments}", cairn.display());
    command.args(["-qec", &line, "/dev/null"]).current_dir(cluster.place());
    command.env("CAIRN_MASTER", cluster.master_address()).env("TERM", "xterm");
    let ran = run(command, Duration::from_secs(100));
    assert!(ran.ok(), "{ran}");
    ran.stdout
}

#[test]
fn a_terminal_shows_how_far_it_is_and_nothing_else_does() {
    within(200, || {
        let cluster = Cluster::new();
        fs::write(cluster.place().join("file"), Rng::new(4).bytes(64 * MIB)).unwrap();
        for (verb, set) in [("upload file /f", ""), ("download /f out", "NO_COLOR=1")] {
            let shown = in_terminal(&cluster, verb, set);
            assert!(shown.contains('\r') && shown.contains("/s"), "no progress: {shown:?}");
            assert!(shown.contains("64.00 MiB"), "no total: {shown:?}");
            assert!(!shown.contains("\u{1b}[3"), "colours: {shown:?}");
            let said = if verb.starts_with("up") { "uploaded file" } else { "downloaded /f" };
            assert!(shown.contains(said), "no result: {shown:?}");
        }
        let shown = in_terminal(&cluster, "upload --quiet file /g", "");
        assert_eq!(shown, "");
        for verb in [&["upload", "file", "/h"][..], &["download", "/f", "out"], &["rm", "-r", "/h"]]
        {
            assert_eq!(ok(&cluster, verb).stderr, "");
        }
    });
}

#[test]
fn what_waits_for_dead_nodes_ends_at_once_when_it_is_interrupted() {
    within(200, || {
        let mut cluster = Cluster::new();
        fs::write(cluster.place().join("file"), Rng::new(5).bytes(8 * MIB)).unwrap();
        ok(&cluster, &["upload", "file", "/f"]);
        let temporary = |cluster: &Cluster| {
            let names = fs::read_dir(cluster.place()).unwrap().map(|e| e.unwrap().file_name());
            names.filter(|n| n.to_string_lossy().starts_with(".out.downloading-")).count()
        };
        for node in 0..2 {
            cluster.node(node).stop();
        }
        for (verb, signal, code) in [
            (&["download", "/f", "out"][..], Signal::INT, Some(130)),
            (&["download", "/f", "out"], Signal::TERM, Some(143)),
            (&["upload", "file", "/g"], Signal::INT, Some(130)),
            (&["cat", "/f"], Signal::INT, Some(130)),
            (&["verify"], Signal::INT, Some(130)),
            (&["download", "/f", "out"], Signal::KILL, None),
        ] {
            let mut waiting = Running::start(&cluster, verb);
            if verb[0] == "download" {
                let begun = || temporary(&cluster) == 1;
                assert!(wait_for(Duration::from_secs(20), begun), "the download does not begin");
            } else {
                // Interrupted somewhere between its start and its first wait.
                std::thread::sleep(Duration::from_millis(300));
            }
            waiting.signal(signal);
            assert_eq!(waiting.end(10).code(), code, "{verb:?}");
            let left = usize::from(signal == Signal::KILL);
            assert_eq!(temporary(&cluster), left, "temporary files after {verb:?} {signal:?}");
        }
        for node in 0..2 {
            cluster.node(node).cont();
        }
        cluster.wait_healthy();
        ok(&cluster, &["download", "/f", "out"]);
        assert_eq!(temporary(&cluster), 0, "the next download leaves what a killed one left");
        assert!(!ok(&cluster, &["list", "/"]).stdout.contains(".uploading-"));
        cluster.assert_sound();
    });
}

#[test]
fn a_directory_of_many_files_goes_in_and_is_removed_in_bounded_memory() {
    within(600, || {
        let cluster = Cluster::new();
        let count = 5000 * scale();
        let make =
            format!("mkdir many; cd many; seq -f f%.0f 1 {count} | xargs touch; mkdir below");
        sh(cluster.place(), 100, &make);
        ok(&cluster, &["upload", "-r", "many", "--to", "/"]);
        assert_eq!(ok(&cluster, &["list", "/many"]).stdout.lines().count() as u64, count + 1);
        let ran = cluster.cairn(20, &["rm", "/many"]);
        assert!(ran.code() == Some(1) && ran.stderr.contains("add -r"), "{ran}");
        ok(&cluster, &["rm", "-r", "/many"]);
        assert_eq!(ok(&cluster, &["list", "-r", "/"]).stdout, "");
        cluster.assert_fsck_clean();
    });
}
