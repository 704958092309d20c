//! Where the programs under test are: `CAIRN_BIN_DIR`, otherwise `target/release`; those with crash
//! points in `CAIRN_FAILPOINT_BIN_DIR`.

use std::path::{Path, PathBuf};

/// The root of the checkout.
///
/// # Panics
/// Never: this package lies in it.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout")
}

fn directory() -> PathBuf {
    let target = || {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        checkout().join(target).join("release")
    };
    std::env::var_os("CAIRN_BIN_DIR").map_or_else(target, PathBuf::from)
}

fn program(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test.sh, or cargo build --release and set CAIRN_BIN_DIR",
        path.display()
    );
    path
}

/// The directory of the programs, for `scripts/run.sh`.
pub fn release_directory() -> PathBuf {
    program(&directory(), "cairn").parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// `cairn`.
pub fn cairn() -> PathBuf {
    program(&directory(), "cairn")
}

/// `cairn-master`.
pub fn master() -> PathBuf {
    program(&directory(), "cairn-master")
}

/// `cairn-storage`.
pub fn storage() -> PathBuf {
    program(&directory(), "cairn-storage")
}

/// A program built with the feature `failpoints`.
///
/// # Panics
/// When `CAIRN_FAILPOINT_BIN_DIR` does not name a directory with it.
pub fn with_failpoints(name: &str) -> PathBuf {
    let directory = std::env::var_os("CAIRN_FAILPOINT_BIN_DIR")
        .map_or_else(|| checkout().join("target/failpoints"), PathBuf::from);
    program(&directory, name)
}
