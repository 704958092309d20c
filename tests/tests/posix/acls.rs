//! Access control lists and extended attributes: what `setfacl`, `getfacl`, `setfattr`, `getfattr`, `tar`
//! and `cp` see on a mount is what they see on the local disk.

use std::fs;

use cairn_tests::{Cluster, Layout, scrape, scrape::Scrape, sh, try_sh, within};

use crate::local_disk::same_as_local;

/// Lists are set, changed, inherited and removed, and users come and look. `as_user U G CMD...` runs as
/// user U with group G only, `in_group` also with supplementary group 60.
const LISTS: &str = r#"
    exec 2>&1; set +e
    as_user() { u=$1 g=$2; shift 2; setpriv --reuid $u --regid $g --clear-groups "$@" || true; }
    in_group() { setpriv --reuid 1 --regid 1 --groups 60 "$@" || true; }
    umask 022
    mkdir d; chmod 755 .
    setfacl -m u:daemon:rwx,g:60:r-x,d:u:daemon:rwx,d:g::r-x d; getfacl -c d
    (umask 077; touch d/f; mkdir d/s; mkfifo d/p; ln -s f d/l; : > d/s/deep; cp /bin/true d/exe)
    stat -c '%A %n' d d/* d/s/*; getfacl -c d/f d/s d/p d/s/deep d/exe
    chmod 700 d/f; getfacl -c d/f; chmod 2770 d/s; getfacl -c d/s; chmod g-w d; getfacl -c d
    setfacl -m m::rwx d; stat -c %A d; setfacl -m o::--- d; stat -c %A d
    setfacl -n -m u:bin:rw d/f; getfacl -c d/f; setfacl -x u:daemon d/f; getfacl -c d/f
    setfacl -b d/f; stat -c %A d/f; getfacl -c d/f; setfacl -k d; getfacl -c d; setfacl -k d; setfacl -b d
    touch d/none; stat -c %A d/none
    echo == who may
    mkdir p; chmod 711 p; echo hi > p/x; chmod 600 p/x; setfacl -m u:daemon:r,g:60:rw p/x
    as_user 1 1 cat p/x; as_user 2 2 cat p/x; as_user 1 1 sh -c 'echo no >> p/x'
    as_user 3 60 sh -c 'echo yes >> p/x'; in_group cat p/x
    setfacl -m m::r p/x; as_user 3 60 sh -c 'echo no >> p/x'
    setfacl -b p/x; as_user 1 1 cat p/x; as_user 3 60 cat p/x
    chmod 700 p; setfacl -m u:daemon:--x p; chmod 644 p/x; as_user 1 1 cat p/x; as_user 1 1 ls p; as_user 2 2 cat p/x
    setfacl -m u:daemon:rwx p; as_user 1 1 touch p/made; as_user 1 1 setfacl -m u:bin:r p/x; stat -c '%U %A' p/*
    echo == set-group-id
    for owner in 1:2 1:1 1:60; do
      : > p/g; chown $owner p/g; chmod 2755 p/g
      as_user 1 1 setfacl -m u:bin:r p/g; stat -c '%a %u %g' p/g
      chmod 2755 p/g; in_group setfacl -m g::r p/g; stat -c '%a %u %g' p/g; rm p/g
    done
    : > p/g; chown 1:2 p/g; chmod 2755 p/g; setfacl -m u:bin:r p/g; stat -c %a p/g
    echo == refused
    setfacl -m d:u:daemon:r p/x; setfacl -m u:daemon:r d/l; getfacl -c d/l
    setfacl -m u:daemon:rwx,u:bin:rwx --mask p/x; getfacl -cn p/x; getfattr -m- p/x | sort
"#;

/// Attributes of all namespaces, their limits, and who sees them.
const ATTRIBUTES: &str = r#"
    exec 2>&1
    f() { echo "-- $*"; "$@" || true; }
    umask 022; : > f; mkdir d; ln -s f l; mkfifo p; mknod c c 1 3; chmod 777 .
    for n in user.a trusted.b security.c; do f setfattr -n $n -v "value of $n" f d; f setfattr -n $n -v x p; f setfattr -h -n $n -v x l; f setfattr -n $n -v x c; done
    for n in system.x foo.bar user. trusted. foo btrfs.x User.x; do f setfattr -n $n -v x f; f getfattr -n $n f; done
    f getfattr -h -d -m- f d l p c
    setpriv --reuid 1 --regid 1 --clear-groups getfattr -d -m- f d || true
    f setpriv --reuid 1 --regid 1 --clear-groups setfattr -n user.mine -v x f
    f setpriv --reuid 1 --regid 1 --clear-groups setfattr -n trusted.mine -v x f
    f setpriv --reuid 1 --regid 1 --clear-groups getfattr -n trusted.b f
    f getfattr -n user.none f; f setfattr -x user.none f; f setfattr -x user.a f; f getfattr -n user.a f
    f setfattr -n user.empty f; f getfattr -d f
    chmod 1777 d; f setpriv --reuid 1 --regid 1 --clear-groups setfattr -n user.sticky -v x d
    setfattr -n user.$(printf 'n%.0s' {1..250}) -v x f && echo name of 255
    f setfattr -n user.$(printf 'n%.0s' {1..251}) -v x f
    for n in 1 2; do setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 f; f getfattr -e hex -n security.capability f
    [ $n = 1 ] && echo x >> f || chown 1 f; getfattr -m- f | grep -c capability || true; done
"#;

#[test]
fn access_control_lists_are_those_of_the_local_disk() {
    same_as_local(&["bash", "-e", "-u", "-o", "pipefail", "-c", LISTS], 100);
}

#[test]
fn extended_attributes_are_those_of_the_local_disk() {
    same_as_local(&["bash", "-e", "-u", "-o", "pipefail", "-c", ATTRIBUTES], 80);
}

#[test]
fn lists_and_attributes_come_through_tar_cp_upload_and_download() {
    within(200, || {
        let mut cluster = Cluster::new();
        let source = cluster.place().join("source");
        fs::create_dir(&source).unwrap();
        let make = r#"
            umask 022; mkdir -p a/b c; for i in 1 2 3; do echo $i > a/f$i; echo $i > a/b/g$i; done
            ln -s f1 a/link; mkfifo c/p
            setfacl -m u:daemon:rwx,g:60:r,d:u:bin:rw,d:m::rx a a/b; setfacl -m u:bin:rw a/f1 a/b/g2; chmod 640 a/f1
            setfattr -n user.one -v 1 a a/f2; setfattr -n trusted.two -v 2 a/f2 c; setfattr -n security.three -v 3 a/b/g1
            setfattr -n user.big -v "$(head -c 3000 /dev/urandom | base64 -w0)" a/f3
        "#;
        sh(&source, 30, make);
        let mount = cluster.mount();
        let copy = format!(
            "cp -a '{0}' cp && tar -C '{0}' --acls --xattrs --xattrs-include='*' -cf in.tar . &&
             mkdir tar && tar -C tar --acls --xattrs --xattrs-include='*' -xpf in.tar &&
             cp -a tar again",
            source.display()
        );
        sh(mount.path(), 60, &copy);
        // Into a directory whose default list copies shall not have.
        sh(mount.path(), 60, "mkdir up && setfacl -m u:games:rwx,d:u:games:rwx up");
        let up = cluster.cairn(60, &["upload", "-r", "source", "--to", "/up"]);
        assert!(up.ok(), "{up}");
        mount.unmount();
        cluster.stop_all();
        cluster.start_all();
        let mount = cluster.mount();
        let show = "find . | sort | xargs getfacl -P && find . | sort | xargs getfattr -h -d -m- &&
            find . -printf '%p %M %n %U:%G %t %s\\n' | grep -v '^. ' | sort";
        let wanted = sh(&source, 60, show);
        for copy in ["cp", "tar", "again", "up/source"] {
            let shown = sh(&mount.join(copy), 60, show);
            assert_eq!(shown, wanted, "{copy}");
        }
        assert!(wanted.contains("default:user:bin:rw-") && wanted.contains("trusted.two"));
        // And back to the local disk.
        let back = format!("cp -a again '{}'", cluster.place().join("back").display());
        sh(mount.path(), 60, &back);
        assert_eq!(sh(&cluster.place().join("back"), 60, show), wanted);
        let down = cluster.cairn(60, &["download", "-r", "/again", "down"]);
        assert!(down.ok(), "{down}");
        let down = cluster.place().join("down");
        let down = if down.join("again").is_dir() { down.join("again") } else { down };
        assert_eq!(sh(&down, 60, show), wanted);
        mount.unmount();
        cluster.assert_fsck_clean();
    });
}

/// The kernel's limits, which the local disk does not reach.
const LIMITS: &str = r#"
import errno, os, struct
def acl(users):
    entries = [(1, 6, -1), *((2, 4, 1000 + n) for n in range(users)), (4, 4, -1), (16, 6, -1), (32, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
def fails(call, code):
    try:
        call()
    except OSError as error:
        assert error.errno == code, error
        return
    raise AssertionError("it worked")
open("f", "w").close()
value = os.urandom(65536)
for name in ["user.big", "trusted.big", "security.big"]:
    os.setxattr("f", name, value)
    assert os.getxattr("f", name) == value
fails(lambda: os.setxattr("f", "user.big", value + b"x"), errno.E2BIG)
os.setxattr("f", "system.posix_acl_access", acl(507))
assert os.getxattr("f", "system.posix_acl_access") == acl(507)
fails(lambda: os.setxattr("f", "system.posix_acl_access", acl(508)), errno.E2BIG)
open("many", "w").close()
names = [f"user.{n:0>250}" for n in range(256)]
for name in names:
    os.setxattr("many", name, b"")
assert sorted(os.listxattr("many")) == names
fails(lambda: os.setxattr("many", "user.one more", b""), errno.ENOSPC)
os.setxattr("many", names[0], b"still")
os.removexattr("many", names[1])
os.setxattr("many", "user.one more", b"")
"#;

#[test]
fn limits_are_those_of_the_kernel() {
    within(100, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        fs::write(cluster.place().join("limits.py"), LIMITS).unwrap();
        let script = format!("python3 '{}'", cluster.place().join("limits.py").display());
        sh(mount.path(), 60, &script);
        // Nothing of it is left when the file is gone.
        sh(mount.path(), 30, "rm f many");
        mount.unmount();
        cluster.assert_fsck_clean();
    });
}

#[test]
fn lists_are_hidden_where_permissions_are_made_up() {
    within(100, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        sh(mount.path(), 30, "umask 022; : > f && setfacl -m u:daemon:- f && chmod 755 .");
        mount.unmount();
        let mount = cluster.mount_with(&["-o", "umask=022"]);
        mount.open_to_everybody();
        let script =
            "setpriv --reuid 1 --regid 1 --clear-groups cat f && getfattr -m- f && getfacl -c f";
        let shown = sh(mount.path(), 30, script);
        assert_eq!(shown.trim(), "user::rwx\ngroup::r-x\nother::r-x");
        mount.unmount();
        let mount = cluster.mount();
        mount.open_to_everybody();
        let ran = try_sh(mount.path(), 30, "setpriv --reuid 1 --regid 1 --clear-groups cat f");
        assert!(!ran.ok() && ran.stderr.contains("Permission denied"), "{ran}");
    });
}

#[test]
fn nobody_is_asked_for_attributes_that_are_not_there() {
    within(100, || {
        let master_args = ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
        let mut cluster = Cluster::with(Layout { master_args, ..Layout::default() });
        let address = scrape::address(cluster.master());
        let asked = || -> f64 {
            let page = Scrape::tcp(address).text;
            let wanted = "cairn_master_operations_total{operation=\"getxattr\"";
            let lines = page.lines().filter(|line| line.starts_with(wanted));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        let mount = cluster.mount();
        mount.open_to_everybody();
        let before = asked();
        // The kernel asks for security.capability before each write, and for lists on each way.
        let script = r#"
            chmod 755 . && mkdir -p a/b && : > a/b/f && setfattr -n user.x -v 1 a/b/f && chmod -R a+rwX a
            for i in $(seq 50); do echo $i >> a/b/f; done
            exec 3<>a/b/f; for i in $(seq 50); do echo $i >&3; done; exec 3>&-
            for i in $(seq 20); do setpriv --reuid 1 --regid 1 --clear-groups sh -c 'cat a/b/f; echo 1 >> a/b/f'; done
            sleep 1.2; for i in $(seq 20); do echo $i >> a/b/f; getfattr -d a/b >&2; done
            setpriv --reuid 1 --regid 1 --clear-groups sh -c 'cat a/b/f; echo 1 >> a/b/f'
        "#;
        sh(mount.path(), 60, script);
        // Some hundred times nothing has to be asked; a machine that is busy may have to now and then.
        assert!(asked() - before < 8.0, "{} questions", asked() - before);
        let before = asked();
        sh(mount.path(), 60, "for i in 1 2 3; do getfattr -n user.x a/b/f; done");
        assert!(asked() - before > 2.5, "the master counts them");
        // What another mount sets is seen once the attributes are a second old.
        let other = cluster.mount();
        sh(other.path(), 60, "setfacl -m u:daemon:- a/b");
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let ran = try_sh(mount.path(), 60, "setpriv --reuid 1 --regid 1 --clear-groups cat a/b/f");
        assert!(!ran.ok() && ran.stderr.contains("Permission denied"), "{ran}");
    });
}
