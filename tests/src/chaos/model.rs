//! [`Model`]: what the directory of one client must hold after what it has written down.
//!
//! An acknowledged action has exactly one effect. One that failed, or never ended, may have happened,
//! not happened, or (where it consists of several writes) have come to a prefix of itself: every such
//! outcome is a [`World`], and the client leaves all names alone that differ between them. So doubts
//! never add up.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, beside};

/// Bytes that are committed together.
const CHUNK: usize = 65_536;

/// A file's identity: names with the same number are links of one file.
pub type FileId = u64;

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File(FileId),
    /// A directory.
    Dir,
}

/// What may be found under a name after an action in doubt.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// A directory.
    Dir,
    /// A file with these bytes.
    Exactly(Vec<u8>),
    /// A file that begins with the first bytes and goes on with any prefix of the second.
    Prefix(Vec<u8>, Vec<u8>),
    /// A file of which each chunk is that of one or of the other; both are of the same length.
    Mixed(Vec<u8>, Vec<u8>),
}

impl Expect {
    /// Whether `found` (absent: no file) fits. `is_dir`: it is a directory.
    pub fn fits(&self, found: Option<&[u8]>, is_dir: bool) -> bool {
        match (self, found) {
            (Self::Absent, None) => !is_dir,
            (Self::Dir, None) => is_dir,
            (Self::Exactly(bytes), Some(found)) => bytes == found,
            (Self::Prefix(first, more), Some(found)) => {
                found.strip_prefix(first.as_slice()).is_some_and(|rest| more.starts_with(rest))
            }
            (Self::Mixed(one, other), Some(found)) => {
                let chunks = one.chunks(CHUNK).zip(other.chunks(CHUNK));
                let found = (found.len(), found.chunks(CHUNK));
                found.0 == one.len()
                    && found.1.zip(chunks).all(|(found, (a, b))| found == a || found == b)
            }
            (Self::Absent | Self::Dir, Some(_))
            | (Self::Exactly(_) | Self::Prefix(..) | Self::Mixed(..), None) => false,
        }
    }
}

/// What the names in doubt are in one of the possible outcomes.
pub type World = Vec<(String, Expect)>;

/// An action of which nobody knows whether it happened.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// The action, and why nobody knows.
    pub what: String,
    /// One of these holds.
    pub worlds: Vec<World>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Model {
    names: BTreeMap<String, Node>,
    files: BTreeMap<FileId, Vec<u8>>,
    doubts: Vec<Doubt>,
    last: FileId,
}

impl Model {
    /// Names that are certain.
    pub const fn names(&self) -> &BTreeMap<String, Node> {
        &self.names
    }

    /// The bytes of a file.
    pub fn bytes(&self, file: FileId) -> &[u8] {
        self.files.get(&file).map_or(&[], Vec::as_slice)
    }

    /// The bytes of the file with this name; nothing when it is none.
    pub fn content(&self, name: &str) -> Option<&[u8]> {
        match self.names.get(name) {
            Some(Node::File(file)) => Some(self.bytes(*file)),
            Some(Node::Dir) | None => None,
        }
    }

    /// What is not certain.
    pub fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// All names that something uncertain was done with.
    pub fn doubtful_names(&self) -> BTreeSet<&str> {
        let worlds = self.doubts.iter().flat_map(|d| &d.worlds).flatten();
        worlds.map(|(name, _)| name.as_str()).collect()
    }

    /// The action was acknowledged.
    pub fn happened(&mut self, action: &Action) {
        match action {
            Action::Create(name, content, _) => self.new_file(name, content.bytes()),
            Action::Replace(name, content) => {
                self.forget(name);
                self.new_file(name, content.bytes());
            }
            Action::Append(name, content, _) => {
                self.change(name, |bytes| bytes.extend(content.bytes()));
            }
            Action::Overwrite(name, at, content, _) => {
                self.change(name, |bytes| overwrite(bytes, *at, &content.bytes()));
            }
            Action::Truncate(name, len) => self.change(name, |bytes| bytes.truncate(index(*len))),
            Action::Rename(from, to) => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.clone(), node);
                }
            }
            Action::Link(from, to) => {
                if let Some(node) = self.names.get(from) {
                    self.names.insert(to.clone(), *node);
                }
            }
            Action::Remove(name) | Action::RemoveDir(name) => self.forget(name),
            Action::MakeDir(name) => {
                self.names.insert(name.clone(), Node::Dir);
            }
            Action::Read(_) => {}
        }
    }

    /// Nobody knows whether it happened, because of `why`.
    pub fn in_doubt(&mut self, action: &Action, why: &str) {
        let mut worlds = self.worlds(action);
        // A link that stays certain would go on changing what the others are expected to be.
        let links = self.other_links(&worlds);
        worlds.iter_mut().for_each(|world| world.extend(links.iter().cloned()));
        for (name, _) in worlds.iter().flatten() {
            self.names.remove(name);
        }
        let used: BTreeSet<FileId> = self.used_files();
        self.files.retain(|file, _| used.contains(file));
        if !worlds.is_empty() {
            self.doubts.push(Doubt { what: format!("{action}: {why}"), worlds });
        }
    }

    fn worlds(&self, action: &Action) -> Vec<World> {
        let now = |name: &String| (name.clone(), self.expect(name));
        match action {
            Action::Create(name, content, _) => {
                let some = Expect::Prefix(Vec::new(), content.bytes());
                vec![vec![(name.clone(), Expect::Absent)], vec![(name.clone(), some)]]
            }
            Action::Replace(name, content) => {
                let new = beside(name);
                let some = Expect::Prefix(Vec::new(), content.bytes());
                let renamed = (name.clone(), Expect::Exactly(content.bytes()));
                vec![
                    vec![now(name), (new.clone(), Expect::Absent)],
                    vec![now(name), (new.clone(), some)],
                    vec![renamed, (new, Expect::Absent)],
                ]
            }
            Action::Append(name, content, _) => {
                let old = self.content(name).unwrap_or_default().to_vec();
                vec![self.under_all_names(name, &Expect::Prefix(old, content.bytes()))]
            }
            Action::Overwrite(name, at, content, _) => {
                let old = self.content(name).unwrap_or_default().to_vec();
                let mut new = old.clone();
                overwrite(&mut new, *at, &content.bytes());
                vec![self.under_all_names(name, &Expect::Mixed(old, new))]
            }
            Action::Truncate(name, len) => {
                let old = self.content(name).unwrap_or_default().to_vec();
                let mut new = old.clone();
                new.truncate(index(*len));
                [old, new].map(|b| self.under_all_names(name, &Expect::Exactly(b))).into()
            }
            Action::Rename(from, to) => {
                let after = vec![(from.clone(), Expect::Absent), (to.clone(), self.expect(from))];
                vec![vec![now(from), now(to)], after]
            }
            Action::Link(from, to) => {
                vec![vec![now(from), now(to)], vec![now(from), (to.clone(), self.expect(from))]]
            }
            Action::Remove(name) | Action::RemoveDir(name) => {
                vec![vec![now(name)], vec![(name.clone(), Expect::Absent)]]
            }
            Action::MakeDir(name) => vec![vec![now(name)], vec![(name.clone(), Expect::Dir)]],
            Action::Read(_) => Vec::new(),
        }
    }

    fn expect(&self, name: &str) -> Expect {
        match self.names.get(name) {
            None => Expect::Absent,
            Some(Node::Dir) => Expect::Dir,
            Some(Node::File(file)) => Expect::Exactly(self.bytes(*file).to_vec()),
        }
    }

    /// The links of `name`'s file, all with the same expectation.
    fn under_all_names(&self, name: &str, expect: &Expect) -> World {
        let node = self.names.get(name);
        let links = self.names.iter().filter(|(_, other)| Some(*other) == node);
        links.map(|(link, _)| (link.clone(), expect.clone())).collect()
    }

    /// What else the files in these worlds are called.
    fn other_links(&self, worlds: &[World]) -> World {
        let named: BTreeSet<&String> = worlds.iter().flatten().map(|(name, _)| name).collect();
        let files: Vec<_> = named
            .iter()
            .filter_map(|name| self.names.get(*name))
            .filter(|node| matches!(node, Node::File(_)))
            .collect();
        let links = self.names.iter().filter(|(_, node)| files.contains(node));
        let others = links.filter(|(link, _)| !named.contains(link));
        others.map(|(link, _)| (link.clone(), self.expect(link))).collect()
    }

    fn used_files(&self) -> BTreeSet<FileId> {
        let file = |node: &Node| match node {
            Node::File(file) => Some(*file),
            Node::Dir => None,
        };
        self.names.values().filter_map(file).collect()
    }

    fn new_file(&mut self, name: &str, bytes: Vec<u8>) {
        self.last += 1;
        self.files.insert(self.last, bytes);
        self.names.insert(name.to_owned(), Node::File(self.last));
    }

    fn change(&mut self, name: &str, with: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Node::File(file)) = self.names.get(name)
            && let Some(bytes) = self.files.get_mut(file)
        {
            with(bytes);
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(node @ Node::File(file)) = self.names.remove(name)
            && !self.names.values().any(|other| *other == node)
        {
            self.files.remove(&file);
        }
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn overwrite(bytes: &mut [u8], at: u64, with: &[u8]) {
    if let Some(part) = bytes.get_mut(index(at)..).and_then(|b| b.get_mut(..with.len())) {
        part.copy_from_slice(with);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::action::{Content, Safe},
        *,
    };

    fn create(name: &str, seed: u64, len: usize) -> Action {
        Action::Create(name.into(), Content { seed, len }, Safe::Closed)
    }

    fn fits(world: &World, found: &[(&str, Option<&[u8]>)]) -> bool {
        world.iter().all(|(name, expect)| {
            let found = found.iter().find(|(n, _)| n == name).and_then(|(_, bytes)| *bytes);
            expect.fits(found, false)
        })
    }

    #[test]
    fn links_change_together_and_end_one_by_one() {
        let mut model = Model::default();
        model.happened(&create("a", 1, 100));
        model.happened(&Action::Link("a".into(), "b".into()));
        model.happened(&Action::Truncate("b".into(), 10));
        assert_eq!(model.content("a").unwrap().len(), 10);
        model.happened(&Action::Remove("a".into()));
        assert_eq!(model.content("b").unwrap().len(), 10);
        model.happened(&Action::Remove("b".into()));
        assert!(model.names().is_empty() && model.files.is_empty());
    }

    #[test]
    fn a_rename_in_doubt_may_not_lose_the_file() {
        let mut model = Model::default();
        model.happened(&create("a", 1, 100));
        let bytes = model.content("a").unwrap().to_vec();
        model.in_doubt(&Action::Rename("a".into(), "b".into()), "EIO");
        let worlds = &model.doubts()[0].worlds;
        let any = |found: &[(&str, Option<&[u8]>)]| worlds.iter().any(|w| fits(w, found));
        assert!(any(&[("a", Some(&bytes))]) && any(&[("b", Some(&bytes))]));
        assert!(!any(&[]), "lost");
        assert!(!any(&[("a", Some(&bytes)), ("b", Some(&bytes))]), "twice");
        assert!(model.names().is_empty() && model.doubtful_names().len() == 2);
    }

    #[test]
    fn what_is_done_with_a_link_does_not_change_what_is_expected_of_a_name_in_doubt() {
        let mut model = Model::default();
        model.happened(&create("a", 1, 100));
        model.happened(&Action::Link("a".into(), "b".into()));
        let bytes = model.content("a").unwrap().to_vec();
        model.in_doubt(&Action::Remove("a".into()), "EIO");
        assert!(model.names().is_empty(), "nothing is done with the other name");
        let worlds = &model.doubts()[0].worlds;
        let any = |found: &[(&str, Option<&[u8]>)]| worlds.iter().any(|w| fits(w, found));
        assert!(any(&[("a", Some(&bytes)), ("b", Some(&bytes))]) && any(&[("b", Some(&bytes))]));
        assert!(!any(&[]) && !any(&[("a", Some(&bytes))]), "the other name is lost");
    }

    #[test]
    fn an_append_in_doubt_is_a_prefix_under_every_name() {
        let mut model = Model::default();
        model.happened(&create("a", 1, 100));
        model.happened(&Action::Link("a".into(), "b".into()));
        let old = model.content("a").unwrap().to_vec();
        let more = Content { seed: 2, len: 50 };
        model.in_doubt(&Action::Append("b".into(), more, Safe::Synced), "EIO");
        let world = &model.doubts()[0].worlds[0];
        let half = [&old[..], &more.bytes()[..20]].concat();
        assert!(fits(world, &[("a", Some(&half)), ("b", Some(&half))]));
        let zeros = [&old[..], &[0; 20]].concat();
        assert!(!fits(world, &[("a", Some(&zeros)), ("b", Some(&zeros))]));
        assert!(!fits(world, &[("a", Some(&half))]), "one of the names is gone");
    }

    #[test]
    fn chunks_of_an_overwrite_in_doubt_are_old_or_new() {
        let (old, new) = (vec![1; 2 * CHUNK], vec![2; 2 * CHUNK]);
        let mixed = Expect::Mixed(old.clone(), new.clone());
        let half = [&new[..CHUNK], &old[CHUNK..]].concat();
        assert!(mixed.fits(Some(&half), false));
        let torn = [&new[..CHUNK + 5], &old[CHUNK + 5..]].concat();
        assert!(!mixed.fits(Some(&torn), false));
    }
}
