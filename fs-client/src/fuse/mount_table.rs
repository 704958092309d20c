//! The kernel's list of mounts. Reading it never touches a mount, so a dead one does not hang us.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `MAJOR:MINOR`.
    pub device: String,
    /// Which directory of its file system is shown: `/`, unless it was bound.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
    /// Type, for example `fuse.cairn`.
    pub kind: String,
    /// Source, for example `cairn:127.0.0.1:9000`.
    pub source: String,
    /// The user who mounted it, as far as the file system says so.
    pub owner: Option<u32>,
}

impl Mount {
    /// Whether it is one of ours.
    pub fn is_cairn(&self) -> bool {
        self.kind == "fuse.cairn" || (self.kind == "fuse" && self.source.starts_with("cairn:"))
    }
}

/// Every mount, in the order in which they cover each other.
pub fn all() -> Vec<Mount> {
    fs::read("/proc/self/mountinfo").map(|table| parse(&table)).unwrap_or_default()
}

/// What is mounted on top at exactly `at`.
pub fn find(at: &Path) -> Option<Mount> {
    all().into_iter().rev().find(|mount| mount.at == at)
}

fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT AT OPTIONS [TAG..] - TYPE SOURCE OPTIONS`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let text =
        |field: Option<&&[u8]>| Some(String::from_utf8_lossy(&unescape(field?)).into_owned());
    Some(Mount {
        device: text(fields.get(2))?,
        root: OsString::from_vec(unescape(fields.get(3)?)).into(),
        at: OsString::from_vec(unescape(fields.get(4)?)).into(),
        kind: text(fields.get(dash + 1))?,
        source: text(fields.get(dash + 2))?,
        owner: text(fields.get(dash + 3)).and_then(|options| owner(&options)),
    })
}

/// FUSE names the user who mounted.
fn owner(options: &str) -> Option<u32> {
    options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|d| byte == b'\\' && d.iter().all(u8::is_ascii_digit));
        let code = digits.and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(code) => {
                out.push(code);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let table = b"36 35 98:0 / /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
            40 36 0:51 / /mnt/with\\040blank rw shared:9 - fuse.cairn cairn:127.0.0.1:9000 rw,user_id=7,group_id=0\nnonsense\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert!(!mounts[0].is_cairn());
        assert_eq!(mounts[1].at, Path::new("/mnt/with blank"));
        assert_eq!(mounts[1].device, "0:51");
        assert!(mounts[1].is_cairn());
        assert_eq!((mounts[0].owner, mounts[1].owner), (None, Some(7)));
    }

    #[test]
    fn a_backslash_that_is_no_escape_stays() {
        assert_eq!(unescape(b"a\\134b\\9\\"), b"a\\b\\9\\");
    }
}
