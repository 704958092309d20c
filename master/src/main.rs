//! The program `cairn-master`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn_proto::transport::tune_allocator();
    cairn_master::cli::run()
}
