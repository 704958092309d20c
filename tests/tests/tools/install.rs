//! Installing into a scratch root, starting from the units' command lines, mounting through fstab, using,
//! stopping, uninstalling: nothing may be left.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cairn_tests::{
    Cluster, binaries,
    command::{Ran, run},
    daemon::Daemon,
    mount::{detach, is_mounted},
    sh, wait_for, within,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Every file and directory below `root`.
fn everything(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(everything(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

fn install(root: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(binaries::checkout().join("scripts/install.sh"));
    command.args(arguments).env("DESTDIR", root);
    command.env("CAIRN_BIN_DIR", binaries::release_directory());
    run(command, Duration::from_secs(60))
}

/// A service manager as far as one unit needs it.
struct Unit {
    daemon: Daemon,
    _socket: UnixDatagram,
}

impl Unit {
    /// Starts the `ExecStart` of the unit `name` installed in `root`, as `instance`, and waits until it
    /// says that it is ready.
    fn start(root: &Path, name: &str, instance: &str, at: &Path) -> Self {
        let unit = root.join("usr/local/lib/systemd/system").join(name);
        let text = fs::read_to_string(&unit).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let line = line.replace("%i", instance).replace("%f", at.to_str().unwrap());
        let mut words = line.split(' ').map(|word| match word.strip_prefix('/') {
            Some(path) if !word.starts_with(at.to_str().unwrap()) => root.join(path),
            _ => PathBuf::from(word),
        });
        let place = root.parent().unwrap();
        let address = place.join(format!("notify-{instance}"));
        let socket = UnixDatagram::bind(&address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env("NOTIFY_SOCKET", &address);
        let log = place.join(format!("{instance}.log"));
        let unit = Self { daemon: Daemon::start(name, command, &log), _socket: socket };
        let mut said = [0; 512];
        let length = unit._socket.recv(&mut said).unwrap_or_else(|e| {
            panic!("{name} does not get ready: {e}\n{}", unit.daemon.log_tail(20))
        });
        let said = String::from_utf8_lossy(&said[..length]).into_owned();
        assert!(said.contains("READY=1\n") && said.contains("STATUS="), "{name} says {said:?}");
        unit
    }

    fn stop(mut self) {
        let status = self.daemon.terminate(LIMIT);
        assert!(status.is_some_and(|s| s.success()), "{status:?}\n{}", self.daemon.log_tail(20));
        let mut said = [0; 512];
        let length = self._socket.recv(&mut said).unwrap();
        assert!(String::from_utf8_lossy(&said[..length]).contains("STOPPING=1\n"));
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let sockets: Vec<_> =
        (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}

/// Formats a master and two nodes below `root` and writes their configuration.
fn configure(root: &Path, ports: &[u16]) {
    let (bin, var, etc) =
        (root.join("usr/local/bin"), root.join("var/lib/cairn"), root.join("etc/cairn"));
    let script = format!(
        "uuid=$({bin}/cairn-master format --data {var}/master)
         for n in 1 2; do
           {bin}/cairn-storage format --data {var}/node$n --name node$n --fs $uuid
         done",
        bin = bin.display(),
        var = var.display()
    );
    fs::create_dir_all(&var).unwrap();
    sh(root, 60, &script);
    let master = format!("127.0.0.1:{}", ports[0]);
    let text = format!("data = {:?}\nlisten = {master:?}\n", var.join("master"));
    fs::write(etc.join("master.toml"), text).unwrap();
    for (n, port) in ports[1..].iter().enumerate() {
        let name = format!("node{}", n + 1);
        let text = format!(
            "data = [{:?}]\nlisten = \"127.0.0.1:{port}\"\nmaster = {master:?}\n",
            var.join(&name)
        );
        fs::write(etc.join(format!("{name}.toml")), text).unwrap();
    }
    fs::write(etc.join("mount.toml"), format!("master = {master:?}\ncache_size = \"8MiB\"\n"))
        .unwrap();
}

#[test]
fn an_installation_can_be_used_and_leaves_no_trace() {
    within(240, || {
        let place = cairn_tests::scratch("install");
        let root = place.path().join("root");
        fs::create_dir(&root).unwrap();
        let ran = install(&root, &[]);
        assert!(ran.ok(), "{ran}");
        for path in ["sbin/mount.fuse.cairn", "usr/local/share/man/man1/cairn-mount.1"] {
            assert!(root.join(path).symlink_metadata().is_ok(), "{path} is missing");
        }
        configure(&root, &free_ports(3));
        let at = place.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let master = Unit::start(&root, "cairn-master.service", "master", &at);
        let nodes =
            ["node1", "node2"].map(|name| Unit::start(&root, "cairn-storage@.service", name, &at));
        let mount = Unit::start(&root, "cairn-mount@.service", "mount", &at);
        let written = wait_for(LIMIT, || fs::write(at.join("file"), "installed").is_ok());
        let read = fs::read_to_string(at.join("file"));
        if !written {
            detach(&at);
        }
        assert_eq!(read.unwrap(), "installed");
        mount.stop();
        assert!(!is_mounted(&at), "the unit has ended and its mount has not");
        for unit in nodes.into_iter().chain([master]) {
            unit.stop();
        }
        let ran = install(&root, &["uninstall"]);
        assert!(ran.ok() && ran.stdout.contains("which was edited"), "{ran}");
        let left = everything(&root);
        let data = [root.join("var"), root.join("etc")];
        let strange: Vec<_> =
            left.iter().filter(|path| !data.iter().any(|d| path.starts_with(d))).collect();
        assert!(strange.is_empty(), "left behind: {strange:?}");
        assert!(root.join("etc/cairn/master.toml").exists(), "an edited file was removed");
    });
}

#[test]
fn an_unedited_installation_is_removed_completely() {
    within(60, || {
        let place = cairn_tests::scratch("install");
        let root = place.path().join("root");
        fs::create_dir_all(root.join("sbin")).unwrap();
        let before = everything(&root);
        for prefix in ["/usr", "/opt/cairn"] {
            for arguments in [&["--prefix", prefix][..], &["--prefix", prefix]] {
                let ran = install(&root, arguments);
                assert!(ran.ok(), "{ran}");
            }
            let ran = install(&root, &["--prefix", prefix, "uninstall"]);
            assert!(ran.ok(), "{ran}");
            assert_eq!(everything(&root), before);
        }
        assert!(!install(&root, &["uninstall"]).ok());
        assert!(!install(&root, &["--prefix", "relative"]).ok());
    });
}

/// The helper under the name that mount(8) looks for; taken away in the end if it was not there.
struct InstalledHelper(Option<PathBuf>);

impl InstalledHelper {
    fn new(program: &Path) -> Self {
        let path = PathBuf::from("/sbin/mount.fuse.cairn");
        if path.symlink_metadata().is_ok() {
            return Self(None);
        }
        symlink(program, &path).unwrap();
        Self(Some(path))
    }
}

impl Drop for InstalledHelper {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _gone = fs::remove_file(path);
        }
    }
}

#[test]
fn fstab_mounts_and_umount_ends_the_daemon() {
    within(120, || {
        let cluster = Cluster::new();
        let _helper = InstalledHelper::new(&binaries::cairn());
        let (dir, pid) = (cluster.place().join("with blank"), cluster.place().join("mount.pid"));
        fs::create_dir(&dir).unwrap();
        let config = cluster.place().join("mount.toml");
        fs::write(&config, format!("pid_file = {pid:?}\n")).unwrap();
        let fstab = cluster.place().join("fstab");
        let line = format!(
            "{} {} fuse.cairn config={},cache_size=8MiB,_netdev,nofail,noatime,x-systemd.requires=network-online.target 0 0\n",
            cluster.master_address(),
            dir.to_str().unwrap().replace(' ', "\\040"),
            config.display()
        );
        fs::write(&fstab, line).unwrap();
        let mount_all = format!("mount -T {} -a", fstab.display());
        let first = cairn_tests::try_sh(cluster.place(), 40, &mount_all);
        let used = fs::write(dir.join("f"), "through fstab");
        let id: u32 = fs::read_to_string(&pid).unwrap_or_default().trim().parse().unwrap_or(0);
        // What is mounted already is seen to be.
        let second = cairn_tests::try_sh(cluster.place(), 40, &mount_all);
        let umount = cairn_tests::try_sh(cluster.place(), 40, "umount 'with blank'");
        let still = is_mounted(&dir);
        let ended =
            wait_for(Duration::from_secs(20), || !fs::exists(format!("/proc/{id}/exe")).unwrap());
        detach(&dir);
        assert!(first.ok(), "{first}");
        used.unwrap();
        assert!(second.ok(), "{second}");
        assert!(umount.ok() && !still, "{umount}");
        assert!(id != 0 && ended, "the daemon outlives its mount");
        assert!(cluster.cairn(30, &["cat", "f"]).stdout.contains("through fstab"));
    });
}
