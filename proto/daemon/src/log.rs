//! The log of a daemon: lines on standard error or in a file, filtered by `RUST_LOG` (default `info`).
//! Colours only on a terminal, and never when `NO_COLOR` is set.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal},
    path::Path,
    sync::Mutex,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Starts logging to standard error.
pub fn to_stderr() {
    let colours = io::stderr().is_terminal() && !no_color();
    start(colours, io::stderr);
}

/// Starts logging to the end of the file at `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn to_file(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    start(false, Mutex::new(file));
    Ok(())
}

fn start(colours: bool, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // A second log in one process would be a programming error; the first one stays.
    let _ = log.with_ansi(colours).with_writer(writer).try_init();
}

/// <https://no-color.org>: set to anything but nothing.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
