//! Rename in all its forms, and that whatever is renamed, a tree remains.

use proptest::{
    prelude::Rng,
    test_runner::{RngAlgorithm, TestRng},
};

use super::*;

const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;

#[test]
fn moves_between_directories() {
    let mut store = Store::new();
    let (a, b) = (store.mkdir(ROOT, "a"), store.mkdir(ROOT, "b"));
    let file = store.file(a, "f");
    let sub = store.mkdir(a, "s");
    store.rename((a, "f"), (b, "g"), 0).unwrap();
    assert_eq!(store.lookup(b, "g").unwrap().ino, file);
    assert_eq!(store.lookup(a, "f"), Err(FsError::NotFound));
    store.rename((a, "s"), (b, "s"), 0).unwrap();
    assert_eq!(store.read_dir(sub, 0, 9).parent_ino, b);
    assert_eq!((store.attr(a).unwrap().nlink, store.attr(b).unwrap().nlink), (2, 3));
    store.check();
}

#[test]
fn replaces_what_may_be_replaced() {
    let mut store = Store::new();
    let (a, b) = (store.mkdir(ROOT, "a"), store.mkdir(ROOT, "b"));
    let (f, g) = (store.file(ROOT, "f"), store.file(ROOT, "g"));
    assert_eq!(store.rename((ROOT, "a"), (ROOT, "f"), 0), Err(FsError::NotDirectory));
    assert_eq!(store.rename((ROOT, "f"), (ROOT, "a"), 0), Err(FsError::IsDirectory));
    assert_eq!(store.rename((ROOT, "x"), (ROOT, "f"), 0), Err(FsError::NotFound));
    store.rename((ROOT, "f"), (ROOT, "g"), 0).unwrap();
    assert_eq!(store.lookup(ROOT, "g").unwrap().ino, f);
    assert_eq!(store.attr(g), Err(FsError::Stale), "what was replaced is gone");
    store.file(b, "inside");
    assert_eq!(store.rename((ROOT, "a"), (ROOT, "b"), 0), Err(FsError::NotEmpty));
    store.unlink(b, "inside").unwrap();
    store.rename((ROOT, "a"), (ROOT, "b"), 0).unwrap();
    assert_eq!(store.lookup(ROOT, "b").unwrap().ino, a);
    assert_eq!(store.names(ROOT), ["b", "g"]);
    assert_eq!(store.attr(ROOT).unwrap().nlink, 3);
    store.check();
}

#[test]
fn noreplace_and_unknown_flags() {
    let mut store = Store::new();
    store.file(ROOT, "f");
    store.file(ROOT, "g");
    assert_eq!(store.rename((ROOT, "f"), (ROOT, "g"), NOREPLACE), Err(FsError::Exists));
    assert_eq!(store.rename((ROOT, "f"), (ROOT, "f"), NOREPLACE), Err(FsError::Exists));
    store.rename((ROOT, "f"), (ROOT, "h"), NOREPLACE).unwrap();
    for flags in [3, 4, 5, u32::MAX] {
        let result = store.rename((ROOT, "h"), (ROOT, "i"), flags);
        assert_eq!(result, Err(FsError::InvalidArgument));
    }
}

#[test]
fn two_names_of_one_inode_both_stay() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.link(ino, ROOT, "g").unwrap();
    store.rename((ROOT, "f"), (ROOT, "g"), 0).unwrap();
    store.rename((ROOT, "f"), (ROOT, "f"), 0).unwrap();
    assert_eq!(store.names(ROOT), ["f", "g"]);
    store.check();
}

#[test]
fn exchange_swaps_even_different_kinds() {
    let mut store = Store::new();
    let a = store.mkdir(ROOT, "a");
    let d = store.mkdir(a, "d");
    let inside = store.file(d, "inside");
    let f = store.file(ROOT, "f");
    assert_eq!(store.rename((ROOT, "f"), (ROOT, "x"), EXCHANGE), Err(FsError::NotFound));
    store.rename((ROOT, "f"), (a, "d"), EXCHANGE).unwrap();
    assert_eq!(store.lookup(ROOT, "f").unwrap().ino, d);
    assert_eq!(store.lookup(a, "d").unwrap().ino, f);
    assert_eq!(store.lookup(d, "inside").unwrap().ino, inside);
    assert_eq!((store.attr(ROOT).unwrap().nlink, store.attr(a).unwrap().nlink), (4, 2));
    store.check();
    store.rename((ROOT, "f"), (ROOT, "a"), EXCHANGE).unwrap();
    assert_eq!(store.lookup(ROOT, "a").unwrap().ino, d);
    store.check();
}

#[test]
fn no_directory_below_itself() {
    let mut store = Store::new();
    let a = store.mkdir(ROOT, "a");
    let b = store.mkdir(a, "b");
    let c = store.mkdir(b, "c");
    for flags in [0, NOREPLACE] {
        let result = store.rename((ROOT, "a"), (c, "x"), flags);
        assert_eq!(result, Err(FsError::InvalidArgument));
        assert_eq!(store.rename((ROOT, "a"), (a, "x"), flags), Err(FsError::InvalidArgument));
    }
    assert_eq!(store.rename((ROOT, "a"), (b, "c"), EXCHANGE), Err(FsError::InvalidArgument));
    assert_eq!(store.rename((b, "c"), (ROOT, "a"), EXCHANGE), Err(FsError::InvalidArgument));
    assert_eq!(store.rename((b, "c"), (ROOT, "a"), 0), Err(FsError::NotEmpty));
    store.check();
}

#[test]
fn random_renames_keep_a_tree() {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut store = Store::new();
    let mut directories = vec![ROOT];
    for i in 0..12 {
        let parent = directories[rng.next_u32() as usize % directories.len()];
        directories.push(store.mkdir(parent, &format!("d{i}")));
        store.file(parent, &format!("f{i}"));
    }
    let mut done = 0;
    for round in 0..3000 {
        let mut pick = |n: u32| rng.next_u32() % n;
        let (from, to) = (directories[pick(13) as usize], directories[pick(13) as usize]);
        let mut name = || {
            let kind = if pick(4) == 0 { 'f' } else { 'd' };
            format!("{kind}{}", pick(12))
        };
        let (old, new) = (name(), name());
        let flags = if pick(3) == 0 { EXCHANGE } else { NOREPLACE };
        done += u32::from(store.rename((from, &old), (to, &new), flags).is_ok());
        if round % 16 == 0 {
            store.ns.commit().unwrap();
        }
        if round % 500 == 0 {
            store.check();
        }
    }
    assert!(done > 100, "{done} renames went through");
    store.check();
    let walked = store.ns.view().unwrap().walk("", false).unwrap();
    let walked: Vec<_> = walked.map(Result::unwrap).collect();
    assert_eq!(walked.len(), 25, "everything is reachable");
}
