//! Chaos by seeds: whatever happens to the parts, nothing acknowledged is lost, nothing hangs and
//! nothing leaks. `scripts/chaos.sh` is the long run.

use std::time::Duration;

use cairn_tests::{Rng, chaos::Run, rng::scale, within};

const CLIENT: &str = env!("CARGO_BIN_EXE_cairn-test-client");

/// How long things happen, in seconds.
fn length() -> u64 {
    let seconds = std::env::var("CAIRN_CHAOS_SECONDS").ok().and_then(|s| s.parse().ok());
    seconds.unwrap_or_else(|| 25 * scale())
}

fn run(seed: u64) {
    let length = length();
    within(length * 2 + 500, move || {
        Run { seed, length: Duration::from_secs(length), client: CLIENT.to_owned() }.go();
    });
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens() {
    let chosen = std::env::var("CAIRN_CHAOS_SEED").ok().and_then(|s| s.parse().ok());
    run(chosen.unwrap_or_else(|| Rng::of_run("chaos").next_u64() % 1_000_000));
}

#[test]
fn nothing_is_lost_in_the_schedule_of_a_certain_seed() {
    run(7);
}
