//! The seam to the file system under one data directory: what segments need of it and no more.
//!
//! Two implementations: [`RealDisk`] and, for tests, [`FaultDisk`](fault::FaultDisk), which breaks in
//! chosen ways. The trait is as weak as the system calls behind it: reads and writes may be short, a
//! write is lost on power failure until [`DiskFile::sync`], a name until [`Disk::sync_names`].
//! [`read_full`] and [`write_full`] are the only loops over short transfers.
//!
//! Not in here: formats, retries, policy.

mod direct;
pub mod fault;
mod real;

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

pub use real::RealDisk;

/// Most buffers that one vectored write takes (`IOV_MAX` on Linux).
pub const IOV_MAX: usize = 1024;

/// Room on the file system that holds a disk's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system in bytes.
    pub capacity: u64,
    /// Bytes that may still be allocated.
    pub free: u64,
}

/// A flat set of named files.
pub trait Disk: Send + Sync + 'static {
    /// Absolute path of a file, for other processes of this machine; `None` where there is no such thing.
    fn path(&self, _name: &str) -> Option<String> {
        None
    }
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes an empty file, also where one of that name exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all creations, renames and removals durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Room on the file system.
    fn space(&self) -> io::Result<Space>;
}

/// One file. Positions are absolute; calls may come from several threads.
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads some bytes; 0 only at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Fills `buf` with what the kernel has in memory, without waiting for the device; false when it has
    /// not all of it, or cannot tell.
    fn read_now(&self, _buf: &mut [u8], _offset: u64) -> bool {
        false
    }
    /// Writes some bytes of at most [`IOV_MAX`] buffers.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;
    /// Asks the kernel to begin writing a range; a hint.
    fn start_writeback(&self, offset: u64, len: u64);
    /// Tells the kernel that a range will be read; a hint.
    fn expect_read(&self, offset: u64, len: u64);
    /// Tells the kernel that a range, which is synced, need not stay in memory; a hint.
    fn forget(&self, _offset: u64, _len: u64) {}
    /// Reserves room for `len` bytes and makes the file that long.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Gives the room of a range of whole blocks back, which reads as zeros then. False when this file
    /// system cannot.
    fn punch(&self, offset: u64, len: u64) -> io::Result<bool>;
    /// Bytes of the disk that the file takes.
    fn taken(&self) -> io::Result<u64>;
    /// Cuts the file, or lengthens it with zeros.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// Reads until `buf` is full or the file ends; the number of bytes read.
///
/// # Errors
/// Whatever the disk answers.
pub fn read_full(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes all of `bufs` one after the other from `offset` on.
///
/// # Errors
/// Whatever the disk answers; some of the bytes may then have been written.
pub fn write_full(
    file: &dyn DiskFile,
    mut bufs: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        match file.write_at(&bufs[..bufs.len().min(IOV_MAX)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset += n as u64;
                IoSlice::advance_slices(&mut bufs, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
