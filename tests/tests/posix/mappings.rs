//! Memory mappings: shared and private, beside every other kind of handle, and under truncation.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    ptr, slice,
};

use cairn_tests::{Cluster, Rng, sh, within};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

const LEN: usize = 300_000;
const PAGE: usize = 4096;

/// A mapping of the first `LEN` bytes of a file.
struct Mapping(*mut u8);

impl Mapping {
    fn new(file: &File, flags: MapFlags) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at a place that the kernel chooses.
        let at = unsafe { mmap(ptr::null_mut(), LEN, protection, flags, file, 0) };
        Self(at.unwrap().cast())
    }

    fn get(&self, from: usize, to: usize) -> Vec<u8> {
        assert!(to <= LEN);
        // SAFETY: within the mapping, and no test truncates a file that it maps in this process.
        unsafe { slice::from_raw_parts(self.0.add(from), to - from) }.to_vec()
    }

    fn set(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= LEN);
        // SAFETY: within the mapping; nobody else in this process looks at it at this moment.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.add(at), bytes.len()) }
    }

    fn sync(&self) {
        // SAFETY: the mapping's own range.
        unsafe { msync(self.0.cast(), LEN, MsyncFlags::SYNC) }.unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping's own range; nothing uses it afterwards.
        unsafe { munmap(self.0.cast(), LEN) }.unwrap();
    }
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true);
    options
}

#[test]
fn a_shared_mapping_reads_and_writes_what_every_other_handle_does() {
    within(180, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let path = mount.join("file");
        let mut model = Rng::new(5).bytes(LEN);
        fs::write(&path, &model).unwrap();
        let both = options().open(&path).unwrap();
        let handles = [
            ("reading and writing", options().open(&path).unwrap()),
            ("writing only", File::options().write(true).open(&path).unwrap()),
            ("direct", options().custom_flags(libc::O_DIRECT).open(&path).unwrap()),
            ("writing at once", options().custom_flags(libc::O_SYNC).open(&path).unwrap()),
        ];
        let mapping = Mapping::new(&both, MapFlags::SHARED);
        let mut rng = Rng::of_run("mapping");
        for step in 0..400 {
            let (name, handle) = &handles[rng.index(handles.len())];
            let (at, len) = (rng.index(LEN - 10_000), 1 + rng.index(10_000));
            let bytes = rng.bytes(len);
            model[at..at + len].copy_from_slice(&bytes);
            if rng.one_in(2) {
                handle.write_all_at(&bytes, at as u64).unwrap();
            } else {
                mapping.set(at, &bytes);
            }
            let from = rng.index(LEN - 20_000);
            let expected = &model[from..from + 20_000];
            assert!(mapping.get(from, from + 20_000) == expected, "step {step}: mapping, {name}");
            if *name != "writing only" {
                let mut read = vec![0; 20_000];
                handle.read_exact_at(&mut read, from as u64).unwrap();
                assert!(read == expected, "step {step}: {name}");
            }
        }
        mapping.sync();
        let other = cluster.mount();
        assert!(fs::read(other.join("file")).unwrap() == model, "after msync, in another mount");
    });
}

#[test]
fn appended_bytes_show_in_a_mapping_and_a_mapping_never_appends() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let path = mount.join("file");
        let mut model = Rng::new(6).bytes(LEN - 3 * PAGE);
        fs::write(&path, &model).unwrap();
        let mut log = options().append(true).open(&path).unwrap();
        let mapping = Mapping::new(&log, MapFlags::SHARED);
        for n in 0..20u8 {
            mapping.set(usize::from(n) * 10_000, &[n; 500]);
            model[usize::from(n) * 10_000..][..500].fill(n);
            log.write_all(&[n; 100]).unwrap();
            model.extend([n; 100]);
            assert!(mapping.get(model.len() - 300, model.len()) == model[model.len() - 300..]);
        }
        mapping.sync();
        drop((mapping, log));
        assert!(fs::read(&path).unwrap() == model);
        let other = cluster.mount();
        assert!(fs::read(other.join("file")).unwrap() == model);
    });
}

#[test]
fn what_was_written_through_a_mapping_outlives_the_daemon_after_msync() {
    within(120, || {
        let cluster = Cluster::new();
        let mut mount = cluster.mount();
        let path = mount.join("file");
        fs::write(&path, vec![1; LEN]).unwrap();
        let file = options().open(&path).unwrap();
        let mapping = Mapping::new(&file, MapFlags::SHARED);
        let bytes = Rng::new(8).bytes(LEN);
        mapping.set(0, &bytes);
        mapping.sync();
        mount.kill9();
        let other = cluster.mount();
        assert!(fs::read(other.join("file")).unwrap() == bytes);
        // Unmapping would wait for a daemon that is gone: the pages are clean, so it does not.
        drop((mapping, file));
    });
}

#[test]
fn what_was_written_through_a_mapping_is_there_after_unmapping_and_close() {
    within(120, || {
        let cluster = Cluster::new();
        let (mount, other) = (cluster.mount(), cluster.mount());
        let path = mount.join("file");
        for n in 1..=10u8 {
            let file = options().create(true).truncate(false).open(&path).unwrap();
            file.set_len(LEN as u64).unwrap();
            let mapping = Mapping::new(&file, MapFlags::SHARED);
            mapping.set(usize::from(n) * 1000, &[n; 100_000]);
            drop(mapping);
            drop(file);
            let seen = fs::read(other.join("file")).unwrap();
            assert_eq!(seen.len(), LEN);
            assert!(seen[usize::from(n) * 1000..][..100_000] == [n; 100_000], "round {n}");
        }
    });
}

#[test]
fn a_private_mapping_is_never_written_back() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let path = mount.join("file");
        let bytes = Rng::new(9).bytes(LEN);
        fs::write(&path, &bytes).unwrap();
        let file = options().open(&path).unwrap();
        let mapping = Mapping::new(&file, MapFlags::PRIVATE);
        mapping.set(5000, &[0xaa; 50_000]);
        assert_eq!(mapping.get(5000, 55_000), [0xaa; 50_000]);
        mapping.sync();
        assert!(fs::read(&path).unwrap() == bytes);
        file.write_all_at(&[1; 100], 5000).unwrap();
        file.write_all_at(&[2; 100], 200_000).unwrap();
        assert_eq!(mapping.get(5000, 5100), [0xaa; 100], "its own copy stays");
        assert_eq!(
            mapping.get(200_000, 200_100),
            [2; 100],
            "where it has none it follows the file"
        );
        // A program is mapped privately, too.
        sh(mount.path(), 30, "cp /bin/true t && ./t && ./t");
    });
}

#[test]
fn behind_the_end_of_a_truncated_file_a_mapping_is_a_bus_error() {
    const SCRIPT: &str = r#"
import mmap, os, signal, sys
fd = os.open("file", os.O_RDWR | os.O_CREAT)
os.write(fd, b"x" * 20000)
m = mmap.mmap(fd, 20000)
assert m[19999] == ord("x")
os.truncate("file", 5000)
assert m[4999] == ord("x") and m[5000] == 0 and m[8191] == 0
m[4999] = ord("y")
m.flush(0, 8192)
assert os.stat("file").st_size == 5000
os.truncate("file", 20000)
assert m[4999] == ord("y") and bytes(m[5000:20000]) == bytes(15000)
m[6000] = 1
os.truncate("file", 5500)
os.truncate("file", 20000)
assert bytes(m[5000:20000]) == bytes(15000)
os.truncate("file", 5000)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    m[8192]
    os._exit(0)
assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGBUS
"#;
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        fs::write(cluster.place().join("script.py"), SCRIPT).unwrap();
        let script = cluster.place().join("script.py");
        sh(mount.path(), 60, &format!("ulimit -c 0; python3 '{}'", script.display()));
    });
}
