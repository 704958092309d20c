//! Being called by mount(8) as `/sbin/mount.fuse.cairn` or `/sbin/mount.cairn`:
//! `SPEC DIR [-sfnv] [-o OPTIONS] [-t TYPE]` becomes the command line of `cairn mount`.
//!
//! SPEC is `HOST:PORT` or `cairn:HOST:PORT` of the master, or just `cairn`: then the master is that of
//! the configuration.

use std::{ffi::OsString, path::Path};

use clap::Parser;

/// What a mount helper's name begins with.
const PREFIX: &str = "mount.";

/// What mount(8) says to a helper.
#[derive(Debug, Parser)]
#[command(version, about = "Mounts a Cairn file system; called by mount(8)")]
struct Helper {
    /// HOST:PORT or cairn:HOST:PORT of the master, or cairn for the one of the configuration
    spec: String,
    /// An empty directory
    dir: OsString,
    /// Ignore options that are unknown
    #[arg(short)]
    sloppy: bool,
    /// Check the command line and mount nothing
    #[arg(short)]
    fake: bool,
    /// There is no mtab to write
    #[arg(short)]
    no_mtab: bool,
    /// There is nothing more to say
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Mount options
    #[arg(short, value_name = "OPTION,...")]
    options: Vec<String>,
    /// fuse.cairn or cairn
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Called {
    /// Not by mount(8).
    AsProgram(Vec<OsString>),
    /// By mount(8): what `cairn` would have been called with.
    AsHelper(Vec<OsString>),
    /// By mount(8), to see whether it could be done.
    ForShow,
    /// In a way that makes no sense.
    Wrongly(Box<clap::Error>),
}

/// Looks at the name that the program was called by.
pub fn called(arguments: Vec<OsString>) -> Called {
    let name = arguments.first().and_then(|path| Path::new(path).file_name());
    if !name.is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
        return Called::AsProgram(arguments);
    }
    match Helper::try_parse_from(arguments) {
        Ok(helper) if helper.fake => Called::ForShow,
        Ok(helper) => Called::AsHelper(helper.command_line()),
        Err(error) => Called::Wrongly(Box::new(error)),
    }
}

impl Helper {
    fn command_line(self) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec!["cairn".into(), "mount".into(), "--quiet".into()];
        let master = self.spec.strip_prefix("cairn:").unwrap_or(&self.spec);
        if !matches!(master, "cairn" | "none" | "") {
            line.push(format!("--master={master}").into());
        }
        // What fstab says is what the list of mounts says, so that mount -a knows what is done.
        line.push(format!("--fsname={}", self.spec).into());
        if self.sloppy {
            line.push("--sloppy".into());
        }
        line.extend(self.options.iter().map(|list| format!("-o{list}").into()));
        line.push(self.dir);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Vec<String> {
        match called(arguments.iter().map(OsString::from).collect()) {
            Called::AsHelper(line) => {
                line.iter().map(|word| word.to_str().unwrap().to_owned()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_mount_says_becomes_a_command_line() {
        assert_eq!(
            line(&["/sbin/mount.fuse.cairn", "h:1", "/d", "-n", "-o", "rw,ro", "-t", "fuse.cairn"]),
            ["cairn", "mount", "--quiet", "--master=h:1", "--fsname=h:1", "-orw,ro", "/d"]
        );
        assert_eq!(
            line(&["mount.cairn", "cairn:h:1", "/d", "-s"]),
            ["cairn", "mount", "--quiet", "--master=h:1", "--fsname=cairn:h:1", "--sloppy", "/d"]
        );
        assert_eq!(line(&["mount.cairn", "cairn", "/d"])[3..], ["--fsname=cairn", "/d"]);
    }

    #[test]
    fn other_names_are_the_program() {
        let words = ["/usr/bin/cairn", "status"].map(OsString::from).to_vec();
        assert!(matches!(called(words), Called::AsProgram(_)));
        let words = ["mount.cairn", "-f", "s", "/d"].map(OsString::from).to_vec();
        assert!(matches!(called(words), Called::ForShow));
        let words = ["mount.cairn", "only-one"].map(OsString::from).to_vec();
        assert!(matches!(called(words), Called::Wrongly(_)));
    }
}
