//! `-o`: mount options as fstab and mount(8) write them. Each becomes the flag that it stands for, so
//! that the command line has one meaning and one parser.

use std::ffi::OsString;

use cairn_daemon::program::{Program, is_switch, key};
use clap::Args;

use super::failure::Failure;
use crate::{fuse::Shown, vfs::AtimePolicy};

/// Permissions that nothing has, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umask(u32);

impl std::str::FromStr for Umask {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u32::from_str_radix(text, 8) {
            Ok(mask) if mask <= 0o777 => Ok(Self(mask)),
            Ok(_) | Err(_) => Err("it takes an octal number up to 777, such as 022"),
        }
    }
}

/// What the kernel does with the mount and what it shows.
#[derive(Args, Debug)]
pub struct MountOptions {
    /// Let nothing be changed through this mount
    #[arg(long, env = "CAIRN_MOUNT_READ_ONLY")]
    pub read_only: bool,

    /// Let other users use the mount (root always does)
    #[arg(long, env = "CAIRN_MOUNT_ALLOW_OTHER")]
    pub allow_other: bool,

    /// Honour set-user-id and set-group-id bits (only root may)
    #[arg(long, env = "CAIRN_MOUNT_SUID")]
    pub suid: bool,

    /// Let device nodes be devices (only root may)
    #[arg(long, env = "CAIRN_MOUNT_DEV")]
    pub dev: bool,

    /// Let no program be executed
    #[arg(long, env = "CAIRN_MOUNT_NOEXEC")]
    pub noexec: bool,

    /// Which reads change the time of the last read
    #[arg(long, value_enum, default_value_t, value_name = "WHICH", env = "CAIRN_MOUNT_ATIME")]
    pub atime: AtimePolicy,

    /// Show everything as owned by this user; what is stored stays as it is
    #[arg(long, value_name = "NUMBER", env = "CAIRN_MOUNT_UID")]
    pub uid: Option<u32>,

    /// Show everything as of this group; what is stored stays as it is
    #[arg(long, value_name = "NUMBER", env = "CAIRN_MOUNT_GID")]
    pub gid: Option<u32>,

    /// Show everything with all permissions but these; what is stored stays as it is
    #[arg(long, value_name = "OCTAL", env = "CAIRN_MOUNT_UMASK")]
    pub umask: Option<Umask>,

    /// What mount and df show as the source, instead of cairn:HOST:PORT of the master
    #[arg(long, value_name = "NAME", env = "CAIRN_MOUNT_FSNAME")]
    pub fsname: Option<String>,

    /// Options as in fstab: ro, allow_other, nosuid, umask=022, and every setting as KEY=VALUE
    #[arg(short = 'o', value_name = "OPTION,...")]
    options: Vec<String>,

    /// Ignore options that are unknown.
    #[arg(long, hide = true)]
    sloppy: bool,
}

impl MountOptions {
    /// What the mount shows instead of what is stored.
    pub fn shown(&self) -> Shown {
        Shown { uid: self.uid, gid: self.gid, umask: self.umask.map(|umask| umask.0) }
    }
}

/// What fstab says to mount(8), to systemd or to nobody, and what the kernel does in any case.
const IGNORED: [&str; 22] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "comment",
    "subtype",
    "default_permissions",
    "async",
    "norelatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
];

/// `arguments` with the flags that their `-o` stand for.
///
/// # Errors
/// An option that does not exist, or lacks its value.
pub fn expand(program: &Program, arguments: &[OsString]) -> Result<Vec<OsString>, Failure> {
    let mut expanded = arguments.to_vec();
    // What makes no sense is said by whoever parses the whole.
    let Ok(Some(mount)) = program.glimpse(arguments) else { return Ok(expanded) };
    let lists = mount.get_many::<String>("options").into_iter().flatten();
    let mut flags = Vec::new();
    for option in lists.flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
        match flag(program, option) {
            Ok(flag) => flags.extend(flag.map(OsString::from)),
            Err(_) if mount.get_flag("sloppy") => {}
            Err(sentence) => return Err(Failure::new(sentence)),
        }
    }
    add_flags(&mut expanded, flags);
    Ok(expanded)
}

/// Adds `flags` to a command line, before `--`: after that nothing is a flag.
pub(super) fn add_flags(arguments: &mut Vec<OsString>, flags: impl IntoIterator<Item = OsString>) {
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.splice(end..end, flags);
}

/// The flag that `option` stands for; none for what is ignored.
fn flag(program: &Program, option: &str) -> Result<Option<String>, String> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let flag = match (name, value) {
        ("ro", None) => "--read-only=true",
        ("rw", None) => "--read-only=false",
        ("nosuid", None) => "--suid=false",
        ("nodev", None) => "--dev=false",
        ("atime" | "relatime", None) => "--atime=relatime",
        ("noatime", None) => "--atime=noatime",
        ("strictatime", None) => "--atime=strictatime",
        ("exec", None) => "--noexec=false",
        ("remount", None) => {
            return Err("a mount of Cairn cannot be changed while it is mounted: \
                 unmount it, then mount it with the new options"
                .to_owned());
        }
        ("config", Some(path)) => return Ok(Some(format!("--config={path}"))),
        _ if IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("X-") => {
            return Ok(None);
        }
        _ => return setting(program, name, value).map(Some),
    };
    Ok(Some(flag.to_owned()))
}

fn setting(program: &Program, name: &str, value: Option<&str>) -> Result<String, String> {
    let Some(arg) = program.settings().find(|arg| key(arg) == name) else {
        return Err(format!(
            "unknown mount option `{name}`: cairn mount knows ro, rw, suid, nosuid, dev, nodev, exec, \
             noexec, relatime, noatime, strictatime, config=FILE and the settings in docs/configuration.md"
        ));
    };
    let long = arg.get_long().unwrap_or_default();
    match value {
        Some(value) => Ok(format!("--{long}={value}")),
        None if is_switch(arg) => Ok(format!("--{long}=true")),
        None => Err(format!("mount option `{name}` lacks its value: write {name}=...")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::program;

    fn expanded(arguments: &[&str]) -> Result<Vec<String>, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let expanded = expand(&program(), &arguments).map_err(|failure| failure.to_string())?;
        Ok(expanded[arguments.len()..].iter().map(|a| a.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn options_become_flags() {
        let list = "rw,noatime,_netdev,x-systemd.automount,defaults,user,nosuid,dev,umask=022";
        assert_eq!(
            expanded(&["cairn", "mount", "/d", "-o", list, "-oro,cache_size=1M,master=h:1"])
                .unwrap(),
            [
                "--read-only=false",
                "--atime=noatime",
                "--suid=false",
                "--dev=true",
                "--umask=022",
                "--read-only=true",
                "--cache-size=1M",
                "--master=h:1"
            ]
        );
        assert!(expanded(&["cairn", "status"]).unwrap().is_empty());
    }

    #[test]
    fn what_is_unknown_is_refused_with_a_sentence() {
        let refused = |list: &str| expanded(&["cairn", "mount", "/d", "-o", list]).unwrap_err();
        assert!(refused("ro,no_such").contains("unknown mount option `no_such`"));
        assert!(refused("uid").contains("uid=..."));
        assert!(refused("remount,ro").contains("unmount it"));
        assert!(refused("detached").contains("unknown"));
        let sloppy = ["cairn", "mount", "/d", "--sloppy", "-o", "no_such,ro"];
        assert_eq!(expanded(&sloppy).unwrap(), ["--read-only=true"]);
    }

    #[test]
    fn masks_are_octal() {
        assert_eq!("022".parse(), Ok(Umask(0o022)));
        assert!("8".parse::<Umask>().is_err() && "1777".parse::<Umask>().is_err());
    }
}
