//! The loops that `scripts/bench.sh` times: many small operations, without a shell between them.
//! Each verb prints one number: operations per second. What it needs is made before its clock starts.

use std::{
    env,
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use cairn_tests::rng::Rng;

const USAGE: &str = "usage: cairn-bench-load VERB PATH COUNT [THREADS]
  create, read, remove   COUNT files of 4 KiB in directories of 100 below PATH; all differ
  mkdir, rename, absent  COUNT directories in PATH; names that are not there
  randread               blocks of 4 KiB of the file PATH, each at most once, COUNT seconds at most
  randwrite-fsync        blocks of 4 KiB of the file PATH, each synced, COUNT seconds
  randwrite              COUNT blocks of 4 KiB of the file PATH, one sync at the end";

const BLOCK: usize = 4096;

type Outcome = Result<f64, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let parsed = match arguments.as_slice() {
        [verb, path, count] => count.parse().ok().map(|count| (verb, path, count, 1)),
        [verb, path, count, threads] => {
            count.parse().ok().zip(threads.parse().ok()).map(|(c, t)| (verb, path, c, t))
        }
        _ => None,
    };
    let Some((verb, path, count, threads)) = parsed else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(verb, Path::new(path), count, threads) {
        Ok(rate) => match writeln!(io::stdout(), "{rate:.4}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            eprintln!("cairn-bench-load {verb} {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: &str, path: &Path, count: usize, threads: usize) -> Outcome {
    match verb {
        "create" => create(path, count, threads.max(1)),
        "read" => timed(count, |i| {
            let mut data = Vec::with_capacity(BLOCK);
            File::open(small(path, i))?.read_to_end(&mut data)?;
            if data == content(i) { Ok(()) } else { Err(io::Error::other("other bytes")) }
        }),
        "remove" => timed(count, |i| fs::remove_file(small(path, i))),
        "mkdir" => timed(count, |i| fs::create_dir(path.join(format!("m{i}")))),
        "rename" => {
            timed(count, |i| fs::rename(path.join(format!("m{i}")), path.join(format!("r{i}"))))
        }
        "absent" => timed(count, |i| match path.join(format!("absent{i}")).symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }),
        "randread" => random_reads(path, count, threads.max(1)),
        "randwrite-fsync" => random_synced_writes(path, count),
        "randwrite" => random_writes(path, count),
        _ => Err(USAGE.into()),
    }
}

fn timed(count: usize, mut operation: impl FnMut(usize) -> io::Result<()>) -> Outcome {
    let began = Instant::now();
    for i in 0..count {
        operation(i)?;
    }
    Ok(rate(count, began))
}

#[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
fn rate(count: usize, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64().max(1e-9)
}

fn small(path: &Path, i: usize) -> PathBuf {
    path.join(format!("d{}", i / 100)).join(format!("f{i}"))
}

/// Every file differs, so that nothing is deduplicated.
fn content(i: usize) -> Vec<u8> {
    let mut rng = Rng::new(i as u64);
    (0..BLOCK / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

fn create(path: &Path, count: usize, threads: usize) -> Outcome {
    for directory in 0..count.div_ceil(100) {
        fs::create_dir_all(path.join(format!("d{directory}")))?;
    }
    let contents: Vec<_> = (0..count).map(content).collect();
    let part = count.div_ceil(threads).max(1);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let parts = contents.chunks(part).enumerate().map(|(k, part_of)| {
            scope.spawn(move || {
                part_of.iter().enumerate().try_for_each(|(i, data)| {
                    File::create_new(small(path, k * part + i))?.write_all(data)
                })
            })
        });
        parts.collect::<Vec<_>>().into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(rate(count, began))
}

/// The blocks of `file` in random order.
fn shuffled(file: &File, rng: &mut Rng) -> io::Result<Vec<u64>> {
    let blocks = file.metadata()?.len() / BLOCK as u64;
    let mut order: Vec<u64> = (0..blocks).collect();
    for i in (1..order.len()).rev() {
        let other = usize::try_from(rng.next_u64() % (i as u64 + 1)).unwrap_or(0);
        order.swap(i, other);
    }
    Ok(order)
}

/// Each thread reads a part of the blocks of its own, so that no block is read twice.
fn random_reads(path: &Path, seconds: usize, threads: usize) -> Outcome {
    let file = File::open(path)?;
    let order = shuffled(&file, &mut Rng::new(7))?;
    let part = order.len().div_ceil(threads).max(1);
    let (limit, began) = (Duration::from_secs(seconds as u64), Instant::now());
    let done = std::thread::scope(|scope| {
        let file = &file;
        let read = move |blocks: &[u64]| -> io::Result<usize> {
            let (mut block, mut done) = ([0; BLOCK], 0);
            for at in blocks.iter().take_while(|_| began.elapsed() < limit) {
                file.read_exact_at(&mut block, at * BLOCK as u64)?;
                done += 1;
            }
            Ok(done)
        };
        let parts = order.chunks(part).map(|blocks| scope.spawn(move || read(blocks)));
        parts.collect::<Vec<_>>().into_iter().try_fold(0, |sum, thread| match thread.join() {
            Ok(done) => done.map(|done| sum + done),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(rate(done, began))
}

fn random_synced_writes(path: &Path, seconds: usize) -> Outcome {
    let file = OpenOptions::new().write(true).open(path)?;
    let mut rng = Rng::new(11);
    let order = shuffled(&file, &mut rng)?;
    let (limit, salt) = (Duration::from_secs(seconds as u64), std::process::id() as usize);
    let (began, mut done) = (Instant::now(), 0);
    for at in order.iter().cycle().take_while(|_| began.elapsed() < limit) {
        file.write_all_at(&content(salt.wrapping_mul(1 << 20).wrapping_add(done)), at * 4096)?;
        file.sync_data()?;
        done += 1;
    }
    Ok(rate(done, began))
}

fn random_writes(path: &Path, count: usize) -> Outcome {
    let file = OpenOptions::new().write(true).open(path)?;
    let mut rng = Rng::new(13);
    let order = shuffled(&file, &mut rng)?;
    let salt = (std::process::id() as usize).wrapping_mul(1 << 20);
    let contents: Vec<_> = (0..count).map(|i| content(salt.wrapping_add(i))).collect();
    let began = Instant::now();
    for (at, data) in order.iter().cycle().zip(&contents) {
        file.write_all_at(data, at * BLOCK as u64)?;
    }
    file.sync_all()?;
    Ok(rate(count, began))
}
