//! [`Side`]: one of the directories, and what it answers to a step.

use std::{
    ffi::CString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW,
        UTIME_OMIT, Uid, XattrFlags,
    },
    io::{Errno, Result, pread, pwrite},
};

use super::step::{Action, Actor, HANDLES, Step, Target, Time};
use crate::Rng;

/// What a call returned, as far as it must be the same everywhere.
pub(super) type Answer = std::result::Result<String, Errno>;

/// One of the directories.
#[derive(Debug)]
pub(super) struct Side {
    root: OwnedFd,
    path: PathBuf,
    handles: Vec<Option<OwnedFd>>,
}

/// Lets this thread be another user for the file system, and root again when dropped.
struct Acting;

impl Acting {
    fn begin(actor: Actor) -> Self {
        // SAFETY: both change credentials of the calling thread only and touch no memory.
        unsafe {
            libc::setfsgid(actor.0);
            libc::setfsuid(actor.0);
        }
        Self
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            libc::setfsuid(0);
            libc::setfsgid(0);
        }
    }
}

/// Gives this thread a umask and a directory of its own; those of the process belong to all tests.
pub(super) fn own_umask() {
    // SAFETY: takes no memory; from now on this thread shares neither umask nor directory with others.
    let result = unsafe { libc::unshare(libc::CLONE_FS) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn done(result: Result<()>) -> Answer {
    result.map(|()| String::new())
}

/// Bytes in short form: equal exactly when they are.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("{} bytes, {}", bytes.len(), cairn_proto::ChunkId::of(bytes))
}

fn timespec(time: Time) -> Timespec {
    match time {
        Time::At(seconds, nanos) => Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
        Time::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Time::Omit => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

impl Side {
    pub(super) fn new(path: &Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).expect("a directory to work in");
        let handles = (0..HANDLES).map(|_| None).collect();
        Self { root, path: path.to_owned(), handles }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn close_all(&mut self) {
        self.handles.iter_mut().for_each(|slot| *slot = None);
    }

    /// Does `step` and says what came of it.
    pub(super) fn apply(&mut self, step: &Step) -> Answer {
        // Calls that take no directory find relative paths in this one.
        rustix::process::fchdir(&self.root).expect("the root was opened");
        let umask = rustix::process::umask(Mode::from_raw_mode(step.umask));
        let acting = Acting::begin(step.actor);
        let answer = self.act(&step.action);
        drop(acting);
        if let (Action::Allocate { slot, .. }, Ok(_)) = (&step.action, &answer) {
            self.forget_time(*slot);
        }
        rustix::process::umask(umask);
        answer
    }

    /// Makes `mtime` one of those that are not compared.
    fn forget_time(&self, slot: usize) {
        let times = Timestamps {
            last_access: timespec(Time::Omit),
            last_modification: timespec(Time::Now),
        };
        if let Some(file) = &self.handles[slot] {
            rustix::fs::futimens(file, &times).expect("root sets times");
        }
    }

    fn act(&mut self, action: &Action) -> Answer {
        match action {
            Action::Open { .. }
            | Action::Close { .. }
            | Action::Read { .. }
            | Action::Write { .. }
            | Action::Append { .. }
            | Action::SetLen { .. }
            | Action::Truncate { .. }
            | Action::Allocate { .. }
            | Action::SeekBeyond { .. }
            | Action::Sync { .. }
            | Action::Copy { .. } => self.content(action),
            Action::MakeDir { .. }
            | Action::RemoveDir { .. }
            | Action::Unlink { .. }
            | Action::Link { .. }
            | Action::Symlink { .. }
            | Action::ReadLink { .. }
            | Action::Rename { .. }
            | Action::Fifo { .. }
            | Action::Socket { .. }
            | Action::List { .. }
            | Action::RemoveTree { .. } => self.names(action),
            Action::Mode { .. }
            | Action::Owner { .. }
            | Action::Times { .. }
            | Action::SetAttribute { .. }
            | Action::GetAttribute { .. }
            | Action::RemoveAttribute { .. }
            | Action::ListAttributes { .. }
            | Action::Stat { .. }
            | Action::Access { .. } => self.attributes(action),
        }
    }

    fn handle(&self, slot: usize) -> Result<&OwnedFd> {
        self.handles[slot].as_ref().ok_or(Errno::BADF)
    }

    fn content(&mut self, action: &Action) -> Answer {
        match *action {
            Action::Open { slot, ref path, flags, mode } => {
                self.handles[slot] = None;
                let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let mode = Mode::from_raw_mode(mode);
                let opened = rustix::fs::openat(&self.root, path, flags, mode)?;
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
                if kind != FileType::RegularFile {
                    // Not kept open: see the list of differences.
                    return Ok(format!("{kind:?}"));
                }
                self.handles[slot] = Some(opened);
                Ok(String::new())
            }
            Action::Close { slot } => {
                Ok(if self.handles[slot].take().is_some() { "closed" } else { "none" }.to_owned())
            }
            Action::Read { slot, at, len } => {
                let mut bytes = vec![0; len];
                let mut filled = 0;
                while filled < len {
                    match pread(self.handle(slot)?, &mut bytes[filled..], at + filled as u64)? {
                        0 => break,
                        n => filled += n,
                    }
                }
                Ok(digest(&bytes[..filled]))
            }
            Action::Write { slot, at, len, seed } => {
                let bytes = Rng::new(seed).bytes(len);
                let n = pwrite(self.handle(slot)?, &bytes, at)?;
                Ok(format!("{n} written"))
            }
            Action::Append { slot, len, seed } => {
                let file = self.handle(slot)?;
                rustix::fs::seek(file, SeekFrom::End(0))?;
                let n = rustix::io::write(file, &Rng::new(seed).bytes(len))?;
                Ok(format!("{n} written, now at {}", rustix::fs::tell(file)?))
            }
            Action::SetLen { slot, len } => done(rustix::fs::ftruncate(self.handle(slot)?, len)),
            Action::Truncate { ref path, len } => {
                let path = CString::new(path.as_str()).map_err(|_| Errno::INVAL)?;
                let len = i64::try_from(len).map_err(|_| Errno::INVAL)?;
                // SAFETY: the path ends with a NUL and lives until the call returns.
                let result = unsafe { libc::truncate(path.as_ptr(), len) };
                if result == 0 { Ok(String::new()) } else { Err(last_error()) }
            }
            Action::Allocate { slot, flags, at, len } => {
                done(rustix::fs::fallocate(self.handle(slot)?, flags, at, len))
            }
            Action::SeekBeyond { slot, data } => {
                let file = self.handle(slot)?;
                let end = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
                let to = if data { SeekFrom::Data(end) } else { SeekFrom::Hole(end) };
                rustix::fs::seek(file, to).map(|at| format!("at {at}"))
            }
            Action::Sync { slot, data: true } => done(rustix::fs::fdatasync(self.handle(slot)?)),
            Action::Sync { slot, data: false } => done(rustix::fs::fsync(self.handle(slot)?)),
            Action::Copy { from, to, at, to_at, len } => self.copy(from, to, (at, to_at), len),
            _ => unreachable!("sorted by `act`"),
        }
    }

    fn copy(&self, from: usize, to: usize, (at, to_at): (u64, u64), len: usize) -> Answer {
        let (from, to) = (self.handle(from)?, self.handle(to)?);
        let (mut at, mut to_at) = (at, to_at);
        let mut copied = 0;
        while copied < len {
            let result = rustix::fs::copy_file_range(
                from,
                Some(&mut at),
                to,
                Some(&mut to_at),
                len - copied,
            );
            match result {
                Ok(0) => break,
                Ok(n) => copied += n,
                Err(error) if copied == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(format!("{copied} copied"))
    }

    fn names(&self, action: &Action) -> Answer {
        let root = &self.root;
        match *action {
            Action::MakeDir { ref path, mode } => {
                done(rustix::fs::mkdirat(root, path, Mode::from_raw_mode(mode)))
            }
            Action::RemoveDir { ref path } => {
                done(rustix::fs::unlinkat(root, path, AtFlags::REMOVEDIR))
            }
            Action::Unlink { ref path } => done(rustix::fs::unlinkat(root, path, AtFlags::empty())),
            Action::Link { ref from, ref to, follow } => {
                let flags = if follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
                done(rustix::fs::linkat(root, from, root, to, flags))
            }
            Action::Symlink { ref target, ref path } => {
                done(rustix::fs::symlinkat(target, root, path))
            }
            Action::ReadLink { ref path } => {
                let target = rustix::fs::readlinkat(root, path, Vec::new())?;
                Ok(target.to_string_lossy().into_owned())
            }
            Action::Rename { ref from, ref to, flags } => {
                done(rustix::fs::renameat_with(root, from, root, to, flags))
            }
            Action::Fifo { ref path, mode } => self.node(path, FileType::Fifo, mode),
            Action::Socket { ref path, mode } => self.node(path, FileType::Socket, mode),
            Action::List { ref path } => self.list(path),
            Action::RemoveTree { ref path } => {
                let result = std::fs::remove_dir_all(path);
                match result {
                    Ok(()) => Ok(String::new()),
                    Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                }
            }
            _ => unreachable!("sorted by `act`"),
        }
    }

    fn node(&self, path: &str, kind: FileType, mode: u32) -> Answer {
        let mode = Mode::from_raw_mode(mode);
        done(rustix::fs::mknodat(&self.root, path, kind, mode, 0))
    }

    fn list(&self, path: &str) -> Answer {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.root, path, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&opened)? {
            let entry = entry?;
            names.push(format!("{:?} {:?}", entry.file_name(), entry.file_type()));
        }
        names.sort();
        Ok(names.join(", "))
    }

    fn attributes(&self, action: &Action) -> Answer {
        match *action {
            Action::Mode { ref target, mode } => {
                let mode = Mode::from_raw_mode(mode);
                done(match target {
                    Target::Path(path) | Target::Link(path) => {
                        rustix::fs::chmodat(&self.root, path, mode, AtFlags::empty())
                    }
                    Target::Handle(slot) => rustix::fs::fchmod(self.handle(*slot)?, mode),
                })
            }
            Action::Owner { ref target, uid, gid } => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                done(match target {
                    Target::Handle(slot) => rustix::fs::fchown(self.handle(*slot)?, uid, gid),
                    Target::Path(path) | Target::Link(path) => {
                        rustix::fs::chownat(&self.root, path, uid, gid, flags_of(target))
                    }
                })
            }
            Action::Times { ref target, atime, mtime } => {
                let times =
                    Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
                done(match target {
                    Target::Handle(slot) => rustix::fs::futimens(self.handle(*slot)?, &times),
                    Target::Path(path) | Target::Link(path) => {
                        rustix::fs::utimensat(&self.root, path, &times, flags_of(target))
                    }
                })
            }
            Action::Stat { ref target } => {
                let stat = match target {
                    Target::Handle(slot) => rustix::fs::fstat(self.handle(*slot)?)?,
                    Target::Path(path) | Target::Link(path) => {
                        rustix::fs::statat(&self.root, path, flags_of(target))?
                    }
                };
                Ok(super::tree::shown(&stat))
            }
            Action::Access { ref path, wanted } => {
                let flags = AtFlags::EACCESS;
                done(rustix::fs::accessat(&self.root, path, wanted, flags))
            }
            _ => self.extended(action),
        }
    }

    fn extended(&self, action: &Action) -> Answer {
        match action {
            Action::SetAttribute { target, name, len, seed, flags } => {
                let value = Rng::new(*seed).bytes(*len);
                let flags = XattrFlags::from_bits_retain(*flags);
                done(match target {
                    Target::Path(path) => {
                        rustix::fs::setxattr(path.as_str(), name.as_str(), &value, flags)
                    }
                    Target::Link(path) => {
                        rustix::fs::lsetxattr(path.as_str(), name.as_str(), &value, flags)
                    }
                    Target::Handle(slot) => {
                        rustix::fs::fsetxattr(self.handle(*slot)?, name.as_str(), &value, flags)
                    }
                })
            }
            Action::GetAttribute { target, name } => {
                let mut value = vec![0u8; 65_536];
                let len = match target {
                    Target::Path(path) => {
                        rustix::fs::getxattr(path.as_str(), name.as_str(), &mut value)
                    }
                    Target::Link(path) => {
                        rustix::fs::lgetxattr(path.as_str(), name.as_str(), &mut value)
                    }
                    Target::Handle(slot) => {
                        rustix::fs::fgetxattr(self.handle(*slot)?, name.as_str(), &mut value)
                    }
                }?;
                Ok(digest(&value[..len]))
            }
            Action::RemoveAttribute { target, name } => done(match target {
                Target::Path(path) => rustix::fs::removexattr(path.as_str(), name.as_str()),
                Target::Link(path) => rustix::fs::lremovexattr(path.as_str(), name.as_str()),
                Target::Handle(slot) => {
                    rustix::fs::fremovexattr(self.handle(*slot)?, name.as_str())
                }
            }),
            Action::ListAttributes { target } => {
                let mut list = vec![0u8; 65_536];
                let len = match target {
                    Target::Path(path) => rustix::fs::listxattr(path.as_str(), &mut list),
                    Target::Link(path) => rustix::fs::llistxattr(path.as_str(), &mut list),
                    Target::Handle(slot) => rustix::fs::flistxattr(self.handle(*slot)?, &mut list),
                }?;
                let mut names: Vec<_> = list[..len].split(|b| *b == 0).collect();
                names.sort_unstable();
                Ok(String::from_utf8_lossy(&names.join(&b' ')).into_owned())
            }
            _ => unreachable!("sorted by `act`"),
        }
    }
}

fn flags_of(target: &Target) -> AtFlags {
    match target {
        Target::Link(_) => AtFlags::SYMLINK_NOFOLLOW,
        Target::Path(_) | Target::Handle(_) => AtFlags::empty(),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
