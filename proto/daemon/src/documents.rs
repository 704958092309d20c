//! What an installation takes along, made from the programs' own definitions: man pages for each
//! program and verb, completions for three shells.

use std::{fs, io, path::Path};

use clap::Command;
use clap_complete::Shell;

/// Writes `man/man1/*.1` and `completions/SHELL/*` of `command` into `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(command: &Command, dir: &Path) -> io::Result<()> {
    let pages = dir.join("man/man1");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(command.clone(), &pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let scripts = dir.join("completions").join(shell.to_string());
        fs::create_dir_all(&scripts)?;
        let name = match shell {
            Shell::Zsh => format!("_{}", command.get_name()),
            Shell::Fish => format!("{}.fish", command.get_name()),
            _ => command.get_name().to_owned(),
        };
        fs::write(scripts.join(name), completions(command, shell))?;
    }
    Ok(())
}

/// The completion script of `command` for `shell`.
pub fn completions(command: &Command, shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), command.get_name(), &mut script);
    script
}
