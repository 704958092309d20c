//! `cairn`: the mount and every other verb.

use std::process::ExitCode;

use cairn_client::cli;

fn main() -> ExitCode {
    cairn_daemon::memory::keep_freed();
    cli::run()
}
