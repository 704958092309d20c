//! A node that hangs (SIGSTOP) holds nobody up for longer than a moment, and does no harm when it wakes.
//!
//! The longest of all operations is printed. With default settings it stays below three seconds; the
//! limit here is twice that, because the machines that run tests have other things to do.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use cairn_tests::{Cluster, Layout, Rng, rng::scale, within};

/// Twice what is promised.
const LIMIT: Duration = Duration::from_secs(6);
const MIB: usize = 1 << 20;

/// The longest of a worker's operations, and how many there were.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    took: Duration,
    count: u64,
}

impl Longest {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        self.took = self.took.max(began.elapsed());
        self.count += 1;
        result
    }
}

type Worker = JoinHandle<Longest>;

fn until_told(
    stop: &Arc<AtomicBool>,
    mut work: impl FnMut(u64, &mut Longest) + Send + 'static,
) -> Worker {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut longest = Longest::default();
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            work(n, &mut longest);
        }
        longest
    })
}

/// Writes small files and syncs each.
fn small_files(directory: PathBuf, stop: &Arc<AtomicBool>) -> Worker {
    until_told(stop, move |n, longest| {
        let bytes = Rng::new(n).bytes(20_000);
        let mut file = longest.time(|| File::create(directory.join(format!("s{n}")))).unwrap();
        longest.time(|| file.write_all(&bytes)).unwrap();
        longest.time(|| file.sync_all()).unwrap();
    })
}

/// Writes a large file in pieces of a megabyte, again and again.
fn large_files(path: PathBuf, stop: &Arc<AtomicBool>) -> Worker {
    until_told(stop, move |n, longest| {
        let mut file = longest.time(|| File::create(&path)).unwrap();
        for piece in 0..16 {
            let bytes = Rng::new(n << 32 | piece).bytes(MIB);
            longest.time(|| file.write_all(&bytes)).unwrap();
        }
        longest.time(|| file.sync_all()).unwrap();
    })
}

/// Reads pieces of a file that is not cached.
fn reads(path: PathBuf, content: Arc<Vec<u8>>, stop: &Arc<AtomicBool>) -> Worker {
    let mut rng = Rng::new(9);
    until_told(stop, move |_, longest| {
        let file = longest.time(|| File::open(&path)).unwrap();
        let at = rng.index(content.len() - 100_000);
        let mut found = vec![0; 100_000];
        longest.time(|| file.read_exact_at(&mut found, at as u64)).unwrap();
        assert!(found == content[at..at + 100_000], "wrong bytes at {at}");
        // So that the next read comes from the nodes again.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    })
}

fn made(path: &Path, mib: usize) -> Arc<Vec<u8>> {
    let content = Rng::new(77).bytes(mib * MIB);
    fs::write(path, &content).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
    Arc::new(content)
}

fn check_small_files(directory: &Path, stalls: &[Longest]) {
    for n in 0..stalls[0].count / 3 {
        let found = fs::read(directory.join(format!("s{n}"))).unwrap();
        assert!(found == Rng::new(n).bytes(20_000), "s{n}");
    }
}

#[test]
fn no_operation_waits_long_for_a_stopped_node() {
    within(200 * scale(), || {
        let mut cluster = Cluster::with(Layout { nodes: 3, ..Layout::default() });
        let content = made(&cluster.mount().join("old"), 48);
        // Chunks are fetched again and again with a cache this small.
        let mount = cluster.mount_with(&["--cache-size", "1MiB"]);
        let stop = Arc::new(AtomicBool::new(false));
        let workers = [
            small_files(mount.path().to_owned(), &stop),
            large_files(mount.join("large"), &stop),
            reads(mount.join("old"), Arc::clone(&content), &stop),
        ];
        for round in 0..3 * scale() {
            thread::sleep(Duration::from_millis(700));
            let node = usize::try_from(round % 3).unwrap();
            cluster.node(node).stop();
            thread::sleep(Duration::from_secs(4));
            cluster.node(node).cont();
            cluster.wait_healthy();
        }
        stop.store(true, Ordering::Relaxed);
        let stalls = workers.map(|worker| worker.join().unwrap());
        for (who, longest) in ["synced files", "large file", "reads"].iter().zip(&stalls) {
            eprintln!("{who}: longest of {} operations {:?}", longest.count, longest.took);
        }
        assert!(stalls.iter().all(|longest| longest.took < LIMIT), "{stalls:?}");
        drop(mount);
        check_small_files(cluster.mount().path(), &stalls);
        cluster.assert_fsck_clean();
    });
}

#[test]
fn a_node_that_wakes_up_later_does_no_harm() {
    within(150, || {
        let mut cluster = Cluster::with(Layout { nodes: 3, ..Layout::default() });
        let mount = cluster.mount();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = small_files(mount.path().to_owned(), &stop);
        thread::sleep(Duration::from_millis(500));
        // In the middle of its puts; it wakes with the map and the puts of then.
        cluster.node(1).stop();
        thread::sleep(Duration::from_secs(3));
        for n in 0..20 {
            let (old, new) = (mount.join(format!("s{n}")), mount.join(format!("moved{n}")));
            fs::rename(old, new).unwrap();
        }
        cluster.node(1).cont();
        cluster.wait_healthy();
        thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        drop(mount);
        let mount = cluster.mount();
        for n in 0..written.count / 3 {
            let name = if n < 20 { format!("moved{n}") } else { format!("s{n}") };
            assert!(fs::read(mount.join(name)).unwrap() == Rng::new(n).bytes(20_000), "{n}");
        }
        // What it took late is right, and it can be relied on again.
        cluster.kill_node(0);
        let after = Rng::new(1 << 40).bytes(3 * MIB);
        fs::write(mount.join("after"), &after).unwrap();
        assert!(fs::read(mount.join("after")).unwrap() == after);
        cluster.start_node(0);
        cluster.wait_healthy();
        cluster.assert_fsck_clean();
    });
}

#[test]
fn who_reads_and_writes_goes_on_as_soon_as_a_stopped_master_does() {
    within(100, || {
        let mut cluster = Cluster::new();
        let content = made(&cluster.mount().join("old"), 16);
        let mount = cluster.mount_with(&["--cache-size", "1MiB"]);
        let stop = Arc::new(AtomicBool::new(false));
        let workers = [
            small_files(mount.path().to_owned(), &stop),
            reads(mount.join("old"), Arc::clone(&content), &stop),
        ];
        let away = Duration::from_secs(3);
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(500));
            cluster.master().stop();
            thread::sleep(away);
            cluster.master().cont();
        }
        thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        let stalls = workers.map(|worker| worker.join().unwrap());
        eprintln!("longest operations with the master away for {away:?}: {stalls:?}");
        assert!(stalls.iter().all(|longest| longest.took < away + LIMIT), "{stalls:?}");
        drop(mount);
        check_small_files(cluster.mount().path(), &stalls);
        cluster.assert_fsck_clean();
    });
}
