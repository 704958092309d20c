//! [`Mount`]: a real `cairn mount`, always unmounted in the end, whatever the test does.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    binaries,
    command::{Ran, run, sh},
    daemon::Daemon,
    wait_for,
};

/// Whether something is mounted at exactly this path.
///
/// # Panics
/// When the kernel does not show its mounts.
pub fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("Linux shows its mounts");
    let wanted = path.to_str().expect("test paths are UTF-8").replace(' ', "\\040");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&wanted))
}

/// Takes away whatever is mounted at `path`, in use or not, dead or alive.
pub fn detach(path: &Path) {
    for _ in 0..8 {
        if !is_mounted(path) {
            return;
        }
        if rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).is_err() {
            let mut command = Command::new("fusermount3");
            command.args(["-u", "-z"]).arg(path);
            drop(run(command, Duration::from_secs(10)));
        }
    }
}

/// Writes the file `at` in a process of its own, and syncs it: it is stored as whole chunks, and nothing else is.
/// A file that is open in this process is flushed whenever another test starts a program, because that closes its
/// copy of the descriptor: in the middle of a `write` too, and then a part of a chunk is stored as well.
///
/// # Panics
/// When it cannot be written.
pub fn store(at: &Path, content: &[u8]) {
    let place = crate::scratch("content");
    let source = place.path().join("content");
    fs::write(&source, content).expect("there is room for the content of a test");
    let [source, at] = [&source, at].map(|path| path.display());
    sh(place.path(), 120, &format!("cat '{source}' >'{at}' && sync '{at}'"));
}

/// Whether a process has ended, though its parent may not know it yet.
fn is_gone(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.is_empty() || status.lines().any(|line| line.starts_with("State:\tZ"))
}

/// One mount of a cluster, with its supervisor in the foreground.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    daemon: Option<Daemon>,
    _place: TempDir,
}

impl Mount {
    /// Mounts the store of the master at `master`; `options` are further arguments of `cairn mount`.
    ///
    /// # Panics
    /// When it does not come up: a mount test that cannot mount has failed.
    pub fn new(master: &str, options: &[&str]) -> Self {
        Self::inside(crate::scratch("mount"), master, options)
    }

    /// The same in a place of the caller's choice.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn inside(place: TempDir, master: &str, options: &[&str]) -> Self {
        let path = place.path().join("mnt");
        fs::create_dir(&path).expect("a fresh directory takes another");
        let mut mount = Self { path, daemon: None, _place: place };
        mount.start(master, options);
        mount
    }

    /// Mounts again at the same place, for example after [`kill9`](Self::kill9).
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(&mut self, master: &str, options: &[&str]) {
        let mut command = Command::new(binaries::cairn());
        command.arg("mount").arg(&self.path).args(["--foreground", "--master", master]);
        command.args(options);
        let log = self.path.with_extension("log");
        let mut daemon = Daemon::start("mount", command, &log);
        let path = self.path.clone();
        let up = wait_for(Duration::from_secs(20), || {
            assert!(daemon.is_running(), "cairn mount ended:\n{}", daemon.log_tail(40));
            // In this order: a dead mount that is taken away between the two is not ours yet.
            fs::read_dir(&path).is_ok() && is_mounted(&path)
        });
        assert!(up, "no mount after 20 s:\n{}", daemon.log_tail(40));
        self.daemon = Some(daemon);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Lets users who may use the mount come as far as it: the directories of tests are private.
    ///
    /// # Panics
    /// When a directory above it is not ours.
    pub fn open_to_everybody(&self) {
        let ours = |above: &&Path| above.starts_with(std::env::temp_dir());
        for above in self.path.ancestors().skip(1).filter(ours) {
            let mode = fs::metadata(above).expect("it is there").permissions().mode();
            let open = fs::Permissions::from_mode(mode | 0o011);
            fs::set_permissions(above, open).expect("its owner may open it");
        }
    }

    /// The supervisor, which starts daemons.
    ///
    /// # Panics
    /// When it was unmounted or killed.
    pub fn supervisor(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the mount is alive")
    }

    /// The process number of the daemon that serves now; nothing between two of them.
    pub fn daemon(&self) -> Option<u32> {
        let parent = format!("PPid:\t{}", self.daemon.as_ref()?.id());
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut ids = processes.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        ids.find(|id| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            status.lines().any(|line| line == parent)
        })
    }

    fn signal(&self, signal: Signal) {
        let daemon = self.daemon().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(daemon) = daemon {
            let _already_gone = kill_process(daemon, signal);
        }
    }

    /// `kill -9` of the daemon alone: the supervisor starts the next one.
    pub fn kill_daemon(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGSTOP for the daemon.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT for it.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// The most memory that the daemon has had resident so far, in bytes.
    ///
    /// # Panics
    /// When there is none.
    pub fn peak_rss(&self) -> u64 {
        let id = self.daemon().expect("a mount has a daemon");
        crate::daemon::peak_rss(id).expect("a running process has a status")
    }

    /// Kills supervisor and daemon; the mount stays behind, dead.
    pub fn kill9(&mut self) {
        // The supervisor first, so that no other daemon is started.
        if let Some(supervisor) = &self.daemon {
            supervisor.stop();
            let serving = self.daemon();
            self.kill_daemon();
            wait_for(Duration::from_secs(20), || serving.is_none_or(is_gone));
        }
        if let Some(mut supervisor) = self.daemon.take() {
            supervisor.kill9();
        }
    }

    /// `cairn umount`, as a user does it; the daemon must end by itself.
    ///
    /// # Panics
    /// When it fails, or the daemon lives on.
    pub fn unmount(mut self) {
        let mut command = Command::new(binaries::cairn());
        command.arg("umount").arg(&self.path);
        let ran: Ran = run(command, Duration::from_secs(60));
        assert!(ran.ok(), "cairn umount: {ran}");
        assert!(!is_mounted(&self.path), "still mounted after cairn umount");
        let mut daemon = self.daemon.take().expect("the mount is alive");
        let ended = wait_for(Duration::from_secs(30), || !daemon.is_running());
        assert!(ended, "the mount daemon lives on after cairn umount:\n{}", daemon.log_tail(40));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        detach(&self.path);
        self.kill9();
        detach(&self.path);
    }
}
