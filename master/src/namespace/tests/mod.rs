//! What operations do, seen from outside: requests in, replies and fsck out.

mod acls;
mod crash;
mod files;
mod locks;
mod model;
mod names;
mod paths;
mod rename;
mod repair;
mod sessions;
mod stamps;

use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::{ChunkId, ChunkRef, FsError, manifest::to_wire, pb, status};
use pb::{op, reply};

use super::{FsckProgress, Namespace, Origin, Params};
use crate::{
    clock::ManualClock,
    engine::{Engine, memory::MemoryEngine},
};

const CHUNK: u32 = 4096;
const ROOT: u64 = 1;
const FILE: u32 = libc::S_IFREG | 0o644;
const DIR: u32 = libc::S_IFDIR | 0o755;

struct Store {
    engine: Arc<dyn Engine>,
    clock: Arc<ManualClock>,
    ns: Namespace,
    session: u64,
    seq: u64,
}

impl Store {
    fn new() -> Self {
        Self::on(Arc::new(MemoryEngine::new()))
    }

    fn on(engine: Arc<dyn Engine>) -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let params = Params { chunk_size: CHUNK, clock: Arc::clone(&clock) as _ };
        let mut ns = Namespace::open(Arc::clone(&engine), params).unwrap();
        let session = ns.open_session("test").unwrap().0;
        ns.commit().unwrap();
        Self { engine, clock, ns, session, seq: 0 }
    }

    /// A master that starts on what the engine holds. The session goes on in it.
    fn restart(&mut self) {
        let params = Params { chunk_size: CHUNK, clock: Arc::clone(&self.clock) as _ };
        self.ns = Namespace::open(Arc::clone(&self.engine), params).unwrap();
    }

    fn send(&mut self, origin: Origin, kind: op::Kind) -> Result<reply::Kind, FsError> {
        let caller = Some(pb::Caller { uid: 1000, gid: 100, pid: 1 });
        let reply = self.ns.execute(origin, &pb::Op { caller, kind: Some(kind) });
        match reply.kind.unwrap() {
            reply::Kind::Error(detail) => Err(status::fs_error(&detail)),
            kind => Ok(kind),
        }
    }

    fn origin(&self, seq: u64) -> Origin {
        Origin { session: self.session, seq, acked_below: seq }
    }

    fn op(&mut self, kind: op::Kind) -> Result<reply::Kind, FsError> {
        self.seq += 1;
        self.send(self.origin(self.seq), kind)
    }

    fn create(&mut self, parent: u64, name: &str, mode: u32) -> Result<pb::Attr, FsError> {
        let request = pb::Create {
            parent,
            name: Bytes::copy_from_slice(name.as_bytes()),
            mode,
            exclusive: true,
            target: if mode & libc::S_IFMT == libc::S_IFLNK { "target".into() } else { "".into() },
            ..pb::Create::default()
        };
        match self.op(op::Kind::Create(request))? {
            reply::Kind::Entry(entry) => Ok(entry.attr.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn file(&mut self, parent: u64, name: &str) -> u64 {
        self.create(parent, name, FILE).unwrap().ino
    }

    fn mkdir(&mut self, parent: u64, name: &str) -> u64 {
        self.create(parent, name, DIR).unwrap().ino
    }

    fn lookup(&mut self, parent: u64, name: &str) -> Result<pb::Attr, FsError> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        match self.op(op::Kind::Lookup(pb::Lookup { parent, name }))? {
            reply::Kind::Entry(entry) => Ok(entry.attr.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn attr(&mut self, ino: u64) -> Result<pb::Attr, FsError> {
        match self.op(op::Kind::GetAttr(pb::GetAttr { ino }))? {
            reply::Kind::Attr(attr) => Ok(attr.attr.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn link(&mut self, ino: u64, parent: u64, name: &str) -> Result<pb::Attr, FsError> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        match self.op(op::Kind::Link(pb::Link { ino, parent, name }))? {
            reply::Kind::Entry(entry) => Ok(entry.attr.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn unlink(&mut self, parent: u64, name: &str) -> Result<(), FsError> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.op(op::Kind::Unlink(pb::Unlink { parent, name })).map(drop)
    }

    fn rmdir(&mut self, parent: u64, name: &str) -> Result<(), FsError> {
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.op(op::Kind::Rmdir(pb::Rmdir { parent, name })).map(drop)
    }

    fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Result<(), FsError> {
        let request = pb::Rename {
            parent: from.0,
            name: Bytes::copy_from_slice(from.1.as_bytes()),
            new_parent: to.0,
            new_name: Bytes::copy_from_slice(to.1.as_bytes()),
            flags,
        };
        self.op(op::Kind::Rename(request)).map(drop)
    }

    fn open(&mut self, ino: u64, truncate: bool) -> Result<pb::Opened, FsError> {
        match self.op(op::Kind::Open(pb::Open { ino, truncate }))? {
            reply::Kind::Opened(opened) => Ok(opened),
            other => panic!("{other:?}"),
        }
    }

    fn release(&mut self, ino: u64) {
        self.op(op::Kind::Release(pb::Release { inodes: vec![ino] })).unwrap();
    }

    fn commit_file(&mut self, commit: pb::Commit) -> Result<pb::Committed, FsError> {
        match self.op(op::Kind::Commit(commit))? {
            reply::Kind::Committed(committed) => Ok(committed),
            other => panic!("{other:?}"),
        }
    }

    /// Writes chunks over whatever is there and lets the file be at least `size` long.
    fn write(&mut self, ino: u64, chunks: &[(u64, ChunkRef)], size: u64) -> pb::Committed {
        let now = self.manifest(ino);
        let find = |index: u64| now.iter().find(|(i, _)| *i == index).map(|(_, chunk)| *chunk);
        let changes = chunks.iter().map(|(index, new)| change(*index, find(*index), Some(*new)));
        let commit = pb::Commit {
            ino,
            changes: changes.collect(),
            size: Some(pb::commit::Size::GrowTo(size)),
            ..pb::Commit::default()
        };
        let committed = self.commit_file(commit).unwrap();
        assert!(committed.applied);
        committed
    }

    /// All references, read in pages of at most 50.
    fn manifest(&mut self, ino: u64) -> Vec<(u64, ChunkRef)> {
        let mut all = Vec::new();
        let mut first_index = 0;
        loop {
            let request = pb::GetFileManifest { ino, first_index, max_refs: 50 };
            let page = match self.op(op::Kind::GetFileManifest(request)).unwrap() {
                reply::Kind::ManifestPage(page) => page,
                other => panic!("{other:?}"),
            };
            for run in page.runs {
                let refs = run.refs.iter().map(|r| cairn_proto::manifest::from_wire(r).unwrap());
                all.extend((run.first_index..).zip(refs.map(Option::unwrap)));
            }
            if page.end {
                return all;
            }
            assert!(page.next_index > first_index);
            first_index = page.next_index;
        }
    }

    fn set_size(&mut self, ino: u64, size: u64) -> Result<pb::Attr, FsError> {
        let request = pb::SetAttr { ino, size: Some(size), ..pb::SetAttr::default() };
        self.set_attr(request)
    }

    fn set_attr(&mut self, request: pb::SetAttr) -> Result<pb::Attr, FsError> {
        match self.op(op::Kind::SetAttr(request))? {
            reply::Kind::Attr(attr) => Ok(attr.attr.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn clone_range(
        &mut self,
        src: (u64, u64),
        dst: (u64, u64),
        length: u64,
    ) -> Result<pb::Attr, FsError> {
        let request = pb::CloneRange {
            src_ino: src.0,
            src_offset: src.1,
            dst_ino: dst.0,
            dst_offset: dst.1,
            length,
        };
        match self.op(op::Kind::CloneRange(request))? {
            reply::Kind::Committed(committed) => Ok(committed.attr.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn read_dir(&mut self, ino: u64, cookie: u64, max_entries: u32) -> pb::DirPage {
        let request = pb::ReadDir { ino, cookie, max_entries, with_attrs: true };
        match self.op(op::Kind::ReadDir(request)).unwrap() {
            reply::Kind::DirPage(page) => page,
            other => panic!("{other:?}"),
        }
    }

    fn names(&mut self, ino: u64) -> Vec<String> {
        let mut names = Vec::new();
        let mut cookie = 0;
        loop {
            let page = self.read_dir(ino, cookie, 3);
            for entry in page.entries {
                names.push(String::from_utf8(entry.name.to_vec()).unwrap());
                assert_eq!(entry.attr.unwrap().ino, entry.ino);
                assert!(entry.cookie > cookie.max(2));
                cookie = entry.cookie;
            }
            if page.end {
                names.sort();
                return names;
            }
        }
    }

    /// Commits, frees all there is to free.
    fn settle(&mut self) {
        self.ns.commit().unwrap();
        while self.ns.reclaim_step().unwrap() {}
        self.ns.commit().unwrap();
    }

    fn findings(&mut self) -> Vec<String> {
        self.ns.commit().unwrap();
        let mut findings = Vec::new();
        let mut done = false;
        let mut report = |progress: FsckProgress| {
            findings.extend(progress.findings.into_iter().map(|finding| finding.what));
            done = progress.done;
            true
        };
        self.ns.view().unwrap().fsck(&mut report).unwrap();
        assert!(done);
        findings
    }

    #[track_caller]
    fn check(&mut self) {
        assert_eq!(self.findings(), Vec::<String>::new(), "before freeing");
        self.settle();
        assert_eq!(self.findings(), Vec::<String>::new(), "after freeing");
    }

    fn rows(&self, table: crate::tables::keys::Table) -> usize {
        self.engine.scan(table.all(), crate::engine::Direction::Forward).count()
    }
}

/// A chunk of `len` bytes whose content `tag` stands for.
fn chunk(tag: u64, len: u32) -> ChunkRef {
    let id = ChunkId::of(&tag.to_be_bytes());
    ChunkRef { id, stored_len: len, logical_len: len, codec: cairn_proto::Codec::Plain }
}

fn change(index: u64, expected: Option<ChunkRef>, new: Option<ChunkRef>) -> pb::ChunkChange {
    pb::ChunkChange { index, expected: Some(to_wire(expected)), new: Some(to_wire(new)) }
}
