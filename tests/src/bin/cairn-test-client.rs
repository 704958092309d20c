//! One client of the chaos suite: the process behind [`cairn_tests::chaos::client`].

use std::{env, process::ExitCode};

use cairn_tests::chaos::client::{Place, work};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [directory, journal, stop, seed] = arguments.as_slice() else {
        eprintln!("usage: cairn-test-client DIRECTORY JOURNAL STOP_FILE SEED");
        return ExitCode::from(2);
    };
    let place = Place { directory: directory.into(), journal: journal.into(), stop: stop.into() };
    let seed = seed.to_str().and_then(|n| n.parse().ok()).unwrap_or(1);
    match work(&place, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", place.journal.display());
            ExitCode::FAILURE
        }
    }
}
