//! Writers against garbage collection: the same contents are written, deleted and written again by
//! everybody while cycles run all the time. Not one chunk that is referred to may go.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cairn_tests::{Cluster, Layout, Rng, inspect, within};

const CONTENTS: u64 = 64;

/// Contents that all writers share: of several chunks, the last of them short.
fn content(n: u64) -> Vec<u8> {
    Rng::new(n).bytes(100_000 + 5_000 * usize::try_from(n).unwrap())
}

fn scale() -> u64 {
    std::env::var("CAIRN_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn check(path: &Path, n: u64) {
    let found = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(found == content(n), "{} is not what was written", path.display());
}

/// Writes, overwrites, renames, reads and deletes for so long; what is left, by name.
fn write(directory: PathBuf, seed: u64, time: Duration) -> BTreeMap<u64, u64> {
    let mut rng = Rng::new(seed);
    let mut files: BTreeMap<u64, u64> = BTreeMap::new();
    let until = Instant::now() + time;
    while Instant::now() < until {
        let (name, n) = (rng.below(24), rng.below(CONTENTS));
        let path = directory.join(name.to_string());
        match rng.below(6) {
            0 => {
                if files.remove(&name).is_some() {
                    fs::remove_file(&path).unwrap();
                }
            }
            1 => {
                if let Some(n) = files.get(&name) {
                    check(&path, *n);
                }
            }
            2 => {
                let temporary = directory.join("new");
                fs::write(&temporary, content(n)).unwrap();
                fs::rename(&temporary, &path).unwrap();
                files.insert(name, n);
            }
            _ => {
                fs::write(&path, content(n)).unwrap();
                files.insert(name, n);
            }
        }
    }
    files
}

#[test]
fn two_writers_of_the_same_contents_lose_nothing_while_garbage_is_collected_all_the_time() {
    let time = Duration::from_secs((12 * scale()).min(600));
    within(time.as_secs() + 200, move || {
        let master_args = ["--gc-interval", "0.5", "--backup-interval", "2"];
        let cluster = Cluster::with(Layout {
            nodes: 3,
            master_args: master_args.map(str::to_owned).into(),
            ..Layout::default()
        });
        let mounts = [cluster.mount(), cluster.mount_with(&["--cache-size", "1M"])];
        let writers: Vec<_> = (1..)
            .zip(&mounts)
            .map(|(seed, mount)| {
                let directory = mount.join(format!("writer{seed}"));
                fs::create_dir(&directory).unwrap();
                std::thread::spawn(move || write(directory, seed, time))
            })
            .collect();
        let left: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let erased = inspect::status(&cluster).unwrap().gc.unwrap().chunks_erased;
        assert!(erased > 0, "nothing was collected: this test shows nothing");
        eprintln!("{erased} copies of chunks were collected meanwhile");
        for mount in mounts {
            mount.unmount();
        }
        let mount = cluster.mount();
        for (seed, files) in (1..).zip(left) {
            for (name, n) in files {
                check(&mount.join(format!("writer{seed}/{name}")), n);
            }
        }
        mount.unmount();
        cluster.assert_sound();
    });
}
