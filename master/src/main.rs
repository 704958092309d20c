//! The program `cairn-master`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn_daemon::memory::keep_freed();
    cairn_master::cli::run()
}
