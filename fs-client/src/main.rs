//! `cairn`: the mount and every other verb.

use std::process::ExitCode;

use cairn_client::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    cairn_proto::transport::tune_allocator();
    Cli::parse().run()
}
