//! A FUSE file system that does nothing: one file, `zeros`, whose pages the kernel keeps. What reading it
//! again costs is what the kernel itself takes; `scripts/bench.sh --vs floor` reads it beside Cairn's files.

use std::{
    env,
    ffi::OsStr,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};

const TTL: Duration = Duration::from_secs(3600);
const FILE: INodeNo = INodeNo(2);
/// Most that the kernel reads at once.
const READ_MAX: usize = 1024 * 1024;
static ZEROS: [u8; READ_MAX] = [0; READ_MAX];

struct Null {
    bytes: u64,
}

impl Null {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let directory = ino == INodeNo::ROOT;
        let (kind, perm) =
            if directory { (FileType::Directory, 0o755) } else { (FileType::RegularFile, 0o444) };
        FileAttr {
            ino,
            size: if directory { 0 } else { self.bytes },
            blocks: self.bytes.div_ceil(512),
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Null {
    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "zeros" {
            reply.entry(&TTL, &self.attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(READ_MAX);
        reply.data(&ZEROS[..left.min(size as usize).min(READ_MAX)]);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [dir, mib] = arguments.as_slice() else {
        eprintln!("usage: cairn-bench-null DIR MIB   serves DIR/zeros until DIR is unmounted");
        return ExitCode::from(2);
    };
    let Ok(mib) = mib.parse::<u64>() else {
        eprintln!("cairn-bench-null: {mib} is no number of MiB");
        return ExitCode::from(2);
    };
    match fuser::mount(Null { bytes: mib * 1024 * 1024 }, dir, &Config::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn-bench-null {dir}: {error}");
            ExitCode::FAILURE
        }
    }
}
