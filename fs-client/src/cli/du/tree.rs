//! [`Tree`]: the lines of the answer, and which file belongs to which.
//!
//! A line is a directory (or a PATH that is a file). A file belongs to the deepest line above it, and
//! what it takes counts for that line and every line above. Line 0 is everything outside of all PATHs.

use std::collections::{BTreeSet, HashMap};

use super::{Counted, DuRow};
use crate::cli::{failure::Failure, store::StorePath};

const OUTSIDE: u32 = 0;

struct Line {
    row: DuRow,
    /// The line that this one is in; [`OUTSIDE`]: none.
    parent: u32,
}

/// A directory that is being walked.
struct Level {
    path: Vec<u8>,
    line: u32,
    /// Levels below the PATH; without meaning outside.
    depth: u32,
}

/// See the head of this file.
pub(super) struct Tree {
    wanted: Vec<(StorePath, bool)>,
    depth_max: u32,
    lines: Vec<Line>,
    levels: Vec<Level>,
    /// Files with several names: length, and the lines of the names.
    linked: HashMap<u64, (u64, BTreeSet<u32>)>,
}

impl Tree {
    /// Lines for `paths` and the directories at most `depth_max` levels below them.
    pub(super) fn new(paths: &[StorePath], depth_max: u32) -> Self {
        Self {
            wanted: paths.iter().map(|path| (path.clone(), false)).collect(),
            depth_max,
            lines: vec![Line { row: row(b""), parent: OUTSIDE }],
            levels: Vec::new(),
            linked: HashMap::new(),
        }
    }

    /// The walk, which goes depth first, has come to `path`: the line that it belongs to.
    ///
    /// # Errors
    /// When there are more than four billion lines.
    pub(super) fn enter(&mut self, path: &[u8], is_dir: bool) -> Result<u32, Failure> {
        while self.levels.last().is_some_and(|level| !is_below(path, &level.path)) {
            self.levels.pop();
        }
        let (above, depth) = self.levels.last().map_or((OUTSIDE, 0), |l| (l.line, l.depth));
        let is_wanted = self.is_wanted(path);
        let depth = if is_wanted { 0 } else { depth.saturating_add(1) };
        let has_line = is_wanted || (is_dir && above != OUTSIDE && depth <= self.depth_max);
        let line = if has_line { self.add(path, above)? } else { above };
        if is_dir {
            self.levels.push(Level { path: path.to_vec(), line, depth });
        }
        Ok(line)
    }

    fn is_wanted(&mut self, path: &[u8]) -> bool {
        let mut is_wanted = false;
        for (wanted, found) in &mut self.wanted {
            let same = if wanted.is_root() { path.is_empty() } else { wanted.as_bytes() == path };
            *found |= same;
            is_wanted |= same;
        }
        is_wanted
    }

    fn add(&mut self, path: &[u8], parent: u32) -> Result<u32, Failure> {
        let number = u32::try_from(self.lines.len()).map_err(|_| {
            Failure::new("more directories than can be counted: give --depth or --summarize")
        })?;
        self.lines.push(Line { row: row(path), parent });
        Ok(number)
    }

    /// A file of `line`.
    pub(super) fn file(&mut self, line: u32, ino: u64, nlink: u32, size: u64) {
        if nlink > 1 {
            self.linked.entry(ino).or_insert((size, BTreeSet::new())).1.insert(line);
        } else {
            self.count_file(&BTreeSet::from([line]), size);
        }
    }

    fn count_file(&mut self, lines: &BTreeSet<u32>, size: u64) {
        let mut all = BTreeSet::new();
        for line in lines {
            all.extend(self.with_parents(*line));
        }
        for line in all {
            let row = &mut self.lines[line as usize].row;
            row.files += 1;
            row.logical_bytes += size;
        }
    }

    /// All references to one chunk.
    pub(super) fn chunk(&mut self, references: &[Counted]) {
        let all: u64 = references.iter().map(|c| c.count).sum();
        let mut counts: HashMap<u32, u64> = HashMap::new();
        for counted in references {
            for line in self.with_parents(counted.place) {
                *counts.entry(line).or_default() += counted.count;
            }
        }
        let len = references.first().map_or(0, |c| u64::from(c.stored_len));
        for (line, count) in counts {
            let row = &mut self.lines[line as usize].row;
            row.stored_bytes += len;
            if count < all {
                row.shared_bytes += len;
            }
        }
    }

    fn with_parents(&self, line: u32) -> impl Iterator<Item = u32> + '_ {
        let parent = |line: &u32| Some(self.lines[*line as usize].parent);
        std::iter::successors(Some(line), parent).take_while(|line| *line != OUTSIDE)
    }

    /// A path that the walk did not come to.
    pub(super) fn not_found(&self) -> Option<&StorePath> {
        self.wanted.iter().find(|(_, found)| !found).map(|(path, _)| path)
    }

    /// Everything was given.
    pub(super) fn finish(&mut self) {
        for (size, lines) in std::mem::take(&mut self.linked).into_values() {
            self.count_file(&lines, size);
        }
    }

    /// The lines, those below before those above.
    pub(super) fn rows(self) -> Vec<DuRow> {
        self.lines.into_iter().skip(1).rev().map(|line| line.row).collect()
    }
}

/// Whether `path` is in the directory `above`.
fn is_below(path: &[u8], above: &[u8]) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
}

fn row(path: &[u8]) -> DuRow {
    DuRow {
        path: format!("/{}", String::from_utf8_lossy(path)),
        files: 0,
        logical_bytes: 0,
        stored_bytes: 0,
        shared_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use cairn_proto::ChunkId;

    use super::*;

    fn counted(place: u32, count: u64) -> Counted {
        Counted { id: ChunkId::of(b"chunk"), place, stored_len: 100, count }
    }

    #[test]
    fn lines_follow_the_depth_and_paths_within_paths_are_counted_in_both() {
        let paths = [StorePath::new(OsStr::new("a")), StorePath::new(OsStr::new("/a/b/c"))];
        let mut tree = Tree::new(&paths, 1);
        let mut enter = |path: &str, is_dir| tree.enter(path.as_bytes(), is_dir).unwrap();
        assert_eq!(enter("", true), OUTSIDE);
        let a = enter("a", true);
        let b = enter("a/b", true);
        let c = enter("a/b/c", true);
        assert_eq!(enter("a/b/c/file", false), c);
        let d = enter("a/b/c/d", true);
        assert_eq!(enter("a/b/c/d/e", true), d);
        assert_eq!(enter("a/x", false), a);
        assert_eq!(enter("ab", false), OUTSIDE);
        assert_eq!([a, b, c, d], [1, 2, 3, 4]);
        tree.file(d, 7, 2, 10);
        tree.file(a, 7, 2, 10);
        tree.file(OUTSIDE, 8, 1, 99);
        tree.chunk(&[counted(d, 2), counted(b, 1)]);
        tree.chunk(&[counted(a, 1), counted(OUTSIDE, 1)]);
        tree.finish();
        assert!(tree.not_found().is_none());
        let rows = tree.rows();
        let shown: Vec<_> = rows
            .iter()
            .map(|r| (r.path.as_str(), r.files, r.logical_bytes, r.stored_bytes, r.shared_bytes))
            .collect();
        assert_eq!(
            shown,
            [
                ("/a/b/c/d", 1, 10, 100, 100),
                ("/a/b/c", 1, 10, 100, 100),
                ("/a/b", 1, 10, 100, 0),
                ("/a", 1, 10, 200, 100),
            ]
        );
    }
}
