//! The fault disk itself: before it judges others, it must do what it says.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
};

use cairn_tests::{
    Rng,
    powercut::{Fault, PowerCutDisk, Step, SyncedBy},
    sh, within,
};

#[test]
fn what_was_synced_survives_and_what_was_not_is_lost_in_part() {
    within(120, || {
        let mut partly = 0;
        for seed in 0..20 {
            let mut disk = PowerCutDisk::new(seed, SyncedBy::AnyFsync);
            let bytes = Rng::new(seed).bytes(300_000);
            let path = disk.path().join("file");
            let mut file = File::create(&path).unwrap();
            file.write_all(&bytes[..100_000]).unwrap();
            file.sync_all().unwrap();
            file.write_all(&bytes[100_000..]).unwrap();
            drop(file);
            disk.freeze();
            disk.cut();
            let kept = fs::read(&path).unwrap();
            assert!(kept.len() >= 100_000 && kept.len() <= 300_000);
            assert_eq!(kept[..100_000], bytes[..100_000]);
            partly += usize::from(kept != bytes);
        }
        assert!(partly > 10, "the power cut loses nothing");
    });
}

#[test]
fn names_are_lost_unless_their_directory_was_synced() {
    within(120, || {
        let mut lost = 0;
        for seed in 0..20 {
            let mut disk = PowerCutDisk::new(seed, SyncedBy::ItsDirectory);
            let dir = disk.directory("dir");
            File::open(disk.path()).unwrap().sync_all().unwrap();
            fs::write(dir.join("old"), "old").unwrap();
            File::open(dir.join("old")).unwrap().sync_all().unwrap();
            File::open(&dir).unwrap().sync_all().unwrap();
            let new = File::create(dir.join("new")).unwrap();
            new.sync_all().unwrap();
            drop(new);
            fs::write(dir.join("old~"), "newer").unwrap();
            File::open(dir.join("old~")).unwrap().sync_all().unwrap();
            fs::rename(dir.join("old~"), dir.join("old")).unwrap();
            disk.cut();
            let kept = fs::read_to_string(dir.join("old")).unwrap();
            assert!(kept == "old" || kept == "newer", "{kept:?}");
            lost += usize::from(!dir.join("new").exists());
        }
        assert!(lost > 0, "{lost}");
    });
}

#[test]
fn it_is_an_ordinary_file_system_as_long_as_the_power_is_on() {
    within(120, || {
        let disk = PowerCutDisk::new(1, SyncedBy::AnyFsync);
        sh(
            disk.path(),
            60,
            "mkdir -p a/b && echo one >a/b/f && echo two >>a/b/f && mv a/b/f a/g && grep -q two a/g
             truncate -s 1000000 a/g && truncate -s 4 a/g && [ \"$(cat a/g)\" = one ]
             fallocate -l 268435456 big && [ \"$(stat -c %s big)\" = 268435456 ]
             dd if=/dev/urandom of=r bs=64k count=100 status=none && cp r s && cmp r s
             dd if=r of=s bs=5000 seek=3 count=1 conv=notrunc status=none
             flock r true && ls -la >/dev/null && df . >/dev/null
             rm -r a && ! rmdir /nowhere 2>/dev/null && [ ! -e a ]",
        );
        let open = File::options().read(true).write(true).open(disk.path().join("r")).unwrap();
        fs::remove_file(disk.path().join("r")).unwrap();
        open.write_all_at(b"still here", 10).unwrap();
        let mut bytes = [0; 10];
        open.read_exact_at(&mut bytes, 10).unwrap();
        assert_eq!(&bytes, b"still here");
    });
}

#[test]
fn faults_come_when_they_were_asked_for() {
    within(60, || {
        let disk = PowerCutDisk::new(1, SyncedBy::AnyFsync);
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(disk.path().join("f"))
            .unwrap();
        disk.plan(Fault { step: Step::Write, after: 1, times: 1, errno: libc::EIO });
        file.write_all(b"fine").unwrap();
        assert_eq!(file.write(b"not").unwrap_err().raw_os_error(), Some(libc::EIO));
        file.write_all(b" again").unwrap();
        disk.plan(Fault { step: Step::Sync, after: 0, times: 1, errno: libc::EIO });
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        disk.longest_write(1000);
        assert!(file.write(&[1; 4000]).unwrap() <= 1000);
        disk.heal();
        disk.capacity(1 << 20);
        let full = file.write_all(&[1; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(disk.hits(), 2);
        file.rewind().unwrap();
        let mut start = [0; 10];
        file.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"fine again");
    });
}

/// A journal of lines, each synced: after any cut at least the acknowledged lines are there, in order.
#[test]
fn an_append_only_log_keeps_every_acknowledged_line() {
    within(120, || {
        for seed in 0..10 {
            let mut disk = PowerCutDisk::new(seed, SyncedBy::AnyFsync);
            let path = disk.path().join("log");
            let script = format!(
                "exec python3 -u -c '
import os
f = open(\"{}\", \"w\")
n = 0
while True:
    f.write(f\"{{n:08}}\\n\"); f.flush(); os.fsync(f.fileno()); print(n); n += 1
'",
                path.display()
            );
            let mut command = std::process::Command::new("bash");
            command.args(["-c", &script]).stdout(std::process::Stdio::piped());
            let mut child = command.spawn().unwrap();
            let some = |length: u64| move |m: fs::Metadata| m.len() > length;
            let written = || fs::metadata(&path).is_ok_and(some(900 + seed * 100));
            assert!(cairn_tests::wait_for(std::time::Duration::from_secs(20), written));
            disk.freeze();
            child.kill().unwrap();
            disk.abandon();
            child.wait().unwrap();
            disk.cut();
            let mut said = String::new();
            child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            let acknowledged = said.lines().count();
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(acknowledged > 0 && kept.lines().count() >= acknowledged);
            for (n, line) in kept.lines().take(acknowledged).enumerate() {
                assert_eq!(line, format!("{n:08}"));
            }
        }
    });
}
