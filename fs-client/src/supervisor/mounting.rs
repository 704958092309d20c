//! Mounting without fuser, so that the connection to the kernel belongs to the supervisor: mount(2) as
//! root, `fusermount3` for everybody else.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, IoSliceMut, Read as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, FdFlags, fcntl_setfd},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{getegid, geteuid},
};

use crate::{fuse::MountSettings, vfs::AtimePolicy};

/// The least that the kernel accepts as room for its first request.
const FIRST_REQUEST: usize = 8192;

/// Mounts; the connection to the kernel, inherited by children.
///
/// # Errors
/// Why the system refuses.
pub fn attach(settings: &MountSettings) -> io::Result<OwnedFd> {
    let device = match by_root(settings) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root() => {
            by_helper(settings)?
        }
        other => other?,
    };
    fcntl_setfd(&device, FdFlags::empty())?;
    Ok(device)
}

fn by_root(settings: &MountSettings) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mode = fs::metadata(&settings.at)?.permissions().mode();
    let mut data = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw()
    );
    if settings.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).map_err(|_| io::Error::from(Errno::INVAL))?;
    let flags = [
        (settings.read_only, MountFlags::RDONLY),
        (!settings.suid, MountFlags::NOSUID),
        (!settings.dev, MountFlags::NODEV),
        (settings.noexec, MountFlags::NOEXEC),
        (settings.atime == AtimePolicy::Noatime, MountFlags::NOATIME),
    ];
    let flags = flags.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag).collect();
    mount(&settings.source, &settings.at, "fuse.cairn", flags, data.as_c_str())?;
    Ok(device.into())
}

fn by_helper(settings: &MountSettings) -> io::Result<OwnedFd> {
    let mut options = vec![
        format!("fsname={}", settings.source.replace(',', "\\,")),
        "subtype=cairn".to_owned(),
        "default_permissions".to_owned(),
    ];
    let words = [
        (settings.read_only, "ro"),
        (settings.noexec, "noexec"),
        (settings.atime == AtimePolicy::Noatime, "noatime"),
        (settings.allow_other, "allow_other"),
    ];
    options.extend(words.into_iter().filter(|(wanted, _)| *wanted).map(|(_, w)| w.to_owned()));
    let (theirs, ours) = UnixStream::pair()?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let mut helper = Command::new("fusermount3");
    helper.arg("-o").arg(options.join(",")).arg("--").arg(&settings.at);
    helper.env("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    helper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = helper.spawn().map_err(|e| {
        io::Error::new(io::ErrorKind::PermissionDenied, format!("cannot run fusermount3: {e}"))
    })?;
    drop(theirs);
    let received = receive(&ours);
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut said)?;
    }
    child.wait()?;
    received?.ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, said.trim().to_owned()))
}

/// The descriptor that comes over `socket`; nothing when the other side ends first.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(descriptors.next().and_then(|mut fds| fds.next()))
}

/// The kernel's first request, which it sends as soon as it is mounted.
///
/// # Errors
/// When somebody has unmounted already.
pub fn first_request(device: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; FIRST_REQUEST];
    loop {
        match rustix::io::read(device, &mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether the mount is still there.
pub fn is_connected(device: impl AsFd) -> bool {
    let mut events = [PollFd::new(&device, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut events, Some(&now)) {
        Ok(_) => !events[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL),
        Err(_) => true,
    }
}

/// Unmounts.
///
/// # Errors
/// `ResourceBusy` when the mount is in use; otherwise what the system says.
pub fn take_away(at: &Path) -> io::Result<()> {
    end(at, UnmountFlags::empty(), &["-u"])
}

/// Unmounts, in use or not.
///
/// # Errors
/// What the system says.
pub fn detach(at: &Path) -> io::Result<()> {
    end(at, UnmountFlags::DETACH, &["-u", "-z"])
}

fn end(at: &Path, flags: UnmountFlags, options: &[&str]) -> io::Result<()> {
    match unmount(at, flags) {
        // Ordinary users unmount with FUSE's own program.
        Err(Errno::PERM) => helper(at, options),
        other => Ok(other?),
    }
}

fn helper(at: &Path, options: &[&str]) -> io::Result<()> {
    let output = Command::new("fusermount3").args(options).arg("--").arg(at).output();
    let output = output.map_err(|e| {
        io::Error::new(e.kind(), format!("not as root, and fusermount3: {e}; install fuse3"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let busy = said.contains("busy");
    Err(io::Error::new(if busy { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other }, said))
}
