//! Writes and syncs numbered files until told to stop, and says which are safe: the process behind
//! [`cairn_tests::acknowledged::Writer`].

use std::{env, io::stdout, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [directory, from, stop] = arguments.as_slice() else {
        eprintln!("usage: cairn-test-writer DIRECTORY FIRST STOP_FILE");
        return ExitCode::from(2);
    };
    let from = from.to_str().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (directory, stop) = (PathBuf::from(directory), PathBuf::from(stop));
    match cairn_tests::acknowledged::write_forever(&directory, from, &stop, stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
