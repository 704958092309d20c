//! [`Attr`]: what `stat` shows, checked.

use crate::{Ino, Malformed, limits::FILE_SIZE_MAX, pb};

/// A moment: seconds since 1970 (negative before) and nanoseconds within the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999, counted towards the future.
    pub nanos: u32,
}

/// The type bits of `st_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// S_IFREG
    Regular,
    /// S_IFDIR
    Directory,
    /// S_IFLNK
    Symlink,
    /// S_IFIFO
    Fifo,
    /// S_IFSOCK
    Socket,
    /// S_IFCHR
    CharDevice,
    /// S_IFBLK
    BlockDevice,
}

impl FileKind {
    /// The kind that `mode`'s type bits say, if they say one.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::Regular,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => return None,
        })
    }

    /// The type bits.
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }
}

/// Attributes of an inode. `mode` always has valid type bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// `st_mode`: type and permission bits.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device nodes.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes in chunks, holes excluded.
    pub allocated: u64,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Grows with every change of the inode.
    pub version: u64,
    /// Grows with every change of content or length.
    pub data_version: u64,
    /// Which extended attributes it may have (see [`crate::xattr`]); `None`: not known.
    pub xattrs: Option<u32>,
}

impl Attr {
    /// The type of file.
    pub const fn kind(&self) -> FileKind {
        match FileKind::from_mode(self.mode) {
            Some(kind) => kind,
            None => panic!("an Attr is only made with valid type bits"),
        }
    }
}

impl From<Timestamp> for pb::Timestamp {
    fn from(t: Timestamp) -> Self {
        Self { seconds: t.seconds, nanos: t.nanos }
    }
}

impl TryFrom<pb::Timestamp> for Timestamp {
    type Error = Malformed;

    fn try_from(t: pb::Timestamp) -> Result<Self, Malformed> {
        if t.nanos >= 1_000_000_000 {
            return Err(Malformed::new("timestamp", format!("{} nanoseconds", t.nanos)));
        }
        Ok(Self { seconds: t.seconds, nanos: t.nanos })
    }
}

impl From<Attr> for pb::Attr {
    fn from(a: Attr) -> Self {
        Self {
            ino: a.ino.get(),
            mode: a.mode,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            rdev: a.rdev,
            size: a.size,
            allocated: a.allocated,
            atime: Some(a.atime.into()),
            mtime: Some(a.mtime.into()),
            ctime: Some(a.ctime.into()),
            btime: Some(a.btime.into()),
            version: a.version,
            data_version: a.data_version,
            xattrs: a.xattrs,
        }
    }
}

impl TryFrom<pb::Attr> for Attr {
    type Error = Malformed;

    fn try_from(a: pb::Attr) -> Result<Self, Malformed> {
        if FileKind::from_mode(a.mode).is_none() {
            return Err(Malformed::new(
                "attributes",
                format!("mode {:o} has no file type", a.mode),
            ));
        }
        if a.size > FILE_SIZE_MAX {
            return Err(Malformed::new("attributes", format!("size {} is too large", a.size)));
        }
        let time = |t: Option<pb::Timestamp>| t.unwrap_or_default().try_into();
        Ok(Self {
            ino: a.ino.try_into()?,
            mode: a.mode,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            rdev: a.rdev,
            size: a.size,
            allocated: a.allocated,
            atime: time(a.atime)?,
            mtime: time(a.mtime)?,
            ctime: time(a.ctime)?,
            btime: time(a.btime)?,
            version: a.version,
            data_version: a.data_version,
            xattrs: a.xattrs,
        })
    }
}
