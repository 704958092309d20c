//! Compiles the `.proto` files with `protox`, so that no `protoc` has to be installed.

use std::error::Error;

const FILES: &[&str] = &["proto/cairn.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        // Payloads arrive as slices of the receive buffer instead of fresh vectors.
        .bytes(".cairn.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
