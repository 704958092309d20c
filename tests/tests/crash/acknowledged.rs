//! A writer that remembers what it was promised: every file that it wrote, synced and counted.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use cairn_tests::Rng;

/// Writes files 0, 1, 2, ... into a directory, each synced before it counts as acknowledged.
pub(crate) struct Writer {
    directory: PathBuf,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

fn content(n: u64) -> Vec<u8> {
    let mut rng = Rng::new(n);
    let len = if n % 4 == 0 { 300_000 } else { 20_000 };
    let len = rng.index(len);
    rng.bytes(len)
}

fn name(n: u64) -> String {
    format!("{:02}/file-{n}", n % 10)
}

fn write_one(directory: &Path, n: u64) -> io::Result<()> {
    let path = directory.join(name(n));
    let mut file = File::create(&path)?;
    file.write_all(&content(n))?;
    file.sync_all()
}

impl Writer {
    pub(crate) fn start(directory: PathBuf, from: u64) -> Self {
        for n in 0..10 {
            fs::create_dir_all(directory.join(format!("{n:02}"))).unwrap();
        }
        File::open(&directory).unwrap().sync_all().unwrap();
        let (acknowledged, stop) =
            (Arc::new(AtomicU64::new(from)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (directory, acknowledged, stop) =
                (directory.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
            move || {
                for n in from.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    write_one(&directory, n)?;
                    acknowledged.store(n + 1, Ordering::SeqCst);
                }
                Ok(())
            }
        });
        Self { directory, acknowledged, stop, thread }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Ends the writer, which must not have seen an error; how many files are acknowledged.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let n = self.acknowledged();
        let directory = self.directory.display().to_string();
        let ended = self.thread.join().unwrap();
        ended.unwrap_or_else(|e| panic!("writing {directory}/{}: {e}", name(n)));
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Ends the writer of a mount that is gone; how many files are acknowledged.
    pub(crate) fn abandon(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let _failed_as_it_must = self.thread.join().unwrap();
        self.acknowledged.load(Ordering::SeqCst)
    }
}

/// Every acknowledged file is there, byte by byte.
pub(crate) fn check(directory: &Path, acknowledged: u64) {
    for n in 0..acknowledged {
        let path = directory.join(name(n));
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(bytes == content(n), "{} of {acknowledged} is not what was synced", path.display());
    }
}
