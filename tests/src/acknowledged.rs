//! Files that were promised to be safe: written, synced, counted, and checked afterwards.
//!
//! The writer is a process of its own (`cairn-test-writer`). A test program that holds files of a
//! mount open must not start processes: a child closes its copies of the descriptors when it begins,
//! each close is a flush, and that waits for the very master that is to be started.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{Rng, daemon::Daemon, wait_for};

fn content(n: u64) -> Vec<u8> {
    let mut rng = Rng::new(n);
    let len = rng.index(if n.is_multiple_of(4) { 300_000 } else { 20_000 });
    rng.bytes(len)
}

fn name(n: u64) -> String {
    format!("{:02}/file-{n}", n % 10)
}

/// Makes the directories, then writes and syncs files `from`, `from + 1`, ... and says each number when its file is safe. Ends
/// when the file `stop` in `directory`'s parent appears.
///
/// # Errors
/// The first file that cannot be written.
pub fn write_forever(
    directory: &Path,
    from: u64,
    stop: &Path,
    mut said: impl io::Write,
) -> io::Result<()> {
    for n in 0..10 {
        fs::create_dir_all(directory.join(format!("{n:02}")))?;
    }
    File::open(directory)?.sync_all()?;
    for n in from.. {
        if stop.exists() {
            break;
        }
        let mut file = File::create(directory.join(name(n)))?;
        file.write_all(&content(n))?;
        file.sync_all()?;
        drop(file);
        writeln!(said, "{n}")?;
        said.flush()?;
    }
    Ok(())
}

/// A writing process.
#[derive(Debug)]
pub struct Writer {
    process: Daemon,
    count: AtomicU64,
    stop: PathBuf,
}

impl Writer {
    /// Starts `program` (`cairn-test-writer`) on `directory`, beginning with file `from`. `place` is a
    /// directory outside of the mount.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &str, place: &Path, directory: &Path, from: u64) -> Self {
        let stop = place.join("writer-stop");
        drop(fs::remove_file(&stop));
        let mut command = Command::new(program);
        command.arg(directory).arg(from.to_string()).arg(&stop);
        let process = Daemon::start("writer", command, &place.join("writer.log"));
        Self { process, count: AtomicU64::new(from), stop }
    }

    /// How many files are safe.
    pub fn acknowledged(&self) -> u64 {
        while let Some(line) = self.process.next_line() {
            let n: u64 = line.parse().expect("the writer says numbers");
            self.count.store(n + 1, Ordering::Relaxed);
        }
        self.count.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        drop(File::create(&self.stop));
        wait_for(Duration::from_secs(60), || {
            self.acknowledged();
            !self.process.is_running()
        });
        wait_for(Duration::from_millis(200), || false);
        self.acknowledged();
    }

    /// Ends the writer, which must not have seen an error; how many files are safe.
    ///
    /// # Panics
    /// When it has seen one.
    pub fn finish(mut self) -> u64 {
        self.end();
        let log = self.process.log();
        assert!(log.is_empty(), "the writer failed: {log}");
        self.acknowledged()
    }

    /// Ends the writer of a mount that is gone; how many files are safe.
    pub fn abandon(mut self) -> u64 {
        self.end();
        self.acknowledged()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(fs::remove_file(self.process.log_file()));
    }
}

/// Every acknowledged file is there, byte by byte.
///
/// # Panics
/// When one is not.
pub fn check(directory: &Path, acknowledged: u64) {
    for n in 0..acknowledged {
        let path = directory.join(name(n));
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(bytes == content(n), "{} of {acknowledged} is not what was synced", path.display());
    }
}
