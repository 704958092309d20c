//! [`Chooser`]: the next step, at random, so that most of them find something to work on.

use rustix::fs::{Access, FallocateFlags, OFlags, RenameFlags};

use super::step::{Action, Actor, HANDLES, Step, Target, Time};
use crate::Rng;

/// Paths that are remembered.
const KNOWN: usize = 60;
/// Names that paths are made of: few, so that they meet.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "with space", "umläut", ".hidden"];
/// Offsets and lengths around the borders of pages and chunks.
const BORDERS: [u64; 12] =
    [0, 1, 100, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072, 262_144, 500_000];
/// Where offsets and lengths of files end. ext4 takes far more, but the local disk has to hold it.
const LONGEST: u64 = 1 << 20;

/// Chooses steps. Knows paths that were made.
#[derive(Debug, Default)]
pub(super) struct Chooser {
    known: Vec<String>,
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.index(choices.len())]
}

fn offset(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.below(LONGEST),
        1 => (pick(rng, &BORDERS) + rng.below(64)).saturating_sub(32),
        _ => pick(rng, &BORDERS),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below a million")]
fn length(rng: &mut Rng) -> usize {
    match rng.below(8) {
        0 => rng.below(200_000) as usize,
        1 => 65_536,
        2 => 0,
        _ => rng.below(5_000) as usize,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "twelve bits")]
fn mode(rng: &mut Rng) -> u32 {
    match rng.below(4) {
        0 => rng.below(0o10_000) as u32,
        1 => pick(rng, &[0o644, 0o600, 0o400, 0o000]),
        _ => pick(rng, &[0o777, 0o755, 0o666, 0o1777, 0o2775, 0o4755]),
    }
}

/// Leaves the set-group-id bit only where the group may execute.
const fn without_lone_set_gid(mode: u32, umask: u32) -> u32 {
    if mode & !umask & 0o010 == 0 { mode & !0o2000 } else { mode }
}

fn time(rng: &mut Rng) -> Time {
    match rng.below(8) {
        0 => Time::Now,
        1 => Time::Omit,
        2 => Time::At(5_000_000_000, 7),
        // Before 1970, where the fraction counts forward from the second before.
        3 => Time::At(-1, 999_999_999),
        #[expect(clippy::cast_possible_wrap, reason = "far below")]
        4 => Time::At(-(rng.below(100_000_000) as i64), 5),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            reason = "far below"
        )]
        _ => Time::At(rng.below(900_000_000) as i64, rng.below(1_000_000_000) as u32),
    }
}

fn open_flags(rng: &mut Rng) -> OFlags {
    let mut flags = pick(rng, &[OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR, OFlags::RDWR]);
    for (flag, one_in) in [
        (OFlags::CREATE, 2),
        (OFlags::EXCL, 6),
        (OFlags::TRUNC, 6),
        (OFlags::APPEND, 6),
        (OFlags::NOFOLLOW, 8),
        (OFlags::DIRECTORY, 20),
        (OFlags::SYNC, 12),
        (OFlags::DSYNC, 12),
    ] {
        if rng.one_in(one_in) {
            flags |= flag;
        }
    }
    // Linux does not say what these two together mean.
    if flags.contains(OFlags::CREATE | OFlags::DIRECTORY) {
        flags -= OFlags::DIRECTORY;
    }
    flags
}

impl Chooser {
    /// The next step.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Step {
        let actor = Actor(pick(rng, &[0, 0, 0, 0, 1000, 1000, 1001]));
        let umask = pick(rng, &[0o022, 0o022, 0o077, 0]);
        let mut action = match rng.below(100) {
            0..46 => self.content(rng),
            46..78 => self.names(rng),
            _ => self.attributes(rng),
        };
        match &mut action {
            Action::Open { mode, .. }
            | Action::MakeDir { mode, .. }
            | Action::Fifo { mode, .. }
            | Action::Socket { mode, .. } => *mode = without_lone_set_gid(*mode, umask),
            Action::Mode { mode, .. } => *mode = without_lone_set_gid(*mode, 0),
            _ => {}
        }
        let actor = if needs_root(&action) { Actor(0) } else { actor };
        Step { actor, umask, action }
    }

    /// Remembers what a successful step has made.
    pub(super) fn learn(&mut self, step: &Step, worked: bool) {
        let made = match &step.action {
            Action::Open { path, .. }
            | Action::MakeDir { path, .. }
            | Action::Symlink { path, .. }
            | Action::Fifo { path, .. }
            | Action::Socket { path, .. } => path,
            Action::Link { to, .. } | Action::Rename { to, .. } => to,
            _ => return,
        };
        if !worked || made.len() > 300 || self.known.contains(made) {
            return;
        }
        if self.known.len() < KNOWN {
            self.known.push(made.clone());
        } else {
            let place = made.len() * 7919 % KNOWN;
            self.known[place].clone_from(made);
        }
    }

    fn name(rng: &mut Rng) -> String {
        match rng.below(60) {
            0 => "n".repeat(255),
            1 => "n".repeat(256),
            _ => pick(rng, &NAMES).to_owned(),
        }
    }

    /// A path that probably exists.
    fn old(&self, rng: &mut Rng) -> String {
        if self.known.is_empty() || rng.one_in(10) {
            return self.new_path(rng);
        }
        let mut path = self.known[rng.index(self.known.len())].clone();
        match rng.below(60) {
            0 => path.push('/'),
            1 => path.push_str("/."),
            2 => path.insert_str(0, "./"),
            3 => path = path.replacen('/', "//", 1),
            _ => {}
        }
        path
    }

    /// A path that may or may not exist, mostly in a place that does.
    fn new_path(&self, rng: &mut Rng) -> String {
        let name = Self::name(rng);
        if self.known.is_empty() || rng.one_in(3) {
            return name;
        }
        match rng.below(40) {
            // Longer than any path may be.
            0 => "a/".repeat(2_100) + "b",
            1 => String::new(),
            2 => ".".to_owned(),
            _ => format!("{}/{name}", self.known[rng.index(self.known.len())]),
        }
    }

    fn content(&self, rng: &mut Rng) -> Action {
        let slot = rng.index(HANDLES);
        let (at, seed) = (offset(rng), rng.next_u64());
        match rng.below(48) {
            40.. | 0..10 => {
                let flags = open_flags(rng);
                let fresh = flags.contains(OFlags::CREATE) && rng.one_in(2);
                let path = if fresh { self.new_path(rng) } else { self.old(rng) };
                Action::Open { slot, path, flags, mode: mode(rng) & 0o7777 }
            }
            10 | 11 => Action::Close { slot },
            12..18 => Action::Read { slot, at, len: length(rng) },
            18..25 => Action::Write { slot, at, len: length(rng), seed },
            25..28 => Action::Append { slot, len: length(rng), seed },
            28..30 => Action::SetLen { slot, len: at },
            30 | 31 => Action::Truncate { path: self.old(rng), len: at },
            32..34 => {
                let flags = pick(
                    rng,
                    &[
                        FallocateFlags::empty(),
                        FallocateFlags::KEEP_SIZE,
                        FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
                        FallocateFlags::ZERO_RANGE,
                        FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE),
                    ],
                );
                Action::Allocate { slot, flags, at, len: length(rng) as u64 }
            }
            34 => Action::SeekBeyond { slot, data: rng.one_in(2) },
            35 | 36 => Action::Sync { slot, data: rng.one_in(2) },
            37..40 => {
                let to = rng.index(HANDLES);
                let to_at = offset(rng);
                // Overlapping ranges of one file are refused, but only where both sides see them.
                Action::Copy { from: slot, to, at, to_at, len: length(rng) }
            }
        }
    }

    fn names(&self, rng: &mut Rng) -> Action {
        match rng.below(40) {
            0..7 => Action::MakeDir { path: self.new_path(rng), mode: mode(rng) },
            7..10 => Action::RemoveDir { path: self.old(rng) },
            10..14 => Action::Unlink { path: self.old(rng) },
            14..18 => {
                let (from, to) = (self.old(rng), self.new_path(rng));
                Action::Link { from, to, follow: rng.one_in(4) }
            }
            18..21 => {
                let target = match rng.below(12) {
                    0 => "t".repeat(4_095),
                    1 => "t".repeat(1_000),
                    2 => String::new(),
                    // Relative to the link's own directory and never above it.
                    _ if rng.one_in(3) => format!("{}/{}", pick(rng, &NAMES), pick(rng, &NAMES)),
                    _ => pick(rng, &NAMES).to_owned(),
                };
                Action::Symlink { target, path: self.new_path(rng) }
            }
            21 | 22 => Action::ReadLink { path: self.old(rng) },
            23..33 => {
                let from = self.old(rng);
                let to = if rng.one_in(2) { self.old(rng) } else { self.new_path(rng) };
                let flags = pick(
                    rng,
                    &[
                        RenameFlags::empty(),
                        RenameFlags::empty(),
                        RenameFlags::NOREPLACE,
                        RenameFlags::EXCHANGE,
                        RenameFlags::EXCHANGE,
                    ],
                );
                Action::Rename { from, to, flags }
            }
            33 => Action::Fifo { path: self.new_path(rng), mode: mode(rng) },
            34 => Action::Socket { path: self.new_path(rng), mode: mode(rng) },
            35..39 => {
                let path = if rng.one_in(8) { ".".to_owned() } else { self.old(rng) };
                Action::List { path }
            }
            _ => Action::RemoveTree { path: self.old(rng) },
        }
    }

    fn target(&self, rng: &mut Rng) -> Target {
        match rng.below(4) {
            0 => Target::Handle(rng.index(HANDLES)),
            1 => Target::Link(self.old(rng)),
            _ => Target::Path(self.old(rng)),
        }
    }

    fn attributes(&self, rng: &mut Rng) -> Action {
        let target = self.target(rng);
        match rng.below(30) {
            0..4 => Action::Mode { target, mode: mode(rng) },
            4..7 => {
                let id = |rng: &mut Rng| pick(rng, &[None, Some(0), Some(1000), Some(1001)]);
                Action::Owner { target, uid: id(rng), gid: id(rng) }
            }
            7..11 => Action::Times { target, atime: time(rng), mtime: time(rng) },
            11..15 => {
                let len = pick(rng, &[0, 1, 20, 300]);
                let flags = pick(rng, &[0, 0, 1, 2, 3]);
                Action::SetAttribute {
                    target,
                    name: attribute(rng),
                    len,
                    seed: rng.next_u64(),
                    flags,
                }
            }
            15..17 => Action::GetAttribute { target, name: attribute(rng) },
            17 | 18 => Action::RemoveAttribute { target, name: attribute(rng) },
            19 | 20 => Action::ListAttributes { target },
            21..27 => Action::Stat { target },
            _ => {
                let wanted = pick(
                    rng,
                    &[Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK, Access::EXISTS],
                );
                Action::Access { path: self.old(rng), wanted }
            }
        }
    }
}

/// What only root does here: who removes a tree without rights stops anywhere, and who sees `trusted`
/// attributes depends on a capability that a thread keeps when it changes its user.
fn needs_root(action: &Action) -> bool {
    match action {
        Action::RemoveTree { .. } | Action::ListAttributes { .. } => true,
        Action::SetAttribute { name, .. }
        | Action::GetAttribute { name, .. }
        | Action::RemoveAttribute { name, .. } => name.starts_with("trusted."),
        _ => false,
    }
}

fn attribute(rng: &mut Rng) -> String {
    match rng.below(16) {
        0 => format!("user.{}", "x".repeat(250)),
        1 => format!("user.{}", "x".repeat(251)),
        2 => "nonsense.a".to_owned(),
        3 => "user.".to_owned(),
        4 | 5 => "trusted.a".to_owned(),
        _ => pick(rng, &["user.a", "user.b", "user.c"]).to_owned(),
    }
}
