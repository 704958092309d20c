//! [`Daemon`]: one long-running process of ours, with its log, killed when dropped.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{spawner::spawn, wait_for};

/// The most memory that process `id` has had resident so far, in bytes; nothing when it is gone.
pub fn peak_rss(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A running process. Its standard error goes to a log file, which is shown when a test fails.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`; its standard error is appended to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log);
        let file = file.expect("the log's directory takes a file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = spawn(command).unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let stdout = BufReader::new(child.stdout.take().expect("the output is piped"));
        let (send, lines) = sync_channel(64);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { name: name.to_owned(), child, lines, log: log.to_owned() }
    }

    /// Waits for the line `listening on ADDRESS`.
    ///
    /// # Errors
    /// When something else comes, or nothing within the limit: the end of the log.
    pub fn listening(&mut self, limit: Duration) -> Result<SocketAddr, String> {
        let line = self
            .lines
            .recv_timeout(limit)
            .map_err(|_| format!("{} does not get ready:\n{}", self.name, self.log_tail(30)))?;
        line.strip_prefix("listening on ")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| format!("{} said {line:?} instead of where it listens", self.name))
    }

    /// The next line of its standard output, if there is one already.
    pub fn next_line(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Where its standard error goes.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Whether it runs.
    ///
    /// # Panics
    /// When the kernel does not know the child.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked for").is_none()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and its end is waited for.
    pub fn kill9(&mut self) {
        self.kill_without_waiting();
        wait_for(Duration::from_secs(20), || !self.is_running());
    }

    /// SIGKILL only: for a process that hangs on a frozen disk.
    pub fn kill_without_waiting(&mut self) {
        let _already_gone = self.child.kill();
    }

    /// SIGTERM; the exit status, when it ends within the limit.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        let _already_gone = kill_process(self.pid(), Signal::TERM);
        let mut status = None;
        wait_for(limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status
    }

    /// SIGSTOP: it is there, but it does not answer.
    pub fn stop(&self) {
        let _already_gone = kill_process(self.pid(), Signal::STOP);
    }

    /// SIGCONT.
    pub fn cont(&self) {
        let _already_gone = kill_process(self.pid(), Signal::CONT);
    }

    /// The most memory that it has had resident so far, in bytes.
    ///
    /// # Panics
    /// When it does not run.
    pub fn peak_rss(&self) -> u64 {
        peak_rss(self.id()).expect("a running process has a status")
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let skip = log.lines().count().saturating_sub(lines);
        log.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.log_tail(usize::MAX)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of the log of {}:\n{}", self.name, self.log_tail(30));
        }
        self.cont();
        self.kill9();
    }
}
