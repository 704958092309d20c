//! Whole paths: resolve, announce, list; walks and their damage.

use cairn_proto::Ino;

use super::*;
use crate::{engine::Batch, tables::keys};

fn whole(tag: u64) -> ChunkRef {
    chunk(tag, CHUNK)
}

fn all_files(store: &mut Store, page: u32) -> Vec<String> {
    let mut files = Vec::new();
    let mut token = String::new();
    loop {
        let (page, next) = store.ns.list_files(&token, page).unwrap();
        files.extend(page);
        if next.is_empty() {
            files.sort();
            return files;
        }
        token = next;
    }
}

#[test]
fn an_announced_file_is_there_with_its_directories() {
    let mut store = Store::new();
    let mut refs: Vec<_> = (0..200).map(whole).collect();
    refs.push(chunk(200, 5));
    store.ns.announce("a/b/file", &refs, &[7, 9], 1).unwrap();
    assert_eq!(store.ns.degraded_groups(), [7, 9]);
    let attr = store.ns.resolve("/a/b/file").unwrap();
    assert_eq!((attr.size, attr.mode), (200 * 4096 + 5, FILE));
    let page = store.ns.manifest_page(attr.ino, 150, 10).unwrap();
    assert_eq!((page.runs[0].refs.len(), page.next_index, page.end), (10, 160, false));
    store.check();

    let a = store.lookup(ROOT, "a").unwrap().ino;
    let b = store.lookup(a, "b").unwrap().ino;
    store.open(attr.ino.get(), false).unwrap();
    store.ns.announce("a/b/file", &[chunk(7, 3)], &[9], 1).unwrap();
    assert_eq!(store.ns.resolve("a/b/file").unwrap().size, 3);
    assert_eq!(store.manifest(attr.ino.get()).len(), 201, "who had it open keeps what he read");
    assert_eq!(store.names(b), ["file"]);
    store.check();
    store.ns.announce("empty", &[], &[], 1).unwrap();
    assert_eq!(store.ns.resolve("empty").unwrap().size, 0);
}

#[test]
fn nonsense_is_not_announced() {
    let mut store = Store::new();
    store.file(ROOT, "f");
    store.mkdir(ROOT, "d");
    let mut announce = |name: &str, refs: Vec<_>| store.ns.announce(name, &refs, &[], 1);
    assert_eq!(announce("x", vec![chunk(1, 5), whole(2)]), Err(FsError::InvalidArgument));
    assert_eq!(announce("x", vec![chunk(1, CHUNK + 1)]), Err(FsError::InvalidArgument));
    assert_eq!(announce("", vec![]), Err(FsError::InvalidArgument));
    assert_eq!(announce("a/../x", vec![]), Err(FsError::InvalidArgument));
    assert_eq!(announce("new/x/", vec![]), Err(FsError::IsDirectory));
    assert_eq!(announce("d", vec![]), Err(FsError::IsDirectory));
    assert_eq!(announce("f/x", vec![]), Err(FsError::NotDirectory));
    assert_eq!(announce("new/f/x\0", vec![]), Err(FsError::InvalidArgument));
    assert_eq!(announce(&"x/".repeat(3000), vec![]), Err(FsError::NameTooLong));
    assert_eq!(store.names(ROOT), ["d", "f"]);
    store.check();
}

#[test]
fn listing_pages_through_all_files() {
    let mut store = Store::new();
    let mut expected = Vec::new();
    for i in 0..30 {
        let name = format!("d{}/e{}/f{i}", i % 3, i % 5);
        store.ns.announce(&name, &[], &[], 1).unwrap();
        expected.push(name);
    }
    store.create(ROOT, "link", libc::S_IFLNK | 0o777).unwrap();
    store.mkdir(ROOT, "nothing in it");
    expected.sort();
    for page in [1, 2, 7, 30, 0] {
        assert_eq!(all_files(&mut store, page), expected);
    }
    assert_eq!(store.ns.list_files("x.y", 1), Err(FsError::InvalidArgument));
    let (first, token) = store.ns.list_files("", 1).unwrap();
    assert_eq!(first, ["d0/e0/f0"]);
    let d0 = store.lookup(ROOT, "d0").unwrap().ino;
    store.rename((ROOT, "d0"), (ROOT, "moved"), 0).unwrap();
    let (next, _) = store.ns.list_files(&token, 1).unwrap();
    assert!(next[0].starts_with("d1/"), "goes on behind what is gone: {next:?}");
    assert_eq!(store.names(d0).len(), 5);
}

#[test]
fn a_walk_shows_everything_as_it_was() {
    let mut store = Store::new();
    store.ns.announce("a/one", &(0..5000).map(whole).collect::<Vec<_>>(), &[], 1).unwrap();
    store.ns.announce("two", &[chunk(1, 9)], &[], 1).unwrap();
    store.ns.commit().unwrap();
    let view = store.ns.view().unwrap();
    store.unlink(ROOT, "two").unwrap();
    store.settle();
    let entries: Vec<_> = view.walk("", true).unwrap().map(Result::unwrap).collect();
    let mut paths: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
    paths.dedup();
    assert_eq!(paths, ["", "a", "a/one", "two"]);
    let refs: usize = entries.iter().flat_map(|e| &e.runs).map(|run| run.refs.len()).sum();
    assert_eq!(refs, 5001);
    let more: Vec<_> = entries.iter().map(|entry| entry.more).collect();
    assert_eq!(more, [false, false, true, true, false, false]);
    let below: Vec<_> = view.walk("a", false).unwrap().map(|e| e.unwrap().path).collect();
    assert_eq!(below, ["a", "a/one"]);
    assert_eq!(view.walk("b", false).err(), Some(FsError::NotFound));
    let now = store.ns.view().unwrap();
    assert_eq!(now.walk("", false).unwrap().count(), 3);
}

/// Damages one row and returns what fsck says.
fn damage(store: &mut Store, key: Bytes, value: Option<Bytes>) -> Vec<String> {
    store.ns.commit().unwrap();
    let before = store.engine.get(&key).unwrap();
    let epoch = store.ns.incarnation();
    let write = |value| {
        let writes = [(key.clone(), value)].into();
        store.engine.commit(Batch { writes }, epoch).unwrap();
    };
    write(value);
    let mut findings = Vec::new();
    let mut report = |progress: FsckProgress| {
        findings.extend(progress.findings.into_iter().map(|finding| finding.what));
        true
    };
    store.ns.view().unwrap().fsck(&mut report).unwrap();
    write(before);
    findings
}

#[test]
fn fsck_finds_every_kind_of_missing_row() {
    let mut store = Store::new();
    store.ns.announce("d/file", &(0..300).map(whole).collect::<Vec<_>>(), &[], 1).unwrap();
    let file = store.ns.resolve("d/file").unwrap().ino.get();
    let dir = store.ns.resolve("d").unwrap().ino.get();
    let clone = store.file(ROOT, "clone");
    store.clone_range((file, 0), (clone, 0), 300 * 4096).unwrap();
    let orphan = store.file(ROOT, "orphan");
    store.open(orphan, false).unwrap();
    store.unlink(ROOT, "orphan").unwrap();
    store.check();
    let shared = store.ns.list_entry(file, 1).unwrap().unwrap().segment;
    let cookie = store.read_dir(dir, 0, 1).entries[0].cookie;
    for (key, expected) in [
        (keys::inode(file), "does not exist"),
        (keys::inode(dir), "no directory"),
        (keys::inode(ROOT), "no root directory"),
        (keys::dentry(dir, b"file"), "0 names, should have 1"),
        (keys::dentry(ROOT, b"d"), "0 names, should have 1"),
        (keys::cookie(dir, cookie), "listings do not show"),
        (keys::segment(shared), "is missing"),
        (keys::share(shared), "2 users, should have 1"),
        (keys::list(clone, 0), "1 users, should have 2"),
        (keys::orphan(orphan), "not listed as an orphan"),
        (keys::counters(), "usage counters"),
    ] {
        let findings = damage(&mut store, key.clone(), None);
        let found = findings.iter().any(|finding| finding.contains(expected));
        assert!(found, "{}: {findings:?}", key.escape_ascii());
    }
    for key in [keys::share(999), keys::orphan(file), keys::segment(9999), keys::list(777, 0)] {
        let findings = damage(&mut store, key.clone(), Some(Bytes::new()));
        assert!(!findings.is_empty(), "{}", key.escape_ascii());
    }
    store.check();
}

#[test]
fn fsck_finds_a_loop() {
    use prost::Message;
    let mut store = Store::new();
    let a = store.mkdir(ROOT, "a");
    let b = store.mkdir(a, "b");
    let mut row = store.ns.inode(a).unwrap().row;
    row.parent = b;
    let findings = damage(&mut store, keys::inode(a), Some(row.encode_to_vec().into()));
    assert!(findings.iter().any(|finding| finding.contains("loop")), "{findings:?}");
}

#[test]
fn damaged_rows_are_errors_not_panics() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.write(ino, &[(200, whole(1))], 201 * 4096);
    store.ns.commit().unwrap();
    let segment = store.ns.list_entry(ino, 1).unwrap().unwrap().segment;
    let garbage = Some(Bytes::from_static(&[0xff; 40]));
    let writes =
        [(keys::segment(segment), garbage.clone()), (keys::dentry(ROOT, b"g"), garbage)].into();
    store.engine.commit(Batch { writes }, store.ns.incarnation()).unwrap();
    store.restart();
    assert_eq!(store.lookup(ROOT, "g"), Err(FsError::Io));
    let page = store.ns.manifest_page(Ino::new(ino).unwrap(), 0, 0);
    assert_eq!(page, Err(FsError::Io));
    assert!(store.ns.view().unwrap().fsck(&mut |_| true).is_err());
    assert!(store.ns.view().unwrap().walk("", true).unwrap().any(|entry| entry.is_err()));
}
