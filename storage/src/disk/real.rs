//! [`RealDisk`]: files of one directory through system calls. What is written in large pieces goes past the page cache
//! ([`super::direct`]).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    num::NonZeroU64,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{self, Path, PathBuf},
    sync::Arc,
};

use cairn_daemon::large_page::LargePages;
use rustix::{
    fs::{Advice, FallocateFlags, fadvise},
    io::{ReadWriteFlags, preadv2},
};

use super::{Disk, DiskFile, Space, direct::Direct};

/// The files of one directory.
pub struct RealDisk {
    dir: PathBuf,
    pages: LargePages,
}

impl RealDisk {
    /// The files in `dir`, which exists.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), pages: LargePages::default() }
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(RealFile { file, direct: Direct::new(self.pages.clone()) })
    }
}

/// Size and free room of the file system under `path`, as an unprivileged user may use it.
///
/// # Errors
/// Whatever statvfs answers.
fn space_of(path: &Path) -> io::Result<Space> {
    let s = rustix::fs::statvfs(path)?;
    Ok(Space {
        capacity: s.f_blocks.saturating_mul(s.f_frsize),
        free: s.f_bavail.saturating_mul(s.f_frsize),
    })
}

impl Disk for RealDisk {
    fn path(&self, name: &str) -> Option<String> {
        let path = path::absolute(self.dir.join(name)).ok()?;
        path.into_os_string().into_string().ok()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.dir.join(name))?;
        Ok(self.file(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        space_of(&self.dir)
    }
}

struct RealFile {
    file: File,
    direct: Direct,
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> bool {
        let (len, now) = (buf.len(), ReadWriteFlags::NOWAIT);
        preadv2(&self.file, &mut [IoSliceMut::new(buf)], offset, now) == Ok(len)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        match self.direct.write_at(&self.file, bufs, offset)? {
            Some(written) => Ok(written),
            None => Ok(rustix::io::pwritev(&self.file, bufs, offset)?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn expect_read(&self, offset: u64, len: u64) {
        // Its result does not matter: this is a hint, errors are found by the read that follows.
        let _ = fadvise(&self.file, offset, NonZeroU64::new(len), Advice::WillNeed);
    }

    fn forget(&self, offset: u64, len: u64) {
        // Its result does not matter: this is a hint.
        let _ = fadvise(&self.file, offset, NonZeroU64::new(len), Advice::DontNeed);
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            // SAFETY: the descriptor is open for the whole call and the call touches no memory of ours.
            // Its result does not matter: this is a hint, errors are found by the sync that follows.
            let _ = unsafe {
                libc::sync_file_range(
                    self.file.as_raw_fd(),
                    offset.cast_signed(),
                    len.cast_signed(),
                    libc::SYNC_FILE_RANGE_WRITE,
                )
            };
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some file systems cannot: writes then allocate as they go, ENOSPC included.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                if self.len()? < len {
                    self.file.set_len(len)?;
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, len) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn taken(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks().saturating_mul(512))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        // As a segment is when it is complete.
        self.direct.close();
        self.file.set_len(len)
    }
}
