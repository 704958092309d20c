//! [`Action`]: what a client does with files, one after the other, and how it is written down.
//!
//! An action ends well only when what it has made is acknowledged: synced, or closed without an error.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use crate::Rng;

/// Bytes that can be made anew: a seed and a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Decides the bytes.
    pub seed: u64,
    /// How many.
    pub len: usize,
}

impl Content {
    /// The bytes.
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = Rng::new(self.seed).bytes(self.len);
        if self.seed.is_multiple_of(2) {
            // Half of what there is can be compressed, to about half its size.
            bytes.iter_mut().for_each(|byte| *byte &= 0x0f);
        }
        bytes
    }
}

/// How an action makes its bytes safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safe {
    /// fsync before close.
    Synced,
    /// close alone.
    Closed,
}

/// See the head of this file. Names are relative to the client's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A new file.
    Create(String, Content, Safe),
    /// A file written beside it and renamed over it.
    Replace(String, Content),
    /// Bytes at the end of a file.
    Append(String, Content, Safe),
    /// Bytes within a file, from an offset on.
    Overwrite(String, u64, Content, Safe),
    /// A file cut short.
    Truncate(String, u64),
    /// A file or an empty directory under another name, which is free.
    Rename(String, String),
    /// A further name.
    Link(String, String),
    /// A name less.
    Remove(String),
    /// A new directory.
    MakeDir(String),
    /// An empty directory less.
    RemoveDir(String),
    /// A file compared with what it should be.
    Read(String),
}

/// The name under which [`Action::Replace`] writes.
pub fn beside(name: &str) -> String {
    format!("{name}.new")
}

/// Pieces in which a file is written.
const PIECE: usize = 50_000;

fn write(mut file: File, bytes: &[u8], safe: Safe) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        file.write_all(piece)?;
    }
    finish(file, safe)
}

fn finish(file: File, safe: Safe) -> io::Result<()> {
    if safe == Safe::Synced {
        file.sync_all()?;
    }
    close(file)
}

/// close(2) with its answer, which dropping a file throws away.
fn close(file: File) -> io::Result<()> {
    use std::os::fd::IntoRawFd as _;
    // SAFETY: the descriptor was this file's alone, and is not used again.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Action {
    /// Does it below `root`. `expected` is what [`Action::Read`] must find.
    ///
    /// # Errors
    /// What a call said; `InvalidData` when the file is not what it should be.
    pub fn perform(&self, root: &Path, expected: Option<&[u8]>) -> io::Result<()> {
        match self {
            Self::Create(name, content, safe) => {
                write(File::create_new(root.join(name))?, &content.bytes(), *safe)
            }
            Self::Replace(name, content) => {
                let new = root.join(beside(name));
                write(File::create_new(&new)?, &content.bytes(), Safe::Synced)?;
                fs::rename(new, root.join(name))
            }
            Self::Append(name, content, safe) => {
                let file = File::options().append(true).open(root.join(name))?;
                write(file, &content.bytes(), *safe)
            }
            Self::Overwrite(name, at, content, safe) => {
                let file = File::options().write(true).open(root.join(name))?;
                file.write_all_at(&content.bytes(), *at)?;
                finish(file, *safe)
            }
            Self::Truncate(name, len) => {
                let file = File::options().write(true).open(root.join(name))?;
                file.set_len(*len)?;
                finish(file, Safe::Synced)
            }
            Self::Rename(from, to) => fs::rename(root.join(from), root.join(to)),
            Self::Link(from, to) => fs::hard_link(root.join(from), root.join(to)),
            Self::Remove(name) => fs::remove_file(root.join(name)),
            Self::MakeDir(name) => fs::create_dir(root.join(name)),
            Self::RemoveDir(name) => fs::remove_dir(root.join(name)),
            Self::Read(name) => {
                let found = fs::read(root.join(name))?;
                let expected = expected.unwrap_or_default();
                if found == expected {
                    return Ok(());
                }
                let at = found.iter().zip(expected).position(|(a, b)| a != b);
                let (found, wanted) = (found.len(), expected.len());
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{found} bytes instead of {wanted}, first difference: {at:?}"),
                ))
            }
        }
    }
}

impl fmt::Display for Safe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Synced => "synced",
            Self::Closed => "closed",
        })
    }
}

/// One line of words, which [`Action::parse`] reads.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name, c, safe) => {
                write!(f, "create {name} {} {} {safe}", c.seed, c.len)
            }
            Self::Replace(name, c) => write!(f, "replace {name} {} {}", c.seed, c.len),
            Self::Append(name, c, safe) => {
                write!(f, "append {name} {} {} {safe}", c.seed, c.len)
            }
            Self::Overwrite(name, at, c, safe) => {
                write!(f, "overwrite {name} {at} {} {} {safe}", c.seed, c.len)
            }
            Self::Truncate(name, len) => write!(f, "truncate {name} {len}"),
            Self::Rename(from, to) => write!(f, "rename {from} {to}"),
            Self::Link(from, to) => write!(f, "link {from} {to}"),
            Self::Remove(name) => write!(f, "remove {name}"),
            Self::MakeDir(name) => write!(f, "mkdir {name}"),
            Self::RemoveDir(name) => write!(f, "rmdir {name}"),
            Self::Read(name) => write!(f, "read {name}"),
        }
    }
}

impl Action {
    /// What [`fmt::Display`] wrote; nothing when it did not.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let content = |seed: &str, len: &str| {
            Some(Content { seed: seed.parse().ok()?, len: len.parse().ok()? })
        };
        let safe = |word: &str| match word {
            "synced" => Some(Safe::Synced),
            "closed" => Some(Safe::Closed),
            _ => None,
        };
        let name = |n: &str| n.to_owned();
        Some(match *words.as_slice() {
            ["create", n, seed, len, how] => Self::Create(name(n), content(seed, len)?, safe(how)?),
            ["replace", n, seed, len] => Self::Replace(name(n), content(seed, len)?),
            ["append", n, seed, len, how] => Self::Append(name(n), content(seed, len)?, safe(how)?),
            ["overwrite", n, at, seed, len, how] => {
                Self::Overwrite(name(n), at.parse().ok()?, content(seed, len)?, safe(how)?)
            }
            ["truncate", n, len] => Self::Truncate(name(n), len.parse().ok()?),
            ["rename", from, to] => Self::Rename(name(from), name(to)),
            ["link", from, to] => Self::Link(name(from), name(to)),
            ["remove", n] => Self::Remove(name(n)),
            ["mkdir", n] => Self::MakeDir(name(n)),
            ["rmdir", n] => Self::RemoveDir(name(n)),
            ["read", n] => Self::Read(name(n)),
            _ => return None,
        })
    }
}
