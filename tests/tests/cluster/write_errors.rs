//! Bytes that could not be written back: whoever syncs hears of it, whatever was told before and to whom.
//!
//! What refuses the bytes is a quota: it does so for good, at their commit, long after `write` took them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    process::{Command, Stdio},
    time::Duration,
};

use cairn_tests::{Cluster, Mount, Rng, wait_for, within};

const MIB: usize = 1 << 20;
const BOUND: Duration = Duration::from_secs(20);

/// A cluster with a directory `d` that takes 1 MiB.
fn narrow(options: &[&str]) -> (Cluster, Mount) {
    let cluster = Cluster::new();
    let mount = cluster.mount_with(options);
    fs::create_dir(mount.join("d")).unwrap();
    let set = cluster.cairn(60, &["quota", "set", "d", "--bytes", "1MiB"]);
    assert!(set.ok(), "{set}");
    (cluster, mount)
}

fn errno<T>(result: io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

fn writer() -> OpenOptions {
    let mut options = File::options();
    options.create(true).write(true);
    options
}

/// The kernel cuts a write into requests of at most 1 MiB. When one of them fails that is not the first,
/// the program hears of fewer bytes than it gave, and goes on with the rest.
#[test]
fn an_error_within_a_long_write_is_not_lost() {
    within(120, || {
        let (cluster, mount) = narrow(&["--dirty-size", "1MiB"]);
        let bytes = Rng::of_run("long").bytes(6 * MIB + 4321);
        let mut hidden = 0;
        let kinds = [
            ("write-only", writer()),
            ("cached", writer().read(true).clone()),
            ("append", writer().append(true).clone()),
        ];
        for (kind, options) in kinds {
            // Not at the start of a page, as the memory of most programs.
            for from in 0..4 {
                let path = mount.join(format!("d/{kind}-{from}"));
                let mut file = options.open(&path).unwrap();
                let written = file.write_all(&bytes[from..]);
                hidden += usize::from(written.is_ok());
                assert_eq!(errno(file.sync_all()), libc::EDQUOT, "{kind}: write said {written:?}");
                file.sync_all().expect("a sync tells it once");
                drop(file);
                fs::remove_file(path).unwrap();
            }
        }
        println!("of 12 writes {hidden} returned without an error");
        mount.unmount();
        cluster.assert_sound();
    });
}

/// What the quota of `d` has room for, and then too much. Each part is one request, so that no part of a
/// write can be told already what the write before it came to, and a short write hide it.
fn write_too_much(file: &File, bytes: &[u8]) {
    let (fits, more) = bytes.split_at(bytes.len() / 2);
    file.write_all_at(fits, 0).unwrap();
    file.write_all_at(more, fits.len() as u64).unwrap();
}

#[test]
fn every_handle_hears_of_an_error_from_its_own_sync() {
    within(90, || {
        let (cluster, mount) = narrow(&[]);
        let path = mount.join("d/f");
        let bytes = Rng::of_run("handles").bytes(MIB + MIB / 2);
        let one = writer().open(&path).unwrap();
        let other = writer().read(true).open(&path).unwrap();
        let reader = File::open(&path).unwrap();
        write_too_much(&one, &bytes);
        assert_eq!(errno(other.sync_all()), libc::EDQUOT);
        let late = writer().open(&path).unwrap();
        late.sync_all().expect("it was opened after the error");
        assert_eq!(errno(one.write_all_at(b"on", 0)), libc::EDQUOT);
        one.write_all_at(b"on", 0).expect("a write tells it once");
        assert_eq!(errno(one.sync_all()), libc::EDQUOT, "a write has spared the sync");
        assert_eq!(errno(reader.sync_all()), libc::EDQUOT);
        for handle in [&one, &other, &reader, &late] {
            handle.sync_all().expect("it is told once");
        }
        assert!(fs::read(&path).unwrap().starts_with(b"on"));

        // Somebody who inherits the handle closes it, and does not look.
        write_too_much(&one, &bytes);
        let inherited = Stdio::from(one.try_clone().unwrap());
        assert!(Command::new("true").stdout(inherited).status().unwrap().success());
        assert_eq!(errno(one.sync_all()), libc::EDQUOT, "the close of a child has spared the sync");
        drop((one, other, reader, late));
        fs::remove_file(&path).unwrap();
        mount.unmount();
        cluster.assert_sound();
    });
}

#[test]
fn what_is_stored_through_a_mapping_and_refused_is_told_by_msync() {
    within(90, || {
        let (cluster, mount) = narrow(&[]);
        let script = r"
import errno, mmap, os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(fd, 3 << 20)
area = mmap.mmap(fd, 3 << 20)
area[:] = os.urandom(3 << 20)
said = []
for sync in (area.flush, lambda: os.fsync(fd)):
    try:
        sync()
    except OSError as error:
        said.append(errno.errorcode[error.errno])
print(*said)
os._exit(0)
";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(mount.join("d/mapped"));
        let ran = cairn_tests::command::run(command, Duration::from_secs(40));
        assert!(ran.ok() && ran.stdout.trim() == "EDQUOT", "{ran}");
        fs::remove_file(mount.join("d/mapped")).unwrap();
        mount.unmount();
        cluster.assert_sound();
    });
}

#[test]
fn an_error_that_was_not_told_outlives_the_daemon() {
    within(120, || {
        let (cluster, mount) = narrow(&[]);
        let path = mount.join("d/f");
        let told = writer().open(&path).unwrap();
        let untold = writer().open(&path).unwrap();
        let next_daemon = || {
            let before = mount.daemon();
            mount.kill_daemon();
            assert!(wait_for(BOUND, || mount.daemon().is_some_and(|now| Some(now) != before)));
        };
        told.write_all_at(&Rng::of_run("outlives").bytes(2 * MIB), 0).unwrap();
        assert_eq!(errno(told.sync_all()), libc::EDQUOT);
        told.write_all_at(b"later", 0).unwrap();
        told.sync_all().unwrap();
        next_daemon();
        assert_eq!(
            errno(untold.sync_all()),
            libc::EIO,
            "the next daemon knows nothing of lost bytes"
        );
        // It cannot know who was told.
        let _ = told.sync_all();
        next_daemon();
        for handle in [&told, &untold] {
            handle.sync_all().expect("everybody was told");
        }
        drop((told, untold));
        assert!(fs::read(&path).unwrap().starts_with(b"later"));
        fs::remove_file(&path).unwrap();
        mount.unmount();
        cluster.assert_sound();
    });
}
