//! One client: a process that works in a directory of its own and writes down what was acknowledged.
//!
//! Contents come from a small pool that all clients share, so that chunks are shared, deleted and made
//! again; some are unique. After a failure it waits until the directory answers again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    action::{Action, Content, Safe, beside},
    journal::Journal,
    model::{Model, Node},
};
use crate::Rng;

/// Contents that clients share.
const POOL: u64 = 150;
/// Names that a client has at most.
const NAMES: usize = 60;
/// Longest file that is still appended to.
const LONG: usize = 400_000;
/// Between two actions, so that a long run does not only measure the disk.
const PAUSE_MS: u64 = 25;

/// Where a client works and how it is told to end.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its directory in a mount.
    pub directory: PathBuf,
    /// Its journal, outside.
    pub journal: PathBuf,
    /// It ends when this file is there.
    pub stop: PathBuf,
}

/// Works until it is told to end.
///
/// # Errors
/// When the journal cannot be written; failures in the mount only make doubts.
pub fn work(place: &Place, seed: u64) -> io::Result<()> {
    let mut client = Client {
        rng: Rng::new(seed),
        model: Model::default(),
        journal: Journal::open(&place.journal)?,
        fresh: 0,
    };
    for n in 0.. {
        if place.stop.exists() {
            break;
        }
        let action = client.choose();
        client.carry_out(n, &action, &place.directory, &place.stop)?;
        thread::sleep(Duration::from_millis(client.rng.below(2 * PAUSE_MS)));
    }
    Ok(())
}

struct Client {
    rng: Rng,
    model: Model,
    journal: Journal,
    /// Names are never used twice unless it is on purpose.
    fresh: u64,
}

impl Client {
    fn carry_out(&mut self, n: u64, action: &Action, root: &Path, stop: &Path) -> io::Result<()> {
        let expected = match action {
            Action::Read(name) => self.model.content(name).map(<[u8]>::to_vec),
            _ => None,
        };
        self.journal.began(n, action)?;
        let began = Instant::now();
        let result = action.perform(root, expected.as_deref());
        self.journal.ended(n, began.elapsed(), &result)?;
        match result {
            Ok(()) => self.model.happened(action),
            Err(error) => {
                self.model.in_doubt(action, &error.to_string());
                while fs::symlink_metadata(root).is_err() && !stop.exists() {
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    }

    fn choose(&mut self) -> Action {
        if self.model.names().len() >= NAMES {
            return self.end_something();
        }
        match self.rng.below(20) {
            0..=4 => Action::Create(self.new_name("f"), self.content(), self.safe()),
            5 | 6 => self.with_file(|me, name, _| Action::Replace(name, me.content())),
            7 | 8 => self.with_file(|me, name, len| {
                if len > LONG {
                    return Action::Truncate(name, me.rng.below(len as u64));
                }
                Action::Append(name, me.content(), me.safe())
            }),
            9 | 10 => self.with_file(|me, name, len| {
                if len < 2 {
                    return Action::Remove(name);
                }
                let part = 1 + me.rng.index((len - 1).min(100_000));
                let at = me.rng.below((len - part) as u64 + 1);
                let content = Content { seed: me.rng.next_u64(), len: part };
                Action::Overwrite(name, at, content, me.safe())
            }),
            11 | 12 => self.with_file(|me, name, _| Action::Rename(name, me.new_name("moved"))),
            13 => self.with_file(|me, name, _| Action::Link(name, me.new_name("link"))),
            14 => Action::MakeDir(self.new_name("dir")),
            15..=17 => self.with_file(|_, name, _| Action::Read(name)),
            _ => self.end_something(),
        }
    }

    fn end_something(&mut self) -> Action {
        let count = self.model.names().len();
        if count == 0 {
            return Action::MakeDir(self.new_name("dir"));
        }
        let at = self.rng.index(count);
        let (name, node) = self.model.names().iter().nth(at).expect("below the count");
        match node {
            Node::File(_) => Action::Remove(name.clone()),
            Node::Dir => Action::RemoveDir(name.clone()),
        }
    }

    /// An action with some file of the model, or a new one when there is none.
    fn with_file(&mut self, make: impl FnOnce(&mut Self, String, usize) -> Action) -> Action {
        let files = self.model.names().iter().filter_map(|(name, node)| match node {
            Node::File(file) => Some((name.clone(), self.model.bytes(*file).len())),
            Node::Dir => None,
        });
        let files: Vec<_> = files.collect();
        if files.is_empty() {
            return Action::Create(self.new_name("f"), self.content(), self.safe());
        }
        let (name, len) = files[self.rng.index(files.len())].clone();
        make(self, name, len)
    }

    fn new_name(&mut self, kind: &str) -> String {
        self.fresh += 1;
        // A name that was free once, and certainly is now, may be taken again.
        let old = format!("{kind}{}", self.rng.below(self.fresh));
        let doubtful = self.model.doubtful_names();
        let free = |name: &String| {
            !self.model.names().contains_key(name)
                && !doubtful.contains(name.as_str())
                && !doubtful.contains(beside(name).as_str())
        };
        if free(&old) { old } else { format!("{kind}{}", 1_000_000 + self.fresh) }
    }

    fn content(&mut self) -> Content {
        let seed = if self.rng.one_in(8) { self.rng.next_u64() } else { self.rng.below(POOL) };
        let largest = if seed.is_multiple_of(5) { 200_000 } else { 40_000 };
        Content { seed, len: 1 + Rng::new(seed).index(largest) }
    }

    fn safe(&mut self) -> Safe {
        if self.rng.one_in(2) { Safe::Synced } else { Safe::Closed }
    }
}
