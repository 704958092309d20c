//! Programs that end by themselves, with a time limit: a hang is a failure like any other.

use std::{
    fmt,
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{spawner::spawn, wait_for};

/// What became of a program.
#[derive(Debug)]
pub struct Ran {
    /// Absent: it was killed because its time was over.
    pub status: Option<ExitStatus>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
    what: String,
}

impl Ran {
    /// Whether it ended in time with exit code 0.
    pub fn ok(&self) -> bool {
        self.status.is_some_and(|s| s.success())
    }

    /// Its exit code, when it ended in time and not by a signal.
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.status.map_or_else(|| "did not end in time".into(), |s| s.to_string());
        let (out, err) = (tail(&self.stdout), tail(&self.stderr));
        write!(
            f,
            "{}: {end} after {:?}\n--- stdout\n{out}\n--- stderr\n{err}",
            self.what, self.took
        )
    }
}

fn tail(text: &str) -> &str {
    let lines = text.lines().count();
    text.lines().nth(lines.saturating_sub(60)).map_or(text, |first| {
        let at = first.as_ptr() as usize - text.as_ptr() as usize;
        &text[at..]
    })
}

fn contents(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("a temporary file can be rewound");
    file.read_to_end(&mut bytes).expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `command` for at most `limit`; then it and its children are killed.
///
/// # Panics
/// When it cannot be started.
pub fn run(mut command: Command, limit: Duration) -> Ran {
    let what = format!("{command:?}");
    let file = || tempfile::tempfile().expect("the temporary directory takes a file");
    let (out, err) = (file(), file());
    let share = |f: &File| Stdio::from(f.try_clone().expect("a file descriptor can be copied"));
    command.stdin(Stdio::null()).stdout(share(&out)).stderr(share(&err)).process_group(0);
    let began = Instant::now();
    let mut child = spawn(command).unwrap_or_else(|e| panic!("cannot start {what}: {e}"));
    let mut status = None;
    wait_for(limit, || {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    let took = began.elapsed();
    if status.is_none() {
        let group = rustix::process::Pid::from_child(&child);
        let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        wait_for(Duration::from_secs(10), || matches!(child.try_wait(), Ok(Some(_))));
    }
    Ran { status, stdout: contents(out), stderr: contents(err), took, what }
}

/// Runs a bash script in `dir`, strictly (`-eu`, pipefail).
pub fn try_sh(dir: &Path, seconds: u64, script: &str) -> Ran {
    let mut command = Command::new("bash");
    command.args(["-eu", "-o", "pipefail", "-c", script]).current_dir(dir);
    command.env("LC_ALL", "C.UTF-8").env("HOME", std::env::temp_dir());
    command.env("GIT_CONFIG_NOSYSTEM", "1");
    run(command, Duration::from_secs(seconds))
}

/// Runs a bash script that must succeed; returns its standard output.
///
/// # Panics
/// When it fails or takes longer than `seconds`.
pub fn sh(dir: &Path, seconds: u64, script: &str) -> String {
    let ran = try_sh(dir, seconds, script);
    assert!(ran.ok(), "{ran}");
    ran.stdout
}
