//! The harness of Cairn's suites: real processes, real mounts, a disk that loses power, trees of odd
//! files, and the checks that are made after everything that breaks something.
//!
//! Rules: whatever is started is stopped when its owner is dropped, also when the test panics;
//! everything has a time limit, because a hang is a failure; a test that cannot mount fails.

pub mod acknowledged;
pub mod binaries;
pub mod chaos;
pub mod cluster;
pub mod command;
pub mod daemon;
pub mod inspect;
pub mod model;
pub mod mount;
pub mod powercut;
pub mod proxy;
pub mod rng;
pub mod scrape;
pub mod spawner;
pub mod tree_compare;
pub mod tree_random;

use std::{
    panic::resume_unwind,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub use cluster::{Cluster, Layout};
pub use command::{run, sh, try_sh};
pub use mount::Mount;
pub use rng::Rng;

/// A fresh directory, removed with its content when dropped.
///
/// # Panics
/// When the temporary directory takes none.
pub fn scratch(what: &str) -> TempDir {
    let directory = tempfile::Builder::new().prefix(&format!("cairn-{what}-")).tempdir();
    directory.expect("the temporary directory takes a directory")
}

/// Asks every ten milliseconds until `done` says yes or the limit is over; whether it said yes.
pub fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the body of a test; it fails when it takes longer than `seconds`.
///
/// # Panics
/// When the body does, or does not end in time.
pub fn within(seconds: u64, body: impl FnOnce() + Send + 'static) {
    let (send, receive) = sync_channel(1);
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let thread = std::thread::Builder::new().name(name);
    let thread = thread.spawn(move || {
        body();
        let _nobody_waits = send.send(());
    });
    let thread = thread.expect("the system has a thread left");
    match receive.recv_timeout(Duration::from_secs(seconds)) {
        Err(RecvTimeoutError::Timeout) => panic!("not finished after {seconds} seconds: it hangs"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    }
}
