//! The published file system exerciser, `fsx`: reads, writes, mappings, truncations, holes, copies
//! within the file, sync and reopening in random order, every byte compared with what it must be.
//!
//! `CAIRN_SUITES_BIN_DIR` names the directory that the program is in. `CAIRN_FSX_OPERATIONS` says how
//! many operations each run has (20,000 times `CAIRN_TEST_SCALE` otherwise), `CAIRN_FSX_SEED` fixes
//! the seed of each run; a failure prints it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use cairn_tests::{Cluster, Rng, command::run, rng::scale, wait_for, within};

/// A run is ended after this long, whatever the number of operations.
const LONGEST: Duration = Duration::from_secs(4 * 3600);
/// Operations of one run. The program never unmaps what it has mapped to read (0.3.2): a file's
/// mappings slow its truncations down, and the kernel allows a process 65,530 of them.
const OPERATIONS_OF_A_RUN: u64 = 100_000;
/// Chunks that the smallest settings leave room for: four to read again, a few to be written.
const LITTLE_MEMORY: [&str; 4] = ["--cache-size", "256KiB", "--dirty-size", "256KiB"];

/// How large the file gets, and a single operation at most.
#[derive(Clone, Copy)]
struct Sizes {
    file: u64,
    operation: u64,
}

/// A few chunks: every operation meets what the last ones did.
const SMALL: Sizes = Sizes { file: 256 << 10, operation: 64 << 10 };
/// Many chunks.
const MIDDLE: Sizes = Sizes { file: 2 << 20, operation: 256 << 10 };
/// Over the border between two segments of the manifest, with operations longer than a request.
const LARGE: Sizes = Sizes { file: 16 << 20, operation: 1_500_000 };

fn program() -> PathBuf {
    let directory = env::var_os("CAIRN_SUITES_BIN_DIR").map(PathBuf::from).unwrap_or_default();
    let program = directory.join("fsx");
    assert!(
        program.is_file(),
        "there is no {}: `cargo install fsx@0.3.2 --root DIR`, then CAIRN_SUITES_BIN_DIR=DIR/bin",
        program.display()
    );
    program
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().and_then(|value| value.parse().ok())
}

fn operations() -> u64 {
    number("CAIRN_FSX_OPERATIONS").unwrap_or_else(|| 20_000 * scale())
}

fn settings(sizes: Sizes) -> String {
    format!(
        "flen = {}\n[opsize]\nmin = 1\nmax = {}\n[weights]\nclose_open = 1\nread = 10\nwrite = 10\n\
         mapread = 10\nmapwrite = 10\ninvalidate = 1\ntruncate = 3\nfsync = 1\nfdatasync = 1\n\
         posix_fallocate = 2\npunch_hole = 4\nsendfile = 4\nposix_fadvise = 2\ncopy_file_range = 6\n",
        sizes.file, sizes.operation
    )
}

/// Runs in `mounted`, one after the other, each with a seed of its own, until they come to `operations`.
fn exercise(place: &Path, mounted: &Path, sizes: Sizes, operations: u64, rng: &mut Rng) {
    let mut left = operations;
    while left > 0 {
        let some = left.min(OPERATIONS_OF_A_RUN);
        run_once(place, mounted, sizes, some, rng);
        left -= some;
    }
}

/// One run; its settings and what it leaves behind after a failure lie in `place`.
fn run_once(place: &Path, mounted: &Path, sizes: Sizes, operations: u64, rng: &mut Rng) {
    let seed = number("CAIRN_FSX_SEED").unwrap_or_else(|| rng.below(1 << 32));
    let config = place.join(format!("fsx-{seed}.toml"));
    fs::write(&config, settings(sizes)).unwrap();
    let mut command = Command::new(program());
    command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
    command.arg("-f").arg(&config).arg("-P").arg(place);
    command.arg(mounted.join(format!("fsx-{seed}")));
    let ran = run(command, LONGEST);
    assert!(
        ran.ok(),
        "fsx failed with files of {} bytes, operations of {}: CAIRN_FSX_SEED={seed} \
         CAIRN_FSX_OPERATIONS={operations} repeats it\n{ran}",
        sizes.file,
        sizes.operation
    );
}

fn exercise_each(options: &[&str], sizes: &'static [Sizes]) {
    let options: Vec<String> = options.iter().copied().map(str::to_owned).collect();
    within(LONGEST.as_secs(), move || {
        let cluster = Cluster::new();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mount = cluster.mount_with(&options);
        let mut rng = Rng::of_run("fsx");
        for sizes in sizes {
            // The larger the file, the longer each operation.
            let operations = operations() / if sizes.file > MIDDLE.file { 4 } else { 1 };
            exercise(cluster.place(), mount.path(), *sizes, operations, &mut rng);
        }
        drop(mount);
        cluster.assert_fsck_clean();
    });
}

#[test]
fn one_mount() {
    exercise_each(&[], &[SMALL, MIDDLE, LARGE]);
}

#[test]
fn with_a_cache_of_a_few_chunks_and_little_memory() {
    exercise_each(&LITTLE_MEMORY, &[SMALL, MIDDLE]);
}

#[test]
fn with_a_disk_cache_and_little_memory() {
    let place = cairn_tests::scratch("cache");
    let dir = place.path().join("cache").to_str().unwrap().to_owned();
    // Room for 64 chunks: fewer than there are.
    let cache = ["--cache-dir", &dir, "--cache-dir-size", "4MiB"];
    exercise_each(&[&LITTLE_MEMORY[..], &cache].concat(), &[SMALL, MIDDLE]);
}

#[test]
fn while_a_storage_node_is_killed_and_restarted() {
    within(LONGEST.as_secs(), || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount_with(&LITTLE_MEMORY);
        let mut rng = Rng::of_run("fsx");
        let mut killing = rng.clone();
        let (place, path) = (cluster.place().to_owned(), mount.path().to_owned());
        let mut kills = 0;
        thread::scope(|scope| {
            let running = scope.spawn(|| {
                exercise(&place, &path, MIDDLE, operations() / 4, &mut rng);
            });
            // Always the same one: what was written meanwhile is on the other only.
            while !running.is_finished() {
                cluster.kill_node(1);
                wait_for(Duration::from_millis(killing.below(1500)), || running.is_finished());
                cluster.start_node(1);
                cluster.wait_healthy();
                kills += 1;
            }
            running.join().unwrap();
        });
        assert!(kills > 1, "the node was killed {kills} times");
        drop(mount);
        cluster.assert_fsck_clean();
    });
}
