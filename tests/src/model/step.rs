//! [`Step`]: one operation, with everything that it needs. Paths are relative to the root of the tree.

use rustix::fs::{Access, FallocateFlags, OFlags, RenameFlags};

/// Slots for open files.
pub(super) const HANDLES: usize = 8;

/// Who does a step: user and group 0, or one of two others without groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Actor(pub(super) u32);

/// A timestamp that can be told from the present.
#[derive(Clone, Copy, Debug)]
pub(super) enum Time {
    At(i64, u32),
    Now,
    Omit,
}

/// Where an attribute or a time lies.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Path(String),
    Link(String),
    Handle(usize),
}

/// What is done.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Open { slot: usize, path: String, flags: OFlags, mode: u32 },
    Close { slot: usize },
    Read { slot: usize, at: u64, len: usize },
    Write { slot: usize, at: u64, len: usize, seed: u64 },
    Append { slot: usize, len: usize, seed: u64 },
    SetLen { slot: usize, len: u64 },
    Truncate { path: String, len: u64 },
    Allocate { slot: usize, flags: FallocateFlags, at: u64, len: u64 },
    SeekBeyond { slot: usize, data: bool },
    Sync { slot: usize, data: bool },
    Copy { from: usize, to: usize, at: u64, to_at: u64, len: usize },
    MakeDir { path: String, mode: u32 },
    RemoveDir { path: String },
    Unlink { path: String },
    Link { from: String, to: String, follow: bool },
    Symlink { target: String, path: String },
    ReadLink { path: String },
    Rename { from: String, to: String, flags: RenameFlags },
    Mode { target: Target, mode: u32 },
    Owner { target: Target, uid: Option<u32>, gid: Option<u32> },
    Times { target: Target, atime: Time, mtime: Time },
    SetAttribute { target: Target, name: String, len: usize, seed: u64, flags: u32 },
    GetAttribute { target: Target, name: String },
    RemoveAttribute { target: Target, name: String },
    ListAttributes { target: Target },
    Fifo { path: String, mode: u32 },
    Socket { path: String, mode: u32 },
    List { path: String },
    Stat { target: Target },
    Access { path: String, wanted: Access },
    RemoveTree { path: String },
}

/// One operation and who does it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) actor: Actor,
    pub(super) umask: u32,
    pub(super) action: Action,
}
