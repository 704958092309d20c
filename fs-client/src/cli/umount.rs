//! `cairn umount`: end a mount.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_daemon::io_error::explain;
use clap::Args;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, geteuid, pidfd_open},
};

use super::{failure::Failure, mount::full_path};
use crate::{
    fuse::{liveness, mount_table},
    metrics::socket,
    supervisor::mounting,
};

/// How long to wait for the daemon to store what is left.
const DAEMON_END: Duration = Duration::from_secs(60);
/// Most processes that are named when a mount is in use.
const NAMED_USERS: usize = 8;

/// End a mount
#[derive(Args, Debug)]
pub struct Umount {
    /// Where the store is mounted
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Take the mount away from those who use it: it vanishes now, and ends when they are done
    #[arg(long)]
    lazy: bool,
}

impl Umount {
    /// # Errors
    /// When nothing is mounted there, or it is in use.
    pub fn run(self) -> Result<bool, Failure> {
        let shown = self.dir.display();
        let full =
            full_path(&self.dir).map_err(|e| Failure::new(format!("{shown}: {}", explain(&e))))?;
        let mount = match mount_table::find(&full) {
            Some(mount) if mount.is_cairn() => mount,
            Some(mount) => {
                return Err(Failure::new(format!(
                    "{shown} is no mount of Cairn but one of {}: use umount",
                    mount.kind
                )));
            }
            None => return Err(Failure::new(format!("nothing is mounted at {shown}"))),
        };
        let daemon = daemon_of(&full);
        if liveness::is_dead(&full) {
            clear_dead(&mount, &full)?;
        } else if self.lazy {
            detach(&full)?;
        } else {
            take_away(&full)?;
        }
        match daemon {
            Some(daemon) if !self.lazy => wait_for_end(daemon),
            _ => Ok(true),
        }
    }
}

/// Takes away `mount` at `full`, whose daemon is gone, and the socket that it has left.
///
/// # Errors
/// When the system refuses.
pub(super) fn clear_dead(mount: &mount_table::Mount, full: &Path) -> Result<(), Failure> {
    detach(full)?;
    let owner = mount.owner.unwrap_or_else(|| geteuid().as_raw());
    if let Ok(socket) = socket::path(&mount.device, owner) {
        // None may be there.
        let _ = fs::remove_file(socket);
    }
    Ok(())
}

fn detach(full: &Path) -> Result<(), Failure> {
    mounting::detach(full).map_err(|e| refused(full, &e))
}

fn take_away(full: &Path) -> Result<(), Failure> {
    mounting::take_away(full).map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => Failure::new(format!(
            "{} is in use{}: end what uses it and try again, or take it away with: cairn umount --lazy {}",
            full.display(),
            users_of(full),
            full.display()
        )),
        _ => refused(full, &e),
    })
}

fn refused(full: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot unmount {}: {}", full.display(), explain(error)))
}

/// The process `cairn mount .. FULL ..`, if it was started with the full path, as the one in the
/// background always is: the supervisor, or the daemon when that is all there is.
pub(super) fn daemon_of(full: &Path) -> Option<Pid> {
    let mut found: Vec<_> = processes().filter_map(|pid| Some((serves(pid, full)?, pid))).collect();
    found.sort_by_key(|(role, _)| *role);
    found.first().map(|(_, pid)| *pid)
}

/// What a process is to a mount. Who is to be waited for comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Supervisor,
    Daemon,
}

fn serves(pid: Pid, full: &Path) -> Option<Role> {
    // The command line lies in the process's memory: reading that of a stranger who waits for a page of
    // a dead mount would wait with it. The name does not.
    let place = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    fs::read(place.join("comm")).ok().filter(|name| name == b"cairn\n")?;
    let line = fs::read(place.join("cmdline")).ok()?;
    let mut arguments = line.split(|b| *b == 0);
    let ours = arguments.next().is_some_and(|a| a == b"cairn" || a.ends_with(b"/cairn"));
    let rest: Vec<_> = arguments.collect();
    if !ours || !rest.contains(&&b"mount"[..]) || !rest.contains(&full.as_os_str().as_bytes()) {
        return None;
    }
    let daemon = rest.iter().any(|argument| argument.starts_with(b"--serving="));
    Some(if daemon { Role::Daemon } else { Role::Supervisor })
}

/// Waits until the daemon has stored what was left and is gone.
fn wait_for_end(daemon: Pid) -> Result<bool, Failure> {
    let Ok(pidfd) = pidfd_open(daemon, PidfdFlags::empty()) else { return Ok(true) };
    let patience = Timespec::try_from(DAEMON_END).expect("a minute is a time");
    let mut events = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut events, Some(&patience)) {
        Ok(0) => Err(Failure::new(format!(
            "unmounted, but the mount daemon (process {}) is still storing what was written: its log says more",
            daemon.as_raw_nonzero()
        ))),
        Ok(_) | Err(_) => Ok(true),
    }
}

/// `: by PID (NAME), ..`, or nothing when it cannot be seen.
fn users_of(full: &Path) -> String {
    let users: Vec<String> = processes()
        .filter(|pid| uses(*pid, full))
        .take(NAMED_USERS)
        .map(|pid| {
            let pid = pid.as_raw_nonzero();
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{pid} ({})", name.trim())
        })
        .collect();
    if users.is_empty() { String::new() } else { format!(" by {}", users.join(", ")) }
}

fn uses(pid: Pid, full: &Path) -> bool {
    let place = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let within = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(full));
    if ["cwd", "root", "exe"].iter().any(|name| within(place.join(name))) {
        return true;
    }
    let Ok(fds) = fs::read_dir(place.join("fd")) else { return false };
    fds.flatten().any(|fd| within(fd.path()))
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}
