//! The supervisor's life: it starts the daemon, waits, starts the next one.
//!
//! Signals are blocked and waited for, so nothing happens between two looks. SIGTERM and SIGINT are
//! passed on: the daemon writes back and unmounts. SIGUSR2 has the daemon write back and end, and the
//! next one is started from the same path, which may hold a newer program by then.

use std::{
    ffi::OsString,
    fmt,
    fs::OpenOptions,
    io::{self, BufRead as _, BufReader},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use cairn_daemon::notify;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process},
};

use super::{
    mounting::{self, is_connected},
    record::{self, Record},
};
use crate::fuse::MountSettings;

/// The word by which a daemon says that it serves.
pub const READY: &str = "mounted";
/// Daemons in a row that may die before they serve, or at once when they do.
const ATTEMPTS: u32 = 10;
/// A daemon that has served for this long did not die of what killed the one before.
const PROVEN: Duration = Duration::from_millis(250);
const BACKOFF: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether the daemon lives, should a signal be lost.
const LOOK: Duration = Duration::from_millis(500);

/// How to start a daemon.
pub struct Daemon {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, with a further one, which names the descriptors.
    pub arguments: Box<dyn Fn(OsString) -> Vec<OsString>>,
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Daemon({})", self.program.display())
    }
}

/// Why there is no mount any longer.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It could not be mounted.
    #[error(transparent)]
    Mounting(io::Error),
    /// The first daemon could not serve, and says why.
    #[error("{0}")]
    Refused(String),
    /// A daemon has ended with an error after its mount was gone.
    #[error("the mount daemon has ended with an error ({0}): its log says more")]
    Failed(ExitStatus),
    /// No daemon stays alive.
    #[error("the mount daemon has died {ATTEMPTS} times in a row: unmounted; its log says more")]
    GaveUp,
    /// The system gives no process or no memory.
    #[error("cannot supervise the mount: {0}")]
    System(#[from] io::Error),
}

/// Mounts, serves through daemons, calls `ready` once, and returns when the mount is gone.
///
/// # Errors
/// Why it is gone, unless somebody has unmounted it.
pub fn run(settings: &MountSettings, daemon: &Daemon, ready: impl FnOnce()) -> Result<(), Ended> {
    let signals = Signals::block()?;
    let record = record::create()?;
    let device = mounting::attach(settings).map_err(Ended::Mounting)?;
    let mount = Mounted { settings, device };
    let request = mounting::first_request(&mount.device).map_err(Ended::Mounting)?;
    Record::open(&record)?.set_first_request(&request);
    fcntl_setfd(&record, FdFlags::empty()).map_err(io::Error::from)?;
    let mut ready = Some(ready);
    let (mut attempts, mut ending) = (0, false);
    loop {
        let mut served: Option<Instant> = None;
        let (mut child, words) = start(daemon, &mount.device, &record)?;
        let status = loop {
            if let Ok(word) = words.try_recv() {
                if word == READY {
                    served = Some(Instant::now());
                    ready.take().into_iter().for_each(|ready| ready());
                } else if ready.is_some() {
                    let _ = child.wait();
                    return Err(Ended::Refused(word));
                }
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let patience = if served.is_some() { LOOK } else { LOOK / 25 };
            if let Some(signal) = signals.next(patience) {
                if !ending && (signal == libc::SIGTERM || signal == libc::SIGINT) {
                    ending = true;
                    notify::stopping("writing back and unmounting");
                }
                pass_on(&child, signal);
            }
        };
        if !is_connected(&mount.device) {
            return if status.success() { Ok(()) } else { Err(Ended::Failed(status)) };
        }
        if ready.is_some() {
            let word = words.recv_timeout(LOOK).ok().filter(|word| word != READY);
            return Err(Ended::Refused(word.unwrap_or_else(|| {
                format!("the mount daemon ended before it was ready ({status})")
            })));
        }
        if ending {
            return if status.success() { Ok(()) } else { Err(Ended::Failed(status)) };
        }
        let proven = served.is_some_and(|since| since.elapsed() >= PROVEN);
        attempts = if proven { 1 } else { attempts + 1 };
        if attempts >= ATTEMPTS {
            return Err(Ended::GaveUp);
        }
        tracing::warn!(%status, attempts, "the mount daemon has ended: starting the next one");
        thread::sleep((BACKOFF * 2u32.saturating_pow(attempts - 1)).min(BACKOFF_MAX));
    }
}

/// The mount, which does not outlive the supervisor.
struct Mounted<'a> {
    settings: &'a MountSettings,
    device: OwnedFd,
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if is_connected(&self.device)
            && let Err(error) = mounting::detach(&self.settings.at)
        {
            tracing::error!(at = %self.settings.at.display(), %error, "cannot unmount");
        }
    }
}

/// A daemon, and the lines that it says.
fn start(
    daemon: &Daemon,
    device: &OwnedFd,
    record: &OwnedFd,
) -> io::Result<(Child, Receiver<String>)> {
    let mut command = Command::new(&daemon.program);
    let descriptors = format!("--serving={},{}", device.as_raw_fd(), record.as_raw_fd());
    command.args((daemon.arguments)(descriptors.into()));
    command.env_remove(notify::SOCKET);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: plain system calls, which may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            Signals::unblock();
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let (send, lines) = sync_channel(4);
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
    }
    Ok((child, lines))
}

fn pass_on(child: &Child, signal: i32) {
    let signal = match signal {
        libc::SIGTERM | libc::SIGINT => Signal::TERM,
        libc::SIGUSR2 => Signal::USR2,
        _ => return,
    };
    // It may have ended a moment ago.
    let _ = kill_process(Pid::from_child(child), signal);
}

/// The signals that are waited for.
struct Signals(libc::sigset_t);

impl Signals {
    fn set() -> libc::sigset_t {
        // SAFETY: sigemptyset makes any bytes a set, and the others add to it.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR2, libc::SIGCHLD] {
                libc::sigaddset(&raw mut set, signal);
            }
            set
        }
    }

    fn block() -> io::Result<Self> {
        let set = Self::set();
        // SAFETY: a valid set; the old mask is not asked for.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if failed == 0 { Ok(Self(set)) } else { Err(io::Error::from_raw_os_error(failed)) }
    }

    fn unblock() {
        let set = Self::set();
        // SAFETY: as above.
        unsafe {
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        }
    }

    /// The next signal, if one comes in time.
    fn next(&self, patience: Duration) -> Option<i32> {
        let time = libc::timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        // SAFETY: a valid set and a valid time; nothing is asked about the sender.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const time) };
        (signal > 0).then_some(signal)
    }
}

/// Whoever waits for our word sees the end of it.
pub fn close_stdout() {
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
