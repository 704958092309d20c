//! `cairn fsck --repair`: rows are damaged while the master is down, found when it is up again, and mended
//! while programs work.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use cairn_master::{
    engine::{
        Batch, Engine as _, Reader as _,
        fjall::{FjallEngine, Options},
    },
    tables::{
        keys::{self, Mark},
        rows::{CountersRow, DentryRow, InodeRow},
    },
};
use cairn_tests::{Cluster, Rng, within};
use prost::Message as _;
use serde_json::Value;

const ROOT: u64 = 1;

fn row<M: prost::Message + Default>(engine: &FjallEngine, key: &Bytes) -> M {
    M::decode(engine.get(key).unwrap().expect("the row is there")).unwrap()
}

/// Takes names away, adds wrong ones, and lets counts be wrong. The number of the directory that lost
/// its name.
fn damage(cluster: &Cluster) -> u64 {
    let meta = cluster.master_data().join("meta");
    let engine = FjallEngine::open(&meta, Options::default()).unwrap();
    let lost: DentryRow = row(&engine, &keys::dentry(ROOT, b"lost"));
    let kept: DentryRow = row(&engine, &keys::dentry(ROOT, b"kept"));
    let mut file: InodeRow = row(&engine, &keys::inode(kept.ino));
    file.nlink = 1;
    file.allocated += 4711;
    let nowhere = DentryRow { ino: 60_000, kind: libc::S_IFREG, cookie: 40_000 };
    let wrong = CountersRow { files: 1000, directories: 1000, ..CountersRow::default() };
    let mut writes = Batch::default().writes;
    writes.insert(keys::dentry(ROOT, b"lost"), None);
    writes.insert(keys::inode(kept.ino), Some(file.encode_to_vec().into()));
    writes.insert(keys::dentry(ROOT, b"nowhere"), Some(nowhere.encode_to_vec().into()));
    writes.insert(keys::counters(), Some(wrong.encode_to_vec().into()));
    writes.insert(keys::xattr(60_001, b"user.left"), Some(Bytes::from_static(b"x")));
    let epoch = engine.get(&keys::mark(Mark::Incarnation)).unwrap().unwrap();
    let epoch = u64::from_be_bytes(epoch.as_ref().try_into().unwrap());
    engine.commit(Batch { writes }, epoch).unwrap();
    engine.sync().unwrap();
    lost.ino
}

fn fsck(cluster: &Cluster, more: &[&str], code: i32) -> Value {
    let ran = cluster.cairn(100, &[&["fsck", "--json"], more].concat());
    assert_eq!(ran.code(), Some(code), "{ran}");
    serde_json::from_str(&ran.stdout).unwrap()
}

fn len(report: &Value, field: &str) -> usize {
    report[field].as_array().unwrap().len()
}

#[test]
fn damage_is_found_and_mended_while_the_master_serves() {
    within(200, || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount();
        let bytes = Rng::of_run("repair").bytes(9_000_000);
        fs::create_dir_all(mount.join("lost/below")).unwrap();
        fs::write(mount.join("lost/below/file"), &bytes).unwrap();
        fs::write(mount.join("kept"), &bytes).unwrap();
        fs::hard_link(mount.join("kept"), mount.join("second")).unwrap();
        mount.unmount();
        cluster.stop_all();
        let lost = damage(&cluster);
        cluster.start_all();

        let found = fsck(&cluster, &[], 1);
        assert!(len(&found, "findings") >= 5, "{found}");
        assert_eq!((&found["ok"], len(&found, "repaired")), (&false.into(), 0), "{found}");
        let again = fsck(&cluster, &[], 1);
        assert_eq!(found["findings"], again["findings"], "a check changes nothing");

        let mount = cluster.mount();
        let stop = AtomicBool::new(false);
        let repaired = std::thread::scope(|scope| {
            let (stop, root) = (&stop, mount.path());
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let path = root.join(format!("busy{}", n % 7));
                    fs::write(&path, b"busy").unwrap();
                    fs::rename(&path, root.join("busy")).unwrap();
                    fs::remove_file(root.join("busy")).unwrap();
                }
            });
            let repaired = fsck(&cluster, &["--repair"], 0);
            stop.store(true, Ordering::Release);
            repaired
        });
        assert!(len(&repaired, "repaired") >= 5, "{repaired}");
        assert_eq!((&repaired["ok"], len(&repaired, "findings")), (&true.into(), 0), "{repaired}");
        for thing in repaired["repaired"].as_array().unwrap() {
            assert!(thing["what"].is_string() && thing["done"].is_string(), "{thing}");
        }
        let clean = fsck(&cluster, &["--repair"], 0);
        assert_eq!(len(&clean, "repaired"), 0, "{clean}");

        assert_eq!(fs::symlink_metadata(mount.join("kept")).unwrap().nlink(), 2);
        assert!(fs::read(mount.join("second")).unwrap() == bytes);
        let back = mount.join(format!("lost+found/#{lost}"));
        assert!(fs::read(back.join("below/file")).unwrap() == bytes);
        fs::rename(&back, mount.join("lost")).unwrap();
        fs::remove_dir(mount.join("lost+found")).unwrap();
        let names: Vec<_> = fs::read_dir(mount.path()).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        cluster.assert_sound();
    });
}
