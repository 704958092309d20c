//! Random operations against a simple model; after every round fsck finds nothing, also after starts
//! and power losses between groups.

use std::collections::BTreeMap;

use proptest::{
    prelude::Rng,
    test_runner::{RngAlgorithm, TestRng},
};

use super::*;

/// What a name leads to in the model.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Index into the directories.
    Directory(usize),
    /// Index into the files.
    File(usize),
}

/// One model file: chunks by index, length.
#[derive(Clone, Debug, Default)]
struct File {
    ino: u64,
    chunks: BTreeMap<u64, ChunkRef>,
    size: u64,
}

struct Model {
    directories: Vec<(u64, BTreeMap<String, Node>)>,
    files: Vec<File>,
}

impl Model {
    fn cut(&mut self, file: usize, size: u64) {
        let file = &mut self.files[file];
        file.size = size;
        let chunks = std::mem::take(&mut file.chunks);
        let keep = |(index, chunk): (u64, ChunkRef)| {
            let len = cairn_proto::range::len_within(index, size, CHUNK);
            chunk.clipped(len).map(|chunk| (index, chunk))
        };
        file.chunks = chunks.into_iter().filter_map(keep).collect();
    }
}

struct Run {
    rng: TestRng,
    store: Store,
    model: Model,
}

impl Run {
    fn new(seed: u8) -> Self {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let directories = vec![(ROOT, BTreeMap::new())];
        Self { rng, store: Store::new(), model: Model { directories, files: Vec::new() } }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn directory(&mut self) -> usize {
        self.below(self.model.directories.len() as u64) as usize
    }

    fn name(&mut self) -> String {
        format!("n{}", self.below(8))
    }

    fn file(&mut self) -> Option<usize> {
        let count = self.model.files.len() as u64;
        (count > 0).then(|| self.below(count) as usize)
    }

    fn step(&mut self) {
        let (at, name) = (self.directory(), self.name());
        let (dir, entries) = self.model.directories[at].clone();
        match self.below(10) {
            0 | 1 => {
                let made = self.store.create(dir, &name, FILE);
                assert_eq!(made.is_ok(), !entries.contains_key(&name));
                if let Ok(attr) = made {
                    self.model.files.push(File { ino: attr.ino, ..File::default() });
                    let node = Node::File(self.model.files.len() - 1);
                    self.model.directories[at].1.insert(name, node);
                }
            }
            2 => {
                let made = self.store.create(dir, &name, DIR);
                assert_eq!(made.is_ok(), !entries.contains_key(&name));
                if let Ok(attr) = made {
                    self.model.directories.push((attr.ino, BTreeMap::new()));
                    let node = Node::Directory(self.model.directories.len() - 1);
                    self.model.directories[at].1.insert(name, node);
                }
            }
            3 => {
                let removed = self.store.unlink(dir, &name);
                match entries.get(&name) {
                    None => assert_eq!(removed, Err(FsError::NotFound)),
                    Some(Node::Directory(_)) => assert_eq!(removed, Err(FsError::IsDirectory)),
                    Some(Node::File(_)) => {
                        removed.unwrap();
                        self.model.directories[at].1.remove(&name);
                    }
                }
            }
            4 => self.link(at, name),
            5 => self.truncate(),
            6 => self.clone_file(),
            7 => self.replace(at, &name),
            _ => self.write(),
        }
    }

    fn is_named(&self, file: usize) -> bool {
        let named = |(_, entries): &(u64, BTreeMap<String, Node>)| {
            entries.values().any(|node| *node == Node::File(file))
        };
        self.model.directories.iter().any(named)
    }

    fn link(&mut self, at: usize, name: String) {
        let Some(file) = self.file().filter(|file| self.is_named(*file)) else { return };
        let dir = self.model.directories[at].0;
        let linked = self.store.link(self.model.files[file].ino, dir, &name);
        let free = !self.model.directories[at].1.contains_key(&name);
        assert_eq!(linked.is_ok(), free);
        if free {
            self.model.directories[at].1.insert(name, Node::File(file));
        }
    }

    fn replace(&mut self, at: usize, name: &str) {
        let (to, new_name) = (self.directory(), self.name());
        let (from_dir, to_dir) = (self.model.directories[at].0, self.model.directories[to].0);
        let node = self.model.directories[at].1.get(name).cloned();
        let target = self.model.directories[to].1.get(&new_name).cloned();
        if !matches!(node, Some(Node::File(_))) || matches!(target, Some(Node::Directory(_))) {
            return;
        }
        self.store.rename((from_dir, name), (to_dir, &new_name), 0).unwrap();
        if node != target {
            self.model.directories[at].1.remove(name);
            self.model.directories[to].1.extend(node.map(|node| (new_name, node)));
        }
    }

    fn truncate(&mut self) {
        let Some(file) = self.file().filter(|file| self.is_named(*file)) else { return };
        let size = self.below(300 * 4096);
        self.store.set_size(self.model.files[file].ino, size).unwrap();
        self.model.cut(file, size);
    }

    fn clone_file(&mut self) {
        let (Some(src), Some(dst)) = (self.file(), self.file()) else { return };
        let named = self.is_named(src) && self.is_named(dst);
        let source = self.model.files[src].clone();
        if !named || src == dst || source.size < self.model.files[dst].size {
            return;
        }
        let start = self.below(source.size / 4096 + 1);
        let length = source.size - start * 4096;
        let inos = (source.ino, self.model.files[dst].ino);
        self.store.clone_range((inos.0, start * 4096), (inos.1, start * 4096), length).unwrap();
        let dst = &mut self.model.files[dst];
        dst.chunks.retain(|index, _| *index < start);
        dst.chunks.extend(source.chunks.into_iter().filter(|(index, _)| *index >= start));
        dst.size = if length == 0 { dst.size } else { source.size };
    }

    fn write(&mut self) {
        let Some(file) = self.file().filter(|file| self.is_named(*file)) else { return };
        let (first, count) = (self.below(300), 1 + self.below(40));
        let chunks: Vec<_> =
            (first..first + count).map(|i| (i, chunk(self.rng.next_u64(), CHUNK))).collect();
        let size = (first + count) * 4096;
        self.store.write(self.model.files[file].ino, &chunks, size);
        let file = &mut self.model.files[file];
        file.chunks.extend(chunks);
        file.size = file.size.max(size);
    }

    fn compare(&mut self) {
        for (dir, entries) in self.model.directories.clone() {
            let names: Vec<_> = entries.keys().cloned().collect();
            assert_eq!(self.store.names(dir), names);
        }
        for file in 0..self.model.files.len() {
            if self.is_named(file) {
                let file = self.model.files[file].clone();
                assert_eq!(self.store.attr(file.ino).unwrap().size, file.size);
                assert_eq!(self.store.manifest(file.ino), Vec::from_iter(file.chunks));
            }
        }
        self.store.check();
    }
}

#[test]
fn random_operations_match_a_model() {
    for seed in 0..4 {
        let mut run = Run::new(seed);
        for round in 0..600 {
            run.step();
            if run.below(8) == 0 {
                run.store.ns.commit().unwrap();
            }
            if round % 100 == 99 {
                run.compare();
            }
            if round % 250 == 249 {
                run.store.ns.commit().unwrap();
                run.store.restart();
                let session = cairn_proto::SessionId(run.store.session);
                run.store.ns.resume_session(session, run.store.seq + 1, &[]).unwrap();
                run.store.ns.settle();
            }
        }
        run.compare();
    }
}
