//! How many files a second the namespace creates on the embedded engine, without network: groups of
//! 16, committed but synced only every 100 ms by another thread, as the server does it.
//!
//! `cargo run --release --example create_speed [FILES] [DIRECTORY]`

use std::{
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use cairn_master::{
    clock::SystemClock,
    engine::{
        EngineError,
        fjall::{FjallEngine, Options},
    },
    namespace::{Namespace, Origin, Params},
};
use cairn_proto::pb;

const GROUP: u64 = 16;

fn create(seq: u64, parent: u64) -> pb::Op {
    let create = pb::Create {
        parent,
        name: format!("file{seq}").into(),
        mode: libc::S_IFREG | 0o644,
        exclusive: true,
        open: true,
        ..pb::Create::default()
    };
    pb::Op { caller: None, kind: Some(pb::op::Kind::Create(create)) }
}

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let files: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = root.join(format!("cairn-create-speed-{}", std::process::id()));
    let engine = Arc::new(FjallEngine::open(&directory, Options::default())?);
    let params = Params { chunk_size: 65_536, clock: Arc::new(SystemClock) };
    let mut namespace = Namespace::open(engine, params)?;
    let session = namespace.open_session("example")?.0;
    let syncer = namespace.syncer();
    let stop = Arc::new(AtomicBool::new(false));
    let syncing = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                syncer.sync()?;
            }
            Ok::<(), EngineError>(())
        }
    });
    let started = Instant::now();
    let mut worst = Duration::ZERO;
    for seq in 1..=files {
        let origin = Origin { session, seq, acked_below: seq.saturating_sub(2 * GROUP) };
        namespace.execute(origin, &create(seq, 1));
        if seq.is_multiple_of(GROUP) {
            let before = Instant::now();
            namespace.commit()?;
            worst = worst.max(before.elapsed());
        }
    }
    namespace.commit()?;
    let seconds = started.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    syncing.join().map_err(|_| "the sync thread panicked")??;
    println!(
        "{:.0} creates/s, slowest commit {:.1} ms",
        files as f64 / seconds,
        worst.as_secs_f64() * 1e3
    );
    drop(namespace);
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
