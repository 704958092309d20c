//! What beginners run into: one sentence that says what happened, to which thing, and what to do.
//! The table of them is docs/errors.md.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cairn_proto::pb::{
    self, master_service_client::MasterServiceClient, storage_service_client::StorageServiceClient,
};
use cairn_tests::{
    Cluster, Layout, binaries,
    command::{Ran, run},
    daemon::Daemon,
    inspect,
    mount::{detach, is_mounted},
    sh, wait_for, within,
};
use tonic::Request;

/// What no person shall read: errors in the words of programs.
const NOISE: [&str; 9] = [
    "os error",
    "status:",
    "Status {",
    "Error {",
    "Some(",
    "Os {",
    "panicked",
    "RUST_BACKTRACE",
    "transport error",
];

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// `command` must fail with one line on standard error that has all of `parts` in it.
fn refused(command: Command, parts: &[&str]) -> Ran {
    let ran = run(command, Duration::from_secs(60));
    assert_eq!(ran.code(), Some(1), "{ran}");
    assert_eq!(ran.stderr.trim().lines().count(), 1, "more than one line: {ran}");
    is_good(&ran.stderr, parts);
    ran
}

fn is_good(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    for noise in NOISE {
        assert!(!text.contains(noise), "{noise:?} is in {text:?}");
    }
}

/// `command` serves, and logs a line that has all of `parts` in it.
fn complains(command: Command, place: &Path, parts: &[&str]) {
    let log = place.join("complaint.log");
    let _not_there = fs::remove_file(&log);
    let mut daemon = Daemon::start("server", command, &log);
    daemon.listening(Duration::from_secs(30)).unwrap();
    let line = || {
        let log = daemon.log();
        log.lines().find(|line| line.contains(parts[0])).map(str::to_owned)
    };
    assert!(wait_for(Duration::from_secs(20), || line().is_some()), "{}", daemon.log());
    is_good(&line().unwrap(), parts);
}

fn cairn(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = command(&binaries::cairn(), arguments);
    command.env("CAIRN_MASTER", cluster.master_address()).current_dir(cluster.place());
    command
}

/// The same as somebody who owns nothing, with a copy of the program in `place` that all may run.
fn as_nobody(place: &Path, command: &Command) -> Command {
    let program = Path::new(command.get_program());
    let copy = place.join(program.file_name().unwrap());
    if !copy.exists() {
        sh(place, 30, &format!("install -m 755 '{}' '{}'", program.display(), copy.display()));
    }
    // The test's directory is private; what is in it shall be what is refused.
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    other.arg(copy).args(command.get_args()).current_dir(place);
    for (key, value) in command.get_envs() {
        other.env(key, value.unwrap_or_default());
    }
    other
}

/// `cairn-storage serve` of a directory that is formatted for the file system `fs`.
fn node(place: &Path, fs: &str, master: &str) -> Command {
    let data = place.join("stray");
    if !data.exists() {
        let data = data.display();
        let program = binaries::storage();
        sh(place, 30, &format!("'{}' format --data '{data}' --fs {fs}", program.display()));
    }
    let data = data.to_str().unwrap();
    let serve = ["serve", "--data", data, "--listen", "127.0.0.1:0", "--master", master];
    command(&binaries::storage(), &serve)
}

/// Answers everything in another language than ours, for as long as the test runs.
fn web_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _whatever = stream.read(&mut [0; 4096]);
            let _gone = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n<html>no</html>");
        }
    });
    address
}

/// An address that nobody listens on.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn wrong_addresses_of_the_master() {
    within(200, || {
        let cluster = Cluster::new();
        let (nobody, web) = (nobody(), web_server().to_string());
        let node_port = cluster.node_address(0).to_string();
        let mnt = cluster.place().join("mnt");
        fs::create_dir(&mnt).unwrap();
        let nowhere = "no.such.host.invalid:9000";
        for (address, parts) in [
            (&*nobody, &["no master answers at", "Connection refused", "start it", "--master"][..]),
            (nowhere, &["no master answers at", "not known", "--master"]),
            (&node_port, &["is no Cairn master", "is it a node?", "--master"]),
            (&web, &["is no Cairn master", "instead of answering", "--master"]),
            ("9000", &["is no address of a master", "HOST:PORT"]),
        ] {
            let parts = [parts, &[address]].concat();
            for verb in [&["list"][..], &["status"], &["mount", mnt.to_str().unwrap()]] {
                let arguments = [&["--master", address, "--deadline", "5"], verb].concat();
                refused(command(&binaries::cairn(), &arguments), &parts);
            }
        }
        let (place, fs) = (cluster.place(), cluster.fs_uuid());
        for (master, parts) in [
            (&*nobody, &["the master does not answer", "Connection refused", "--master"][..]),
            (nowhere, &["the master does not answer", "not known", "--master"]),
            (&web, &["the master does not answer", "--master"]),
            (&node_port, &["it is no master", "is it a storage node?", "--master"]),
        ] {
            complains(node(place, fs, master), place, parts);
        }
    });
}

#[test]
fn a_port_that_is_taken() {
    within(100, || {
        let cluster = Cluster::new();
        let place = cluster.place();
        let master = binaries::master();
        let data = place.join("other");
        let data = data.to_str().unwrap();
        sh(place, 30, &format!("'{}' format --data '{data}'", master.display()));
        let (taken, parts) = (cluster.master_address(), ["cannot listen on", "in use", "ss -ltnp"]);
        let serve = |listen: &str| command(&master, &["serve", "--data", data, "--listen", listen]);
        refused(serve(&taken), &[&parts[..], &[&taken]].concat());
        refused(serve("192.0.2.7:9000"), &["cannot listen on", "an address of this machine"]);
        let mut stray = node(place, cluster.fs_uuid(), &taken);
        stray.args(["--listen", &cluster.node_address(0).to_string()]);
        let mut again = command(&binaries::storage(), &[]);
        let arguments: Vec<_> = stray.get_args().map(ToOwned::to_owned).collect();
        // The last --listen counts nowhere: it may be given once.
        let at = arguments.iter().position(|a| a == "--listen").unwrap();
        again.args(&arguments[..at]).args(&arguments[at + 2..]);
        refused(again, &["cannot listen on", "in use", "ss -ltnp"]);
        let mut script = Command::new(binaries::checkout().join("scripts/run.sh"));
        let port = taken.rsplit(':').next().unwrap();
        script.arg("start").env("CAIRN_HOME", place.join("home")).env("CAIRN_PORT", port);
        script.env("CAIRN_BIN_DIR", binaries::release_directory()).env_remove("CAIRN_MASTER");
        let ran = run(script, Duration::from_secs(60));
        assert_eq!(ran.code(), Some(1), "{ran}");
        is_good(&ran.stderr, &["in use by another program", port, "CAIRN_PORT="]);
    });
}

#[test]
fn data_directories_that_cannot_be_served() {
    within(100, || {
        let cluster = Cluster::new();
        let place = cluster.place();
        let serve = |program: PathBuf, data: &Path| {
            let data = data.to_str().unwrap();
            command(&program, &["serve", "--data", data, "--listen", "127.0.0.1:0"])
        };
        let nothing = place.join("nothing");
        refused(serve(binaries::master(), &nothing), &["nothing", "cairn-master format"]);
        refused(serve(binaries::storage(), &nothing), &["nothing", "cairn-storage format"]);
        let (master, node0) = (cluster.master_data(), cluster.node_data(0));
        refused(serve(binaries::master(), master), &["in use by another process", "stop"]);
        refused(serve(binaries::storage(), node0), &["in use by another process", "stop"]);
        refused(serve(binaries::master(), node0), &["cairn-storage", "--data"]);
        refused(serve(binaries::storage(), master), &["cairn-master", "--data"]);
        for (program, name) in [(binaries::master(), "m"), (binaries::storage(), "n")] {
            let fs =
                if name == "m" { String::new() } else { format!("--fs {}", cluster.fs_uuid()) };
            sh(place, 30, &format!("'{}' format --data {name} {fs}", program.display()));
            let data = place.join(name);
            let mine = as_nobody(place, &serve(program.clone(), &data));
            refused(mine, &["Permission denied", name, "the user to whom it belongs"]);
            let format = data.join("FORMAT");
            let text = fs::read_to_string(&format).unwrap();
            let newer = text.replacen("version\": 1", "version\": 99", 1);
            assert_ne!(text, newer);
            fs::write(&format, newer).unwrap();
            refused(serve(program, &data), &[name, "format version 99", "newer release"]);
        }
    });
}

#[test]
fn tokens_that_are_missing_wrong_or_none() {
    within(100, || {
        let place = cairn_tests::scratch("tokens");
        let file = |name: &str, text: &str| {
            let path = place.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let right = file("right", "0123456789abcdef0123");
        let (wrong, short) = (file("wrong", "ffffffffffffffffffff"), file("short", "hm"));
        let token = || vec!["--token-file".to_owned(), right.clone()];
        let master = binaries::master();
        let data = place.path().join("master");
        let data = data.to_str().unwrap();
        sh(place.path(), 30, &format!("'{}' format --data '{data}'", master.display()));
        let mut serve = command(&master, &["serve", "--data", data, "--listen", "127.0.0.1:0"]);
        serve.args(token());
        let mut daemon = Daemon::start("master", serve, &place.path().join("log"));
        let address = daemon.listening(Duration::from_secs(30)).unwrap().to_string();
        let list = |token: &[&str]| {
            command(&binaries::cairn(), &[&["--master", &address, "list"], token].concat())
        };
        refused(list(&[]), &["wants a token", "--token-file", &address]);
        refused(list(&["--token-file", &wrong]), &["another token", "--token-file", &address]);
        refused(list(&["--token-file", &short]), &[&short, "fewer than 16", "copy the file"]);
        refused(list(&["--token-file", "/no/token"]), &["/no/token", "check the path"]);
        assert!(run(list(&["--token-file", &right]), Duration::from_secs(30)).ok());
        let info = sh(place.path(), 20, &format!("'{}' info --data '{data}'", master.display()));
        let fs = info.split_whitespace().find(|w| w.len() == 36).unwrap().to_owned();
        let mut stranger = node(place.path(), &fs, &address);
        stranger.args(["--token-file", &wrong]);
        complains(stranger, place.path(), &["refuses this node", "another token", "--token-file"]);
    });
}

#[test]
fn strangers_another_file_system_and_other_releases() {
    within(100, || {
        let cluster = Cluster::new();
        let place = cluster.place();
        let other = "11111111-2222-3333-4444-555555555555";
        let parts = ["refuses this node", other, cluster.fs_uuid(), "address of the master"];
        complains(node(place, other, &cluster.master_address()), place, &parts);
        for version in [0, 2] {
            let speak = move |mut request: Request<()>| {
                request.metadata_mut().insert("cairn-version", version.into());
                Ok(request)
            };
            let hello = pb::HelloRequest { version, ..pb::HelloRequest::default() };
            let (master, node) = (cluster.master_address(), cluster.node_address(0).to_string());
            let refusals = inspect::block_on(20, async {
                let mut master =
                    MasterServiceClient::with_interceptor(inspect::channel(&master), speak);
                let mut node =
                    StorageServiceClient::with_interceptor(inspect::channel(&node), speak);
                [master.hello(hello.clone()).await.err(), node.hello(hello).await.err()]
            });
            for refusal in refusals {
                let speaks = format!("speaks protocol version {version}");
                is_good(refusal.unwrap().message(), &[&speaks, "use the same release"]);
            }
        }
    });
}

#[test]
fn places_that_cannot_be_mounted_on() {
    within(200, || {
        let cluster = Cluster::new();
        let place = cluster.place();
        fs::create_dir_all(place.join("full/inside")).unwrap();
        fs::create_dir(place.join("mnt")).unwrap();
        fs::write(place.join("file"), "").unwrap();
        let mount = |at: &str| cairn(&cluster, &["mount", at]);
        refused(mount("missing"), &["missing", "mkdir -p"]);
        refused(mount("file"), &["file is no directory", "empty"]);
        refused(mount("full"), &["full is not empty", "--nonempty"]);
        refused(cairn(&cluster, &["umount", "mnt"]), &["nothing is mounted at mnt"]);
        refused(
            as_nobody(place, &mount("mnt")),
            &["cannot mount at", "mnt", "a directory of your own"],
        );
        // A machine without FUSE: nothing but the simplest devices.
        let hide = "mkdir -p dev && cp -a /dev/null /dev/zero /dev/urandom dev/ &&
                    mount --bind dev /dev";
        let without = |line: String| {
            let mut command = Command::new("unshare");
            command.args(["-m", "bash", "-c", &format!("{hide} && {line}")]).current_dir(place);
            command.env("CAIRN_MASTER", cluster.master_address());
            command.env("CAIRN_BIN_DIR", binaries::release_directory());
            command.env("CAIRN_HOME", place.join("home"));
            command
        };
        let line = format!("'{}' mount mnt", binaries::cairn().display());
        refused(without(line), &["/dev/fuse", "modprobe fuse", "--device /dev/fuse"]);
        let script = binaries::checkout().join("scripts/run.sh");
        let line = format!("'{}' mount mnt", script.display());
        refused(without(line), &["/dev/fuse is missing", "modprobe fuse"]);
        let mnt = place.join("mnt");
        let logged = ["mount", "mnt", "--log-file", "mount.log", "--pid-file", "pid"];
        let ran = run(cairn(&cluster, &logged), Duration::from_secs(60));
        assert!(ran.ok(), "{ran}");
        refused(mount("mnt"), &["is mounted there already", "cairn umount mnt"]);
        // Supervisor and daemon die; the mount that they leave behind is taken away by the next.
        sh(place, 20, "kill -9 $(cat pid) $(pgrep -P $(cat pid))");
        let ran = run(cairn(&cluster, &logged), Duration::from_secs(60));
        assert!(ran.ok() && is_mounted(&mnt), "{ran}");
        is_good(&ran.stderr, &["mnt", "took away a mount whose daemon is gone"]);
        let ran = run(cairn(&cluster, &["umount", "mnt"]), Duration::from_secs(60));
        detach(&mnt);
        assert!(ran.ok(), "{ran}");
    });
}

#[test]
fn local_files_that_cannot_be_copied() {
    within(100, || {
        let cluster = Cluster::new();
        let place = cluster.place();
        fs::write(place.join("secret"), "x").unwrap();
        fs::set_permissions(place.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let of = |arguments: &[&str]| cairn(&cluster, arguments);
        let denied = ["secret", "Permission denied", "the user to whom it belongs"];
        refused(as_nobody(place, &of(&["upload", "secret"])), &denied);
        assert!(run(of(&["upload", "secret"]), Duration::from_secs(30)).ok());
        refused(
            of(&["upload", "nothing", "--to", "/"]),
            &["cannot read nothing", "check the path"],
        );
        refused(of(&["upload", "secret", "secret"]), &["two of the files", "/secret"]);
        refused(of(&["download", "/secret", "no/dir"]), &["cannot write no/dir", "check the path"]);
        let out = as_nobody(place, &of(&["download", "/secret", "out"]));
        refused(out, &["cannot write out", "Permission denied"]);
        refused(of(&["download", "/nothing", "out"]), &["/nothing", "no such file or directory"]);
        refused(of(&["download", "/", "out"]), &["/ is a directory", "add -r"]);
        refused(of(&["cat", "/"]), &["/: is a directory"]);
        refused(of(&["upload", "secret", "--to", "/secret/x"]), &["/secret/x: not a directory"]);
        refused(of(&["mkdir", "/a/../b"]), &["/a/../b", ".."]);
    });
}

/// A small disk of its own, gone with its owner.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: PathBuf, size: &str) -> Self {
        fs::create_dir(&path).unwrap();
        sh(&path, 20, &format!("mount -t tmpfs -o size={size},mode=755 none \"$PWD\""));
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

#[test]
fn disks_that_are_full() {
    within(200, || {
        let place = cairn_tests::scratch("small");
        let full = SmallDisk::new(place.path().join("full"), "64k");
        sh(&full.0, 20, "cat /dev/zero > fill 2>/dev/null || true");
        let at = |name: &str| full.0.join(name).to_str().unwrap().to_owned();
        let format = command(&binaries::master(), &["format", "--data", &at("m")]);
        refused(format, &["No space left on device", "make room on that disk"]);
        let fs = "11111111-2222-3333-4444-555555555555";
        let format = command(&binaries::storage(), &["format", "--data", &at("n"), "--fs", fs]);
        refused(format, &["No space left on device", "make room on that disk"]);
        let disks = ["a", "b"].map(|name| SmallDisk::new(place.path().join(name), "64m"));
        let node_dirs = disks.iter().map(|disk| disk.0.join("data")).collect();
        let cluster = Cluster::with(Layout { node_dirs, ..Layout::default() });
        sh(cluster.place(), 20, "head -c 90M /dev/urandom > big; echo small > small");
        let upload = cairn(&cluster, &["upload", "big"]);
        refused(upload, &["/big", "no space left", "cairn status", "make room"]);
        let listed = cluster.cairn(30, &["list", "/"]);
        assert_eq!(listed.stdout, "", "half a file is left: {listed}");
    });
}
