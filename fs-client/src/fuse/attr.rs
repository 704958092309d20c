//! Attributes and times between our types and fuser's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_proto::{Attr, FileKind, Timestamp};
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::vfs::TimeChange;

/// How long the kernel may rely on attributes and names. Names that do not exist are not cached.
pub const TTL: Duration = Duration::from_secs(1);
/// What `st_blksize` and `statfs` say: buffers of this size suit the store.
pub const BLOCK: u32 = 64 * 1024;

/// fuser's form of `attr`.
pub fn to_fuse(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.get()),
        size: attr.size,
        blocks: attr.allocated.div_ceil(512),
        atime: to_system(attr.atime),
        mtime: to_system(attr.mtime),
        ctime: to_system(attr.ctime),
        crtime: to_system(attr.btime),
        kind: kind(attr.kind()),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK,
        flags: 0,
    }
}

/// fuser's form of `kind`.
pub const fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time that the kernel wants to be set.
pub fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(time) => TimeChange::At(from_request(time)),
    }
}

/// fuser 0.18 makes (-1 s, 0.25 s) of a request, which means 0.75 s before 1970, into the moment
/// 1.25 s before 1970: seconds and fraction can be read off that again exactly.
fn from_request(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(before) => Timestamp {
            seconds: 0i64.checked_sub_unsigned(before.duration().as_secs()).unwrap_or(i64::MIN),
            nanos: before.duration().subsec_nanos(),
        },
    }
}

/// What fuser turns into the right seconds and fraction in replies.
fn to_system(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuser 0.18 does with the times of a setattr request.
    fn as_fuser_reads_it(seconds: i64, nanos: u32) -> SystemTime {
        if seconds >= 0 {
            UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanos)
        } else {
            UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanos)
        }
    }

    #[test]
    fn times_before_1970_survive_fuser() {
        for (seconds, nanos) in
            [(0, 0), (0, 5), (1_700_000_000, 999_999_999), (-1, 0), (-1, 250_000_000), (-86_400, 1)]
        {
            let time = from_request(as_fuser_reads_it(seconds, nanos));
            assert_eq!(time, Timestamp { seconds, nanos });
        }
    }

    #[test]
    fn times_in_replies_are_moments() {
        let time = Timestamp { seconds: -1, nanos: 250_000_000 };
        assert_eq!(to_system(time), UNIX_EPOCH - Duration::from_millis(750));
        let time = Timestamp { seconds: 1, nanos: 5 };
        assert_eq!(to_system(time), UNIX_EPOCH + Duration::new(1, 5));
        to_system(Timestamp { seconds: i64::MIN, nanos: 0 });
        to_system(Timestamp { seconds: i64::MAX, nanos: 999_999_999 });
    }
}
