//! The program `cairn-storage`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn_proto::transport::tune_allocator();
    cairn_storage::cli::run()
}
