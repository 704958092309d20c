//! Mount options as fstab has them: what the kernel enforces, what is shown, what is refused.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::Command,
};

use cairn_tests::{Cluster, Mount, mount::detach, try_sh, within};

/// The options of the mount at `path`, as the kernel lists them.
fn kernel_options(path: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == path.to_str()).unwrap();
    line.split(' ').nth(5).unwrap().to_owned()
}

#[test]
fn the_kernel_enforces_what_was_asked() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let options = kernel_options(mount.path());
        assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
        assert!(!options.contains("noexec"), "{options}");
        let script = mount.join("script");
        fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new(&script).status().unwrap().success());
        mount.unmount();
        let master = cluster.master_address();
        let list = "ro,suid,dev,noexec,noatime,_netdev,nofail,x-systemd.automount,defaults";
        let mount = Mount::new(&master, &["-o", list]);
        let options = kernel_options(mount.path());
        for (word, wanted) in [("ro", true), ("noexec", true), ("nosuid", false), ("nodev", false)]
        {
            assert_eq!(options.split(',').any(|o| o == word), wanted, "{word} in {options}");
        }
        let refused = Command::new(mount.join("script")).status().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        let refused = fs::write(mount.join("new"), "x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        mount.unmount();
    });
}

#[test]
fn owner_and_mode_are_shown_but_not_stored() {
    within(120, || {
        let cluster = Cluster::new();
        let real = cluster.mount();
        fs::create_dir(real.join("d")).unwrap();
        fs::write(real.join("d/f"), "x").unwrap();
        fs::set_permissions(real.join("d/f"), fs::Permissions::from_mode(0o4640)).unwrap();
        let master = cluster.master_address();
        let shown = Mount::new(&master, &["-o", "uid=1234,gid=2345,umask=027"]);
        let check = |path: &Path, mode: u32| {
            let meta = fs::metadata(path).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1234, 2345), "{}", path.display());
            assert_eq!(meta.mode(), mode, "{}: {:o}", path.display(), meta.mode());
        };
        check(shown.path(), libc::S_IFDIR | 0o750);
        // A listing brings attributes of its own.
        assert_eq!(fs::read_dir(shown.join("d")).unwrap().count(), 1);
        check(&shown.join("d/f"), libc::S_IFREG | 0o750);
        fs::write(shown.join("new"), "y").unwrap();
        check(&shown.join("new"), libc::S_IFREG | 0o750);
        // What chown and chmod ask for is stored, and shown where nothing else is to be shown.
        chown(shown.join("new"), Some(77), Some(88)).unwrap();
        fs::set_permissions(shown.join("new"), fs::Permissions::from_mode(0o604)).unwrap();
        check(&shown.join("new"), libc::S_IFREG | 0o750);
        shown.unmount();
        real.unmount();
        let real = cluster.mount();
        let meta = fs::metadata(real.join("new")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (77, 88, 0o604));
        let meta = fs::metadata(real.join("d/f")).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o4640));
    });
}

#[test]
fn unknown_options_are_refused_with_a_sentence() {
    within(60, || {
        let cluster = Cluster::new();
        let dir = cluster.place().join("mnt");
        fs::create_dir(&dir).unwrap();
        let path = dir.to_str().unwrap();
        for (options, wanted) in [
            ("ro,frobnicate", "unknown mount option `frobnicate`"),
            ("umask", "mount option `umask` lacks its value"),
            ("remount,ro", "unmount it"),
        ] {
            let ran = cluster.cairn(30, &["mount", path, "-o", options]);
            detach(&dir);
            assert_eq!(ran.code(), Some(2), "{ran}");
            assert!(ran.stderr.contains(wanted) && ran.stderr.lines().count() == 1, "{ran}");
        }
    });
}

#[test]
fn only_root_may_have_suid() {
    within(60, || {
        let cluster = Cluster::new();
        let dir = cluster.place().join("mnt");
        let script = format!(
            "install -d -o nobody -m 777 {dir}; chmod 755 {place}; install -m 755 {cairn} {place}/cairn
             setpriv --reuid 65534 --regid 65534 --clear-groups {place}/cairn mount {dir} -o suid --master {master}",
            dir = dir.display(),
            place = cluster.place().display(),
            cairn = cairn_tests::binaries::cairn().display(),
            master = cluster.master_address(),
        );
        let ran = try_sh(cluster.place(), 40, &script);
        detach(&dir);
        assert!(!ran.ok() && ran.stderr.contains("only root may mount with suid"), "{ran}");
    });
}
