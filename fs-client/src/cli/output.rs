//! Printing to standard output. In all verbs `println!` is this one: a reader that went away
//! (`cairn status | head -1`) ends the process quietly, as other programs end by SIGPIPE. That signal
//! itself stays ignored: connections to servers would raise it too.

use std::{
    fmt,
    io::{self, Write},
    process,
};

use super::failure::Failure;

/// What a shell reports for a program that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + libc::SIGPIPE;

macro_rules! println {
    ($($what:tt)*) => {
        $crate::cli::output::line(format_args!($($what)*))
    };
}

/// Prints a line.
pub(super) fn line(what: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{what}") {
        eprintln!("cairn: {}", unwritable(error));
        process::exit(1);
    }
}

/// Ends the process when `error` says that whoever read the output went away.
pub(super) fn end_without_reader(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        process::exit(BROKEN_PIPE);
    }
}

/// Standard output takes nothing: a failure, unless the reader went away, which ends the process.
#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
pub(super) fn unwritable(error: io::Error) -> Failure {
    end_without_reader(&error);
    Failure::new(format!("standard output: {error}"))
}
