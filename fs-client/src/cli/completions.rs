//! `cairn completions`: what a shell needs to complete this program's command line; and the hidden verb
//! with which `scripts/install.sh` has all documents written.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use cairn_daemon::documents;
use clap::{Args, ValueEnum};

use super::{failure::Failure, output::unwritable};

/// A shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// Print completions for a shell; for bash: source <(cairn completions bash)
#[derive(Args, Debug)]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// # Errors
    /// When nothing can be printed.
    pub fn run(self) -> Result<bool, Failure> {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let script = documents::completions(super::program().command(), shell);
        io::stdout().write_all(&script).map_err(unwritable)?;
        Ok(true)
    }
}

/// Write man pages and completions into a directory.
#[derive(Args, Debug)]
pub struct Documents {
    /// Where to
    dir: PathBuf,
}

impl Documents {
    /// # Errors
    /// When a file cannot be written.
    pub fn run(self) -> Result<bool, Failure> {
        documents::write(super::program().command(), &self.dir).map_err(|e| {
            Failure::new(format!("cannot write documents into {}: {e}", self.dir.display()))
        })?;
        Ok(true)
    }
}
