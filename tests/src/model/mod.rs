//! Random operations against two or more directories at once: what each call returns and what the trees
//! look like afterwards must be the same everywhere.
//!
//! One of the directories lies on the local disk and says what is right. Known and allowed differences,
//! which are not compared:
//!
//! - lengths of directories, `st_blocks`, `st_blksize`, device and inode numbers: a file system's own
//!   business;
//! - `atime` and `ctime`, and `mtime` unless it was set: taken at different moments. Times that were set
//!   lie before 2001 or after 2100, which tells them from the others;
//! - `mtime` after `fallocate`: ext4 changes it also when nothing that can be read has changed;
//! - directories, fifos and sockets that are removed while open: `fstat` on them is `ESTALE` in the mount,
//!   because the kernel tells of open regular files only. They are not kept open here;
//! - the order of a listing, and of attributes;
//! - where holes begin: ext4's blocks are smaller than our chunks. Beyond the end `SEEK_DATA` and
//!   `SEEK_HOLE` are compared;
//! - the largest file and the largest attribute: ext4's are smaller. Operations stay below both;
//! - the set-group-id bit without group execution, which is cleared when somebody writes who is not in the
//!   group: FUSE does not say who is in which groups. Such modes are not made here;
//! - `O_TMPFILE` (FUSE has none) and device nodes (the mount has `nodev`): not used here.
//!
//! - [`step`]: what can be done. [`choose`]: at random. [`side`]: doing it. [`tree`]: what is there.

mod choose;
mod side;
mod step;
mod tree;

use std::{collections::VecDeque, path::Path};

use self::{choose::Chooser, side::Side, step::Step};
use crate::Rng;

/// Steps that are shown when something differs.
const SHOWN: usize = 200;
/// Steps between two comparisons of the whole trees.
const COMPARE_EVERY: u64 = 2_000;

/// Two directories that are to stay the same. See the module's head.
#[derive(Debug)]
pub struct Model {
    right: Side,
    chooser: Chooser,
    rng: Rng,
    steps: u64,
    last: VecDeque<String>,
}

impl Model {
    /// Begins with `local`, an empty directory on the local disk, as what is right.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn new(local: &Path, rng: Rng) -> Self {
        side::own_umask();
        Self {
            right: Side::new(local),
            chooser: Chooser::default(),
            rng,
            steps: 0,
            last: VecDeque::new(),
        }
    }

    /// Does `steps` random steps in the local directory and in `mount`, which is as the local one was
    /// left by the steps before. All handles are closed in the end.
    ///
    /// # Panics
    /// When an answer or the trees differ.
    pub fn run(&mut self, mount: &Path, steps: u64) {
        let mut tested = Side::new(mount);
        for _ in 0..steps {
            self.steps += 1;
            let step = self.chooser.next(&mut self.rng);
            let (right, got) = (self.right.apply(&step), tested.apply(&step));
            self.note(&step, &right);
            if right != got {
                let last = self.last.make_contiguous().join("\n");
                panic!(
                    "step {}: {step:?}\n  the local disk answers {right:?}\n  the mount answers      \
                     {got:?}\nthe steps before:\n{last}",
                    self.steps
                );
            }
            self.chooser.learn(&step, right.is_ok());
            if self.steps.is_multiple_of(COMPARE_EVERY) {
                self.compare(&tested);
            }
        }
        self.right.close_all();
        tested.close_all();
        self.compare(&tested);
    }

    fn note(&mut self, step: &Step, answer: &side::Answer) {
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        let mut line = format!("  {}: {step:?} -> {answer:?}", self.steps);
        if line.len() > 400 {
            let end = line.floor_char_boundary(400);
            line.truncate(end);
        }
        self.last.push_back(line);
    }

    fn compare(&self, tested: &Side) {
        let found = tree::differences(&self.right, tested);
        assert!(
            found.is_empty(),
            "the trees differ after step {}:\n{}",
            self.steps,
            found.join("\n")
        );
    }

    /// Compares the trees; for example with a mount that has nothing cached.
    ///
    /// # Panics
    /// When they differ.
    pub fn assert_same(&self, mount: &Path) {
        self.compare(&Side::new(mount));
    }
}
