//! Flags of open(2), each as on a local disk, and the limits of what may be written.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _, symlink},
};

use cairn_tests::{Cluster, Rng, sh, within};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

fn options(flags: i32) -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(flags);
    options
}

#[test]
fn each_write_is_safe_when_it_returns_if_the_handle_was_opened_so() {
    let writing = |append: bool, flags: i32| {
        let mut options = File::options();
        options.write(true).append(append).custom_flags(flags);
        options
    };
    let kinds = [
        ("sync", options(libc::O_SYNC)),
        ("dsync", options(libc::O_DSYNC)),
        ("writing only", writing(false, libc::O_DSYNC)),
        ("appending", writing(true, libc::O_SYNC)),
        ("direct", options(libc::O_DIRECT | libc::O_DSYNC)),
    ];
    within(180, move || {
        let cluster = Cluster::new();
        for (name, mut options) in kinds {
            let mut mount = cluster.mount();
            let mut file = options.create(true).open(mount.join(name)).unwrap();
            for n in 0..20u8 {
                file.write_all(&[n; 10_000]).unwrap();
            }
            mount.kill9();
            drop(file);
            let mount = cluster.mount();
            let there = fs::read(mount.join(name)).unwrap();
            let expected: Vec<u8> = (0..20).flat_map(|n| [n; 10_000]).collect();
            assert!(there == expected, "{name}: {} bytes are there", there.len());
        }
    });
}

#[test]
fn appending_begins_and_ends_with_the_flag() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        for write_only in [true, false] {
            let path = mount.join(format!("file-{write_only}"));
            let mut file =
                File::options().read(!write_only).append(true).create(true).open(&path).unwrap();
            file.write_all(b"0123456789").unwrap();
            file.write_all_at(b"ab", 3).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"0123456789ab", "pwrite appends, too");
            let flags = fcntl_getfl(&file).unwrap();
            fcntl_setfl(&file, flags - OFlags::APPEND).unwrap();
            file.write_all_at(b"XY", 3).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"012XY56789ab");
            fcntl_setfl(&file, flags).unwrap();
            file.write_all_at(b"end", 0).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"012XY56789abend");
        }
        let path = mount.join("late");
        fs::write(&path, b"first ").unwrap();
        let mut file = options(0).open(&path).unwrap();
        fcntl_setfl(&file, fcntl_getfl(&file).unwrap() | OFlags::APPEND).unwrap();
        file.write_all(b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first second");
    });
}

#[test]
fn direct_handles_take_any_alignment_and_agree_with_the_others() {
    within(180, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let path = mount.join("file");
        let mut model = Rng::new(11).bytes(400_000);
        fs::write(&path, &model).unwrap();
        let direct = options(libc::O_DIRECT).open(&path).unwrap();
        let cached = options(0).open(&path).unwrap();
        let mut rng = Rng::of_run("direct");
        for step in 0..300 {
            let (writer, reader) =
                if rng.one_in(2) { (&direct, &cached) } else { (&cached, &direct) };
            let (at, len) = (rng.index(300_000), 1 + rng.index(100_000));
            let bytes = rng.bytes(len);
            writer.write_all_at(&bytes, at as u64).unwrap();
            model[at..at + len].copy_from_slice(&bytes);
            let (from, len) = (rng.index(300_000), 1 + rng.index(100_000));
            let mut read = vec![0; len];
            reader.read_exact_at(&mut read, from as u64).unwrap();
            assert!(read == model[from..from + len], "step {step}: {len} bytes at {from}");
        }
        drop((direct, cached));
        assert!(fs::read(&path).unwrap() == model);
    });
}

#[test]
fn creation_links_and_kinds_are_as_asked_for() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let path = mount.join("file");
        fs::write(&path, b"content").unwrap();
        let error = |flags: i32, name: &str| {
            let opened = options(flags).mode(0o600).open(mount.join(name));
            opened.err().and_then(|error| error.raw_os_error())
        };
        assert_eq!(error(libc::O_CREAT | libc::O_EXCL, "file"), Some(libc::EEXIST));
        symlink("file", mount.join("link")).unwrap();
        symlink("nothing", mount.join("dangling")).unwrap();
        assert_eq!(error(libc::O_CREAT | libc::O_EXCL, "dangling"), Some(libc::EEXIST));
        assert_eq!(error(libc::O_NOFOLLOW, "link"), Some(libc::ELOOP));
        assert_eq!(error(0, "link"), None);
        assert_eq!(error(libc::O_DIRECTORY, "file"), Some(libc::ENOTDIR));
        assert_eq!(error(libc::O_TMPFILE, "."), Some(libc::EOPNOTSUPP));
        assert_eq!(error(0, "."), Some(libc::EISDIR));
        assert_eq!(fs::read(&path).unwrap(), b"content");
        drop(options(libc::O_TRUNC).open(mount.join("link")).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let held = options(0).open(&path).unwrap();
        held.write_all_at(b"held", 0).unwrap();
        drop(File::create(&path).unwrap());
        assert_eq!(held.metadata().unwrap().len(), 0, "the truncation follows the write");
        held.write_all_at(b"x", 4).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\0\0\0\0x");
    });
}

#[test]
fn files_have_the_limits_of_the_process_and_of_the_kernel() {
    const SCRIPT: &str = r#"
import errno, os, resource, signal
def fails(what, call):
    try:
        call()
    except OSError as e:
        assert e.errno == what, e
    else:
        raise AssertionError("it succeeded")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
fd = os.open("limited", os.O_RDWR | os.O_CREAT)
log = os.open("limited", os.O_WRONLY | os.O_APPEND)
resource.setrlimit(resource.RLIMIT_FSIZE, (100000, resource.RLIM_INFINITY))
assert os.pwrite(fd, b"x" * 50000, 80000) == 20000
fails(errno.EFBIG, lambda: os.pwrite(fd, b"x", 100000))
fails(errno.EFBIG, lambda: os.write(log, b"x"))
fails(errno.EFBIG, lambda: os.ftruncate(fd, 100001))
fails(errno.EFBIG, lambda: os.posix_fallocate(fd, 0, 100001))
assert os.fstat(fd).st_size == 100000
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
last = 2 ** 63 - 1
fails(errno.EFBIG, lambda: os.posix_fallocate(fd, last, 1))
assert os.pwrite(fd, b"z", last - 1) == 1 and os.fstat(fd).st_size == last
fails(errno.EFBIG, lambda: os.write(log, b"z"))
os.ftruncate(fd, 100000)
assert os.write(log, b"end") == 3 and os.pread(fd, 10, 99998) == b"xxend"
child = os.fork()
if child == 0:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    os.pwrite(fd, b"x", 5000)
    os._exit(0)
assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGXFSZ
"#;
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = cluster.place().join("script.py");
        fs::write(&script, SCRIPT).unwrap();
        sh(mount.path(), 60, &format!("ulimit -c 0; python3 '{}'", script.display()));
        let refused = File::options().write(true).open(mount.path()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::IsADirectory);
    });
}
