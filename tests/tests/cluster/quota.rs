//! Quotas of directories: what they count, what they refuse, and that both are exact whatever happens.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use cairn_master::failpoints as points;
use cairn_tests::{
    Cluster, Layout, Rng, command::Ran, rng::scale, sh, tree_random, tree_random::Shape, wait_for,
    within,
};
use serde_json::Value;

const MIB: usize = 1 << 20;

fn set(cluster: &Cluster, arguments: &[&str]) -> Ran {
    cluster.cairn(60, &[&["quota", "set"], arguments].concat())
}

/// (bytes, inodes) that count in the quota of a directory.
fn usage(cluster: &Cluster, path: &str) -> (u64, u64) {
    let ran = cluster.cairn(20, &["quota", "show", path, "--json"]);
    assert!(ran.ok(), "{ran}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let quota = &report["quotas"][0];
    (quota["bytes"].as_u64().unwrap(), quota["inodes"].as_u64().unwrap())
}

/// What is below `path` by stat(2): bytes of blocks of files, and inodes.
fn counted(path: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 1);
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.path().symlink_metadata().unwrap();
        if metadata.is_dir() {
            let (b, i) = counted(&entry.path());
            (bytes, inodes) = (bytes + b, inodes + i);
        } else {
            inodes += 1;
        }
    }
    bytes += fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path().symlink_metadata().unwrap())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum::<u64>();
    (bytes, inodes)
}

fn errno<T>(result: io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

/// Writes and syncs; the first error of any of it.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[test]
fn what_is_over_a_quota_is_refused_and_harms_nothing_else() {
    within(90, || {
        let cluster = Cluster::new();
        let mut rng = Rng::of_run("quota");
        let mount = cluster.mount();
        let directory = mount.join("d");
        fs::create_dir(&directory).unwrap();
        assert!(set(&cluster, &["d", "--bytes", "3MiB", "--inodes", "6"]).ok());
        let small = rng.bytes(2 * MIB);
        write(&directory.join("a"), &small).unwrap();
        let much = rng.bytes(2 * MIB);
        assert_eq!(errno(write(&directory.join("b"), &much)), libc::EDQUOT);
        let beside = rng.bytes(5 * MIB);
        write(&mount.join("beside"), &beside).unwrap();
        assert!(fs::read(directory.join("a")).unwrap() == small);
        assert!(fs::read(mount.join("beside")).unwrap() == beside);
        let clone = directory.join("clone");
        let copied = sh_code(
            &cluster,
            &format!(
                "cp --reflink=auto '{}' '{}' && sync '{}'",
                mount.join("beside").display(),
                clone.display(),
                clone.display()
            ),
        );
        assert_ne!(copied, Some(0), "a shared chunk counts as well");
        let shown =
            sh(cluster.place(), 10, &format!("df -B1 --output=size '{}'", directory.display()));
        assert_eq!(shown.split_whitespace().last(), Some("3145728"), "{shown}");

        for gone in ["b", "clone"] {
            let _ = fs::remove_file(directory.join(gone));
        }
        // The kernel tells of the end of a handle some time after its close.
        let released =
            wait_for(Duration::from_secs(20), || usage(&cluster, "d") == (2 * MIB as u64, 2));
        assert!(released, "{:?}", usage(&cluster, "d"));
        fs::create_dir(directory.join("sub")).unwrap();
        std::os::unix::fs::symlink("x", directory.join("sub/link")).unwrap();
        File::create(directory.join("sub/1")).unwrap();
        File::create(directory.join("sub/2")).unwrap();
        assert_eq!(errno(File::create(directory.join("sub/3"))), libc::EDQUOT);
        assert_eq!(errno(fs::create_dir(directory.join("sub/3"))), libc::EDQUOT);
        assert!(set(&cluster, &["d", "--inodes", "0"]).ok());
        File::create(directory.join("sub/3")).unwrap();
        assert_eq!(usage(&cluster, "d").1, 7);
        assert!(set(&cluster, &["d", "--bytes", "8MiB"]).ok());
        write(&directory.join("b"), &much).unwrap();
        assert!(fs::read(directory.join("b")).unwrap() == much);
        assert!(cluster.cairn(20, &["quota", "remove", "d"]).ok());
        write(&directory.join("c"), &rng.bytes(9 * MIB)).unwrap();
        assert!(cluster.cairn(20, &["quota", "list"]).stdout.contains("no directory has a quota"));
        mount.unmount();
        cluster.assert_sound();
    });
}

fn sh_code(cluster: &Cluster, script: &str) -> Option<i32> {
    cairn_tests::command::try_sh(cluster.place(), 30, script).code()
}

#[test]
fn names_that_cross_the_border_of_a_quota_take_their_usage_along_or_are_refused() {
    within(60, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        for directory in ["a", "a/in", "b", "a/deep", "a/deep/er"] {
            fs::create_dir(mount.join(directory)).unwrap();
        }
        for path in ["a", "b", "a/deep"] {
            assert!(set(&cluster, &[path, "--bytes", "1MiB", "--inodes", "20"]).ok());
        }
        let bytes = Rng::of_run("border").bytes(300_000);
        write(&mount.join("a/deep/f"), &bytes).unwrap();
        assert_eq!((usage(&cluster, "a"), usage(&cluster, "a/deep")), ((300_000, 5), (300_000, 3)));
        fs::rename(mount.join("a/deep/f"), mount.join("a/f")).unwrap();
        assert_eq!((usage(&cluster, "a"), usage(&cluster, "a/deep")), ((300_000, 5), (0, 2)));
        fs::rename(mount.join("a/f"), mount.join("b/f")).unwrap();
        assert_eq!((usage(&cluster, "a"), usage(&cluster, "b")), ((0, 4), (300_000, 2)));
        assert_eq!(errno(fs::hard_link(mount.join("b/f"), mount.join("a/f"))), libc::EXDEV);
        assert_eq!(errno(fs::rename(mount.join("a/in"), mount.join("b/in"))), libc::EXDEV);
        assert_eq!(errno(fs::rename(mount.join("a/deep/er"), mount.join("a/er"))), libc::EXDEV);
        fs::rename(mount.join("a/in"), mount.join("a/out")).unwrap();
        fs::rename(mount.join("a/deep"), mount.join("a/out/deep")).unwrap();
        assert_eq!(errno(fs::rename(mount.join("a/out/deep"), mount.join("deep"))), libc::EXDEV);
        sh(mount.path(), 20, "mv a/out b/out");
        assert!(set(&cluster, &["a", "--inodes", "1"]).ok());
        assert_eq!(errno(fs::rename(mount.join("b/f"), mount.join("a/f"))), libc::EDQUOT);
        let before = fs::metadata(mount.join("b/f")).unwrap().ino();
        fs::hard_link(mount.join("b/f"), mount.join("b/g")).unwrap();
        assert_eq!(fs::metadata(mount.join("b/g")).unwrap().ino(), before);
        assert_eq!(errno(fs::rename(mount.join("b/g"), mount.join("g"))), libc::EXDEV);
        fs::remove_file(mount.join("b/f")).unwrap();
        fs::rename(mount.join("b/g"), mount.join("g")).unwrap();
        mount.unmount();
        cluster.assert_sound();
    });
}

/// Programs work in a directory while it gets a quota, loses it, and gets one again.
#[test]
fn a_quota_that_is_set_later_counts_what_was_there_and_what_comes_meanwhile() {
    within(120, || {
        let cluster = Cluster::new();
        let mut rng = Rng::of_run("quota later");
        let mount = cluster.mount();
        let tree = mount.join("tree");
        tree_random::make(&tree, Shape { files: 150, ..Shape::default() }, &mut rng);
        fs::create_dir(tree.join("busy")).unwrap();
        let busy = tree.join("busy");
        let worker = std::thread::spawn(move || {
            for n in 0..300 * scale() {
                let name = busy.join(format!("{n}"));
                fs::write(&name, format!("number {n}")).unwrap();
                match n % 4 {
                    0 => fs::remove_file(&name).unwrap(),
                    1 => fs::rename(&name, busy.join(format!("../moved{n}"))).unwrap(),
                    2 => fs::create_dir(busy.join(format!("d{n}"))).unwrap(),
                    _ => {}
                }
            }
        });
        for round in 0..4 {
            assert!(set(&cluster, &["tree", "--bytes", "1GiB"]).ok());
            if round % 2 == 1 {
                let ran = cluster.cairn(60, &["quota", "remove", "tree"]);
                assert!(ran.ok(), "{ran}");
            }
        }
        worker.join().unwrap();
        assert!(set(&cluster, &["tree", "--bytes", "1GiB"]).ok());
        let (_, inodes) = usage(&cluster, "tree");
        sh(cluster.place(), 20, &format!("sync -f '{}'", tree.display()));
        cluster.assert_fsck_clean();
        let links = sh(&tree, 20, "find . -printf '%i\\n' | sort -u | wc -l");
        assert_eq!(inodes.to_string(), links.trim());
        fs::remove_dir_all(&tree).unwrap();
        let gone = || cluster.cairn(20, &["quota", "list"]).stdout.contains("no directory");
        assert!(wait_for(Duration::from_secs(60), gone));
        mount.unmount();
        cluster.assert_sound();
    });
}

#[test]
fn a_master_that_dies_while_it_counts_goes_on_and_counts_nothing_twice() {
    within(120, || {
        let mut cluster = Cluster::with(Layout { failpoints: true, ..Layout::default() });
        let mount = cluster.mount();
        let tree = mount.join("tree");
        for n in 0..12 {
            fs::create_dir_all(tree.join(format!("{n}/sub"))).unwrap();
            for m in 0..30 {
                fs::write(tree.join(format!("{n}/sub/{m}")), format!("{n} {m}")).unwrap();
            }
        }
        cluster.kill_master();
        let spec = format!("{}=exit@9", points::QUOTA_STEP);
        cluster.start_master_with(&[("CAIRN_FAILPOINTS", &spec)]);
        cluster.wait_healthy();
        drop(set(&cluster, &["tree", "--inodes", "1000"]));
        let dead = || !cluster.master().is_running();
        assert!(wait_for(Duration::from_secs(30), dead), "it counted in fewer steps");
        cluster.kill_master();
        cluster.start_master();
        cluster.wait_healthy();
        let expected = counted(&tree);
        let settled = || {
            let ran = cluster.cairn(20, &["quota", "list", "--json"]);
            ran.ok() && ran.stdout.contains("\"counting\": false")
        };
        assert!(wait_for(Duration::from_secs(60), settled));
        assert_eq!(usage(&cluster, "tree"), expected);
        mount.unmount();
        cluster.assert_sound();
    });
}
