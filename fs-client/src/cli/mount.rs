//! `cairn mount`: show the store as a directory.
//!
//! The process that mounts is the [supervisor](crate::supervisor): in the foreground this one, otherwise
//! one that this one starts and waits for until it says, on its standard output, that the mount is there,
//! or why it is not. The supervisor starts the daemon, and the next one when it dies.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    net::SocketAddr,
    os::{
        fd::{BorrowedFd, FromRawFd as _, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use cairn_daemon::io_error::{explain, plain};
use cairn_daemon::{log, memory, metrics::page, notify, program::ACTIONS, size::Size};
use clap::Args;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Signal, kill_process},
};

use super::{
    connection::Connection,
    failure::Failure,
    mount_options::{MountOptions, add_flags},
};
use crate::{
    config::DiskCacheConfig,
    daemon::{self, DaemonError, Inheritance, Settings},
    fuse::{MountSettings, liveness, mount_table},
    supervisor::{
        Record,
        watch::{self, Daemon, Ended, READY},
    },
};

/// Show the store as a directory
#[derive(Args, Debug)]
#[command(args_override_self = true)]
pub struct Mount {
    /// An empty directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Stay in the foreground, for service managers
    #[arg(long, env = "CAIRN_MOUNT_FOREGROUND")]
    foreground: bool,

    /// Write the daemon's process number to this file
    #[arg(long, value_name = "FILE", env = "CAIRN_MOUNT_PID_FILE")]
    pid_file: Option<PathBuf>,

    /// Append the daemon's log to this file (in the foreground it goes to standard error otherwise)
    #[arg(long, value_name = "FILE", env = "CAIRN_MOUNT_LOG_FILE")]
    log_file: Option<PathBuf>,

    /// Bytes of chunks to keep in memory for reading again
    #[arg(long, value_name = "BYTES", default_value_t = Size::mib(128), env = "CAIRN_MOUNT_CACHE_SIZE")]
    cache_size: Size,

    /// Keep chunks in this directory of a local disk, where they outlive the mount: a new or empty
    /// directory, and one for each mount
    #[arg(long, value_name = "DIR", env = "CAIRN_MOUNT_CACHE_DIR")]
    cache_dir: Option<PathBuf>,

    /// Bytes that --cache-dir may take on its disk; what was not used for longest goes first
    #[arg(long, value_name = "BYTES", default_value_t = Size::mib(10 << 10), env = "CAIRN_MOUNT_CACHE_DIR_SIZE")]
    cache_dir_size: Size,

    /// Bytes that may be written and not be stored yet
    #[arg(long, value_name = "BYTES", default_value_t = Size::mib(128), env = "CAIRN_MOUNT_DIRTY_SIZE")]
    dirty_size: Size,

    /// Serve metrics for Prometheus at /metrics on this address too; the mount's socket always has them
    #[arg(long, value_name = "HOST:PORT", value_parser = page::address, env = "CAIRN_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,

    #[command(flatten)]
    options: MountOptions,

    /// Have the mount that is there go on with the program that is installed now; it stays mounted
    #[arg(long, help_heading = ACTIONS)]
    upgrade: bool,

    /// Mount though the directory is not empty, and hide what is in it
    #[arg(long, env = "CAIRN_MOUNT_NONEMPTY")]
    nonempty: bool,

    /// Called by mount(8), which prints nothing when all goes well.
    #[arg(long, hide = true)]
    quiet: bool,

    /// The process is the supervisor that `cairn mount` started.
    #[arg(long, hide = true)]
    detached: bool,

    /// The process is a daemon that the supervisor started, with these descriptors.
    #[arg(long, hide = true, value_name = "DEVICE,RECORD", value_parser = descriptors)]
    serving: Option<(i32, i32)>,
}

fn descriptors(text: &str) -> Result<(i32, i32), String> {
    let (device, record) = text.split_once(',').ok_or("two numbers")?;
    let number = |text: &str| text.parse().ok().filter(|n| *n > 2).ok_or("two numbers above 2");
    Ok((number(device)?, number(record)?))
}

/// Threads for everything that waits. Hashing and `/dev/fuse` have threads of their own; half of the
/// processors keeps the number of wake-ups for small operations low (measured on two: half as many).
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get() / 2).clamp(1, 8)
}

impl Mount {
    /// `arguments` are those of this process, as the daemon shall have them.
    ///
    /// # Errors
    /// Why there is no mount.
    pub fn run(mut self, connection: &Connection, arguments: &[OsString]) -> Result<bool, Failure> {
        if let Some(descriptors) = self.serving {
            return self.serve(connection, descriptors);
        }
        if self.upgrade {
            return upgrade(&self.dir);
        }
        self.dir = mount_point(&self.dir, self.nonempty)?;
        if self.foreground || self.detached {
            return self.supervise(connection, arguments);
        }
        self.start_supervisor(arguments)
    }

    /// Starts the supervisor and waits for its word.
    fn start_supervisor(&self, arguments: &[OsString]) -> Result<bool, Failure> {
        let cannot = |e: io::Error| Failure::new(format!("cannot start the mount daemon: {e}"));
        let program = std::env::current_exe().map_err(cannot)?;
        let (mut reader, writer) = io::pipe().map_err(cannot)?;
        let mut arguments = self.arguments_in_full(arguments);
        add_flags(&mut arguments, ["--detached".into()]);
        let mut child = Command::new(program)
            .args(arguments)
            // The daemon is nobody's service.
            .env_remove(notify::SOCKET)
            .stdin(Stdio::null())
            .stdout(Stdio::from(writer))
            .stderr(Stdio::null())
            .spawn()
            .map_err(cannot)?;
        let mut said = String::new();
        reader.read_to_string(&mut said).map_err(cannot)?;
        match said.trim() {
            READY if self.quiet => Ok(true),
            READY => {
                println!("{} is mounted", self.dir.display());
                Ok(true)
            }
            "" => {
                let status = child.wait().map_err(cannot)?;
                Err(Failure::new(format!("the mount daemon ended before it was ready ({status})")))
            }
            sentence => Err(Failure::new(sentence)),
        }
    }

    /// The same command line, so that the child reads it as this process did; the mount point once more
    /// in full, so that `cairn umount` knows it again; and the cache's directory, since the child works
    /// elsewhere.
    fn arguments_in_full(&self, arguments: &[OsString]) -> Vec<OsString> {
        let mut arguments = arguments[1..].to_vec();
        if let Some(dir) = arguments.iter_mut().rev().find(|a| is_same_dir(Path::new(a), &self.dir))
        {
            *dir = self.dir.clone().into();
        }
        // What makes no path is said by whoever opens it.
        if let Some(Ok(dir)) = self.cache_dir.as_ref().map(std::path::absolute) {
            let mut flag = OsString::from("--cache-dir=");
            flag.push(dir);
            add_flags(&mut arguments, [flag]);
        }
        arguments
    }

    /// Is the supervisor.
    fn supervise(self, connection: &Connection, arguments: &[OsString]) -> Result<bool, Failure> {
        let arguments = self.arguments_in_full(arguments);
        let with = move |descriptors: OsString| {
            let mut arguments = arguments.clone();
            add_flags(&mut arguments, [descriptors]);
            arguments
        };
        let result = self.prepare(connection).and_then(|(settings, pid_file)| {
            let program = std::env::current_exe()
                .map_err(|e| Failure::new(format!("cannot start the mount daemon: {e}")))?;
            let daemon = Daemon { program, arguments: Box::new(with) };
            let at = settings.mount.at.clone();
            let ready = || {
                if let Some(pid_file) = &pid_file {
                    pid_file.write();
                }
                if self.detached {
                    let _ = writeln!(io::stdout(), "{READY}");
                    watch::close_stdout();
                } else {
                    println!("{} is mounted", at.display());
                    notify::ready(&format!("{} is mounted", at.display()));
                }
            };
            watch::run(&settings.mount, &daemon, ready).map_err(|ended| match ended {
                Ended::Mounting(why) => {
                    Failure::new(DaemonError::mount(&settings.mount.at, why).to_string())
                }
                other => Failure::new(other.to_string()),
            })
        });
        match result {
            Ok(()) => Ok(true),
            Err(failure) if self.detached => {
                tracing::error!("{failure}");
                // The process that waits for the word shows it; after the word nobody listens.
                let _ = writeln!(io::stdout(), "{failure}");
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Is the daemon.
    fn serve(self, connection: &Connection, descriptors: (i32, i32)) -> Result<bool, Failure> {
        memory::one_heap();
        let served = self.settings(connection).and_then(|settings| {
            self.start_log()?;
            let inheritance = inherit(descriptors)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(workers())
                .enable_all()
                .build()
                .map_err(|e| Failure::new(format!("cannot start: {e}")))?;
            let ready = || {
                let _ = writeln!(io::stdout(), "{READY}");
            };
            runtime.spawn(memory::give_back());
            let result = runtime.block_on(daemon::serve(settings, inheritance, ready));
            runtime.shutdown_background();
            result.map_err(|e| Failure::new(e.to_string()))
        });
        if let Err(failure) = &served {
            tracing::error!("{failure}");
            // The supervisor shows it when it is the first; later nobody listens.
            let _ = writeln!(io::stdout(), "{failure}");
        }
        Ok(served.is_ok())
    }

    fn settings(&self, connection: &Connection) -> Result<Settings, Failure> {
        let root = rustix::process::geteuid().is_root();
        if !root && (self.options.suid || self.options.dev) {
            return Err(Failure::new("only root may mount with suid or dev: leave them out"));
        }
        let mut client = connection.config(&session_name(&self.dir))?;
        client.cache_bytes = self.cache_size.in_memory();
        let bytes = self.cache_dir_size.0;
        client.disk_cache = self.cache_dir.clone().map(|dir| DiskCacheConfig { dir, bytes });
        Ok(Settings {
            client,
            dirty_bytes: self.dirty_size.in_memory(),
            metrics_listen: self.metrics_listen,
            mount: MountSettings {
                at: self.dir.clone(),
                source: self
                    .options
                    .fsname
                    .clone()
                    .unwrap_or_else(|| format!("cairn:{}", connection.master)),
                allow_other: self.options.allow_other || root,
                read_only: self.options.read_only,
                suid: self.options.suid,
                dev: self.options.dev,
                noexec: self.options.noexec,
                atime: self.options.atime,
                shown: self.options.shown(),
            },
        })
    }

    fn prepare(&self, connection: &Connection) -> Result<(Settings, Option<PidFile>), Failure> {
        self.start_log()?;
        check_device()?;
        let settings = self.settings(connection)?;
        let pid_file = self.pid_file.as_deref().map(PidFile::new).transpose()?;
        if self.detached {
            // Its own session, so that closing the terminal does not end it; and no directory that it
            // would keep busy.
            let _ = rustix::process::setsid();
            rustix::process::chdir("/")
                .map_err(|e| Failure::new(format!("cannot enter /: {e}")))?;
        }
        Ok((settings, pid_file))
    }

    fn start_log(&self) -> Result<(), Failure> {
        match &self.log_file {
            Some(path) => log::to_file(path).map_err(|e| {
                Failure::new(format!("cannot write the log {}: {}", path.display(), explain(&e)))
            }),
            None => {
                log::to_stderr();
                Ok(())
            }
        }
    }
}

/// Holds the number of this process while it runs.
struct PidFile(PathBuf);

impl PidFile {
    fn new(path: &Path) -> Result<Self, Failure> {
        let path = std::path::absolute(path).map_err(|e| Failure::new(e.to_string()))?;
        File::create(&path).map_err(|e| {
            Failure::new(format!("cannot write {}: {}", path.display(), explain(&e)))
        })?;
        Ok(Self(path))
    }

    fn write(&self) {
        if let Err(error) = fs::write(&self.0, format!("{}\n", std::process::id())) {
            tracing::error!(path = %self.0.display(), %error, "cannot write the process number");
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // It may have been removed by whoever stops services.
        let _ = fs::remove_file(&self.0);
    }
}

/// Checks `dir` and answers it in full. A dead mount there is taken away first.
fn mount_point(dir: &Path, nonempty: bool) -> Result<PathBuf, Failure> {
    let shown = dir.display();
    let full = full_path(dir).map_err(|e| {
        Failure::new(format!("{shown}: {}: make the directory first: mkdir -p {shown}", plain(&e)))
    })?;
    if let Some(mount) = mount_table::find(&full) {
        if liveness::is_dead(&full) {
            super::umount::clear_dead(&mount, &full)?;
            eprintln!("cairn: {shown}: took away a mount whose daemon is gone");
        } else if mount.is_cairn() {
            return Err(Failure::new(format!(
                "{shown}: {} is mounted there already; to end that: cairn umount {shown}",
                mount.source
            )));
        }
    }
    let metadata = fs::metadata(&full).map_err(|e| {
        Failure::new(format!("{shown}: {}: make the directory first: mkdir -p {shown}", plain(&e)))
    })?;
    if !metadata.is_dir() {
        return Err(Failure::new(format!("{shown} is no directory: mount on an empty one")));
    }
    let mut entries =
        fs::read_dir(&full).map_err(|e| Failure::new(format!("{shown}: {}", explain(&e))))?;
    if !nonempty && entries.next().is_some() {
        return Err(Failure::new(format!(
            "{shown} is not empty: take an empty directory, or hide what is in it with --nonempty"
        )));
    }
    Ok(full)
}

/// `path` without symbolic links, also when a dead mount is at its end.
pub(super) fn full_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)) => {
            let path = std::path::absolute(path)?;
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
                _ => Err(e),
            }
        }
        full => full,
    }
}

fn is_same_dir(argument: &Path, dir: &Path) -> bool {
    full_path(argument).is_ok_and(|full| full == dir)
}

fn check_device() -> Result<(), Failure> {
    let remedy = "load the kernel's FUSE module: modprobe fuse; in a container, pass the device on: --device /dev/fuse --cap-add SYS_ADMIN";
    match fs::metadata("/dev/fuse") {
        Ok(device) if device.file_type().is_char_device() => Ok(()),
        Ok(_) => Err(Failure::new(format!("/dev/fuse is no device: {remedy}"))),
        Err(e) => Err(Failure::new(format!("/dev/fuse: {}: {remedy}", plain(&e)))),
    }
}

/// How `cairn status` shows this mount.
fn session_name(dir: &Path) -> String {
    let host = rustix::system::uname();
    format!("{}:{}", host.nodename().to_string_lossy(), dir.display())
}

/// The descriptors that the supervisor has left open for this process.
fn inherit((device, record): (i32, i32)) -> Result<Inheritance, Failure> {
    let bad =
        |e: io::Error| Failure::new(format!("what the supervisor hands on is of no use: {e}"));
    let own = |number: i32| {
        // SAFETY: looked at only to find out whether it is open.
        let there = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(there, FdFlags::CLOEXEC).map_err(|e| bad(e.into()))?;
        // SAFETY: open, and left by the supervisor for this process alone.
        Ok::<_, Failure>(unsafe { OwnedFd::from_raw_fd(number) })
    };
    let (device, record) = (own(device)?, own(record)?);
    let record = Arc::new(Record::open(&record).map_err(bad)?);
    record.begin();
    Ok(Inheritance { device, record })
}

/// Has the mount at `dir` go on with the program that is installed now.
fn upgrade(dir: &Path) -> Result<bool, Failure> {
    let shown = dir.display();
    let full = full_path(dir).map_err(|e| Failure::new(format!("{shown}: {}", explain(&e))))?;
    let supervisor = super::umount::daemon_of(&full).ok_or_else(|| {
        Failure::new(format!(
            "nobody serves a mount of Cairn at {shown}: mount it with: cairn mount {shown}"
        ))
    })?;
    kill_process(supervisor, Signal::USR2).map_err(|e| {
        Failure::new(format!("cannot tell process {}: {e}", supervisor.as_raw_nonzero()))
    })?;
    println!("{shown} goes on with a new daemon");
    Ok(true)
}
