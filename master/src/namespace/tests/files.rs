//! Commit, truncate, clone, manifests.

use cairn_proto::Ino;

use super::*;
use crate::tables::keys::Table;

const SIZE: u64 = CHUNK as u64;

fn whole(tag: u64) -> ChunkRef {
    chunk(tag, CHUNK)
}

/// A file of `count` whole chunks.
fn big(store: &mut Store, name: &str, count: u64) -> u64 {
    let ino = store.file(ROOT, name);
    let mut at = 0;
    while at < count {
        let stop = count.min(at + 1000);
        let changes = (at..stop).map(|i| change(i, None, Some(whole(i)))).collect();
        let size = Some(pb::commit::Size::GrowTo(stop * SIZE));
        let commit = pb::Commit { ino, changes, size, ..pb::Commit::default() };
        assert!(store.commit_file(commit).unwrap().applied);
        at = stop;
    }
    ino
}

#[test]
fn what_was_committed_is_in_the_manifest() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let chunks: Vec<_> = (0..300).map(|i| (i, whole(i))).collect();
    let tail = (300, chunk(300, 100));
    let mut all = chunks.clone();
    all.push(tail);
    let attr = store.write(ino, &all, 300 * SIZE + 100).attr.unwrap();
    assert_eq!((attr.size, attr.allocated), (300 * SIZE + 100, 300 * SIZE + 100));
    assert_eq!(store.manifest(ino), all);
    store.ns.commit().unwrap();
    assert_eq!(store.manifest(ino), all);
    let counters = store.ns.counters();
    assert_eq!((counters.logical_bytes, counters.referenced_bytes), (attr.size, attr.size));
    store.check();
}

#[test]
fn pages_of_any_size_go_forward_and_leave_nothing_out() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let chunks: Vec<_> = [0, 1, 3, 4, 5, 127, 128, 900].map(|i| (i, whole(i))).into();
    store.write(ino, &chunks, 1000 * SIZE);
    for most in 1..10 {
        let (mut found, mut at) = (Vec::new(), 0);
        loop {
            let page = store.ns.manifest_page(Ino::new(ino).unwrap(), at, most).unwrap();
            for run in page.runs {
                found.extend((run.first_index..).take(run.refs.len()));
            }
            if page.end {
                break;
            }
            assert!(page.next_index > at, "{most} at once, from {at}: {}", page.next_index);
            at = page.next_index;
        }
        assert_eq!(found, chunks.iter().map(|(index, _)| *index).collect::<Vec<_>>());
    }
}

#[test]
fn a_small_file_is_one_row_besides_its_names() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.write(ino, &[(0, whole(0)), (3, whole(3))], 4 * SIZE);
    store.ns.commit().unwrap();
    assert_eq!((store.rows(Table::Segments), store.rows(Table::Lists)), (0, 0));
    let opened = store.open(ino, false).unwrap();
    let page = opened.manifest.unwrap();
    assert_eq!(page.runs.iter().map(|run| run.first_index).collect::<Vec<_>>(), [0, 3]);
    assert!(page.end);
}

#[test]
fn a_commit_that_expects_something_else_changes_nothing() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.write(ino, &[(0, whole(1)), (200, whole(2))], 201 * SIZE);
    let before = store.attr(ino).unwrap();
    let commit = pb::Commit {
        ino,
        changes: vec![
            change(0, Some(whole(1)), Some(whole(10))),
            change(1, Some(whole(7)), Some(whole(11))),
            change(200, None, Some(whole(12))),
        ],
        ..pb::Commit::default()
    };
    let answer = store.commit_file(commit).unwrap();
    assert!(!answer.applied);
    assert_eq!(answer.attr, Some(before));
    let conflict = |index, current| pb::ChunkConflict { index, current: Some(to_wire(current)) };
    assert_eq!(answer.conflicts, [conflict(1, None), conflict(200, Some(whole(2)))]);
    assert_eq!(store.manifest(ino), [(0, whole(1)), (200, whole(2))]);
    store.check();
}

#[test]
fn appending_compares_the_length() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let mut append = |expected_size, new_size, old, new| {
        let size = pb::commit::Size::AppendAt(pb::AppendAt { expected_size, new_size });
        let changes = vec![change(0, old, Some(new))];
        let size = Some(size);
        store.commit_file(pb::Commit { ino, changes, size, ..pb::Commit::default() })
    };
    assert!(append(0, 10, None, chunk(1, 10)).unwrap().applied);
    let late = append(0, 5, None, chunk(2, 5)).unwrap();
    assert!(!late.applied && late.conflicts.is_empty());
    assert_eq!(late.attr.unwrap().size, 10);
    assert!(append(10, 15, Some(chunk(1, 10)), chunk(3, 15)).unwrap().applied);
    assert_eq!(append(15, 14, Some(chunk(3, 15)), whole(4)), Err(FsError::InvalidArgument));
    store.check();
}

#[test]
fn grow_to_never_shrinks_and_holes_cost_nothing() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.write(ino, &[(0, whole(1))], SIZE);
    let size = Some(pb::commit::Size::GrowTo(10));
    let commit = pb::Commit { ino, size, ..pb::Commit::default() };
    assert_eq!(store.commit_file(commit).unwrap().attr.unwrap().size, SIZE);
    let far = 1 << 50;
    let attr = store.write(ino, &[(far / SIZE, whole(2))], far + SIZE).attr.unwrap();
    assert_eq!((attr.size, attr.allocated), (far + SIZE, 2 * SIZE));
    assert_eq!(store.manifest(ino), [(0, whole(1)), (far / SIZE, whole(2))]);
    store.check();
    let hole = vec![change(0, Some(whole(1)), None), change(far / SIZE, Some(whole(2)), None)];
    let commit = pb::Commit { ino, changes: hole, ..pb::Commit::default() };
    assert_eq!(store.commit_file(commit).unwrap().attr.unwrap().allocated, 0);
    store.check();
    assert_eq!((store.rows(Table::Segments), store.rows(Table::Lists)), (0, 0));
}

#[test]
fn commits_that_make_no_sense_are_refused() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let dir = store.mkdir(ROOT, "d");
    let refused = |store: &mut Store, commit: pb::Commit, error| {
        assert_eq!(store.commit_file(commit), Err(error));
    };
    let with = |changes: Vec<pb::ChunkChange>| pb::Commit { ino, changes, ..Default::default() };
    let twice = vec![change(0, None, Some(whole(1))); 2];
    refused(&mut store, with(twice), FsError::InvalidArgument);
    let many = (0..4097).map(|i| change(i, None, None)).collect();
    refused(&mut store, with(many), FsError::InvalidArgument);
    let fat = vec![change(0, None, Some(chunk(1, CHUNK + 1)))];
    refused(&mut store, with(fat), FsError::InvalidArgument);
    let far = vec![change(u64::MAX, None, Some(whole(1)))];
    refused(&mut store, with(far), FsError::TooBig);
    let size = Some(pb::commit::Size::GrowTo(1 << 63));
    refused(&mut store, pb::Commit { ino, size, ..Default::default() }, FsError::TooBig);
    refused(&mut store, pb::Commit { ino: dir, ..Default::default() }, FsError::IsDirectory);
    refused(&mut store, pb::Commit { ino: 99, ..Default::default() }, FsError::Stale);
    assert_eq!(store.set_size(ino, 1 << 63), Err(FsError::TooBig));
    assert_eq!(store.set_size(dir, 0), Err(FsError::IsDirectory));
    store.check();
}

#[test]
fn what_lies_beyond_the_end_is_cut_off_a_commit() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.set_size(ino, 100).unwrap();
    let changes = vec![change(0, None, Some(whole(1))), change(5, None, Some(whole(2)))];
    store.commit_file(pb::Commit { ino, changes, ..Default::default() }).unwrap();
    assert_eq!(store.manifest(ino), [(0, whole(1).clipped(100).unwrap())]);
    store.check();
}

#[test]
fn truncation_clips_the_last_chunk_and_drops_the_rest() {
    for size in [0, 1, 3 * SIZE, 4 * SIZE, 4 * SIZE + 1, 128 * SIZE, 128 * SIZE + 7, 200 * SIZE - 1]
    {
        let mut store = Store::new();
        let ino = big(&mut store, "f", 300);
        store.ns.commit().unwrap();
        let attr = store.set_size(ino, size).unwrap();
        assert_eq!(attr.size, size);
        let mut expected: Vec<_> = (0..size / SIZE).map(|i| (i, whole(i))).collect();
        if let Some(tail) = whole(size / SIZE).clipped((size % SIZE) as u32) {
            expected.push((size / SIZE, tail));
        }
        assert_eq!(store.manifest(ino), expected, "{size}");
        assert_eq!(attr.allocated, expected.len() as u64 * SIZE);
        let grown = store.set_size(ino, 300 * SIZE).unwrap();
        assert_eq!(grown.allocated, attr.allocated);
        assert_eq!(store.manifest(ino), expected, "growing brings nothing back");
        store.check();
    }
}

#[test]
fn truncating_and_removing_frees_segments_in_steps() {
    let mut store = Store::new();
    let ino = big(&mut store, "f", 20_000);
    let other = big(&mut store, "g", 20_000);
    store.ns.commit().unwrap();
    assert_eq!(store.rows(Table::Segments), 2 * 157);
    store.open(ino, true).unwrap();
    store.ns.commit().unwrap();
    assert!(store.rows(Table::Segments) > 157, "not all at once");
    store.unlink(ROOT, "g").unwrap();
    assert_eq!(store.attr(other), Err(FsError::Stale));
    store.check();
    assert_eq!((store.rows(Table::Segments), store.rows(Table::Lists)), (0, 0));
    assert_eq!((store.rows(Table::Reclaims), store.rows(Table::Dead)), (0, 0));
    assert_eq!(store.ns.counters().referenced_bytes, 0);
}

#[test]
fn a_clone_shares_segments_until_one_changes() {
    let mut store = Store::new();
    let (src, dst) = (big(&mut store, "f", 1000), store.file(ROOT, "g"));
    store.settle();
    let segments = store.rows(Table::Segments);
    let attr = store.clone_range((src, 0), (dst, 0), 1000 * SIZE).unwrap();
    assert_eq!((attr.size, attr.allocated), (1000 * SIZE, 1000 * SIZE));
    store.check();
    assert_eq!(store.rows(Table::Segments), segments);
    assert_eq!(store.manifest(dst), store.manifest(src));
    store.write(dst, &[(500, whole(7))], 0);
    store.check();
    assert_eq!(store.rows(Table::Segments), segments + 1);
    assert_eq!(store.manifest(src)[500], (500, whole(500)));
    assert_eq!(store.manifest(dst)[500], (500, whole(7)));
    store.unlink(ROOT, "f").unwrap();
    store.check();
    assert_eq!(store.rows(Table::Segments), segments);
    store.set_size(dst, 200 * SIZE).unwrap();
    store.check();
    assert_eq!(store.manifest(dst).len(), 200);
}

#[test]
fn a_clone_of_a_gibibyte_is_quick_and_takes_no_space() {
    let mut store = Store::new();
    let (src, dst) = (big(&mut store, "f", 16_384), store.file(ROOT, "g"));
    store.settle();
    store.clone_range((src, 0), (dst, 0), 16_384 * SIZE).unwrap();
    store.settle();
    assert_eq!(store.rows(Table::Segments), 128);
    assert_eq!(store.manifest(dst).len(), 16_384);
    store.check();
}

#[test]
fn ranges_that_do_not_line_up_are_copied_by_reference() {
    for (from, to, count) in
        [(0, 1, 300), (5, 0, 300), (128, 0, 256), (0, 128, 256), (256, 128, 200), (3, 131, 129)]
    {
        let mut store = Store::new();
        let (src, dst) = (big(&mut store, "f", 600), big(&mut store, "g", 500));
        store.clone_range((src, from * SIZE), (dst, to * SIZE), count * SIZE).unwrap();
        let mut expected: Vec<_> = (0..500.max(to + count)).map(|i| (i, whole(i))).collect();
        for i in 0..count {
            expected[(to + i) as usize].1 = whole(from + i);
        }
        assert_eq!(store.manifest(dst), expected, "{from} {to} {count}");
        store.check();
    }
}

#[test]
fn a_clone_within_one_file_and_of_a_ragged_end() {
    let mut store = Store::new();
    let src = big(&mut store, "f", 300);
    store.clone_range((src, 0), (src, 300 * SIZE), 300 * SIZE).unwrap();
    assert_eq!(store.manifest(src)[450], (450, whole(150)));
    store.check();
    let overlap = store.clone_range((src, 0), (src, SIZE), 2 * SIZE);
    assert_eq!(overlap, Err(FsError::InvalidArgument));

    let ragged = big(&mut store, "r", 10);
    store.set_size(ragged, 9 * SIZE + 5).unwrap();
    let dst = store.file(ROOT, "d");
    let attr = store.clone_range((ragged, 8 * SIZE), (dst, 0), SIZE + 5).unwrap();
    assert_eq!(attr.size, SIZE + 5);
    assert_eq!(store.manifest(dst), [(0, whole(8)), (1, whole(9).clipped(5).unwrap())]);
    let into = store.clone_range((ragged, 8 * SIZE), (src, 0), SIZE + 5);
    assert_eq!(into, Err(FsError::InvalidArgument), "would cut a chunk of the destination");
    for (src_offset, dst_offset, length) in
        [(1, 0, SIZE), (0, 1, SIZE), (0, 0, 1), (0, 0, 11 * SIZE), (u64::MAX, 0, 2)]
    {
        let wrong = store.clone_range((ragged, src_offset), (dst, dst_offset), length);
        assert_eq!(wrong, Err(FsError::InvalidArgument));
    }
    store.check();
}

#[test]
fn a_sparse_clone_keeps_its_holes() {
    let mut store = Store::new();
    let (src, dst) = (store.file(ROOT, "f"), big(&mut store, "g", 700));
    store.write(src, &[(2, whole(2)), (300, whole(3))], 640 * SIZE);
    store.clone_range((src, 0), (dst, 0), 640 * SIZE).unwrap();
    let manifest = store.manifest(dst);
    assert_eq!(manifest[..2], [(2, whole(2)), (300, whole(3))]);
    assert_eq!(manifest[2], (640, whole(640)));
    store.check();
}

#[test]
fn degraded_groups_are_remembered() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let degraded_groups = vec![3, 900, 3];
    store.commit_file(pb::Commit { ino, degraded_groups, ..Default::default() }).unwrap();
    store.ns.commit().unwrap();
    store.restart();
    assert_eq!(store.ns.degraded_groups(), [3, 900]);
    store.ns.clear_degraded(3, u64::MAX);
    store.ns.commit().unwrap();
    store.restart();
    assert_eq!(store.ns.degraded_groups(), [900]);
    let seen = store.ns.degraded_marks()[&900];
    let again = pb::Commit { ino, degraded_groups: vec![900], ..Default::default() };
    store.commit_file(again).unwrap();
    store.ns.clear_degraded(900, seen);
    assert_eq!(store.ns.degraded_groups(), [900], "it was noted again after it was looked at");
}
