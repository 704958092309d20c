//! Exactly once, open inodes, orphans.

use cairn_proto::SessionId;

use super::*;
use crate::tables::keys::Table;

fn create_request(name: &'static str) -> op::Kind {
    op::Kind::Create(pb::Create {
        parent: ROOT,
        name: name.into(),
        mode: FILE,
        exclusive: true,
        open: true,
        ..pb::Create::default()
    })
}

#[test]
fn a_repeated_mutation_gets_its_first_reply() {
    let mut store = Store::new();
    let origin = Origin { acked_below: 1, ..store.origin(5) };
    let first = store.send(origin, create_request("f")).unwrap();
    assert_eq!(store.send(origin, create_request("f")).unwrap(), first, "in the same group");
    store.ns.commit().unwrap();
    assert_eq!(store.send(origin, create_request("f")).unwrap(), first, "after the commit");
    store.restart();
    assert_eq!(store.send(origin, create_request("f")).unwrap(), first, "after a restart");
    let again = Origin { acked_below: 1, ..store.origin(6) };
    assert_eq!(store.send(again, create_request("f")), Err(FsError::Exists));
    store.op(op::Kind::Unlink(pb::Unlink { parent: ROOT, name: "f".into() })).unwrap();
    assert_eq!(store.send(again, create_request("f")), Err(FsError::Exists), "errors too");
    assert!(store.names(ROOT).is_empty());
}

#[test]
fn what_was_acknowledged_is_never_executed_again() {
    let mut store = Store::new();
    for seq in 1..=10 {
        let name = ["a", "b"][seq as usize % 2];
        let origin = Origin { acked_below: seq, ..store.origin(seq) };
        let _ = store.send(origin, create_request(name));
        store.ns.commit().unwrap();
        assert_eq!(store.rows(Table::Replies), 1);
    }
    store.restart();
    let old = Origin { acked_below: 1, ..store.origin(3) };
    assert_eq!(store.send(old, create_request("new")), Err(FsError::Stale));
    assert_eq!(store.names(ROOT), ["a", "b"]);
}

#[test]
fn the_window_is_bounded() {
    let mut store = Store::new();
    for seq in 1..=5000 {
        let origin = Origin { acked_below: 0, ..store.origin(seq) };
        let _ = store.send(origin, create_request("a"));
    }
    store.ns.commit().unwrap();
    assert_eq!(store.rows(Table::Replies), 4096);
    let old = Origin { acked_below: 0, ..store.origin(900) };
    assert_eq!(store.send(old, create_request("new")), Err(FsError::Stale));
}

#[test]
fn unknown_sessions_are_stale_and_numbers_are_not_reused() {
    let mut store = Store::new();
    let origin = Origin { session: 77, seq: 1, acked_below: 0 };
    assert_eq!(store.send(origin, create_request("f")), Err(FsError::Stale));
    assert!(!store.ns.resume_session(SessionId(77), 1, &[]).unwrap());
    let mut seen = vec![store.session];
    for _ in 0..3 {
        let id = store.ns.open_session("x").unwrap().0;
        assert!(!seen.contains(&id));
        seen.push(id);
        store.ns.expire_session(SessionId(id)).unwrap();
        store.ns.commit().unwrap();
        store.restart();
    }
    assert_eq!(store.ns.sessions().len(), 1);
    assert_eq!(store.ns.sessions()[0].client_name, "test");
}

#[test]
fn an_open_file_outlives_its_name() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.write(ino, &[(0, chunk(1, 10)), (9, chunk(2, 10))], 9 * 4096 + 10);
    store.open(ino, false).unwrap();
    store.unlink(ROOT, "f").unwrap();
    assert_eq!(store.attr(ino).unwrap().nlink, 0);
    assert_eq!(store.ns.counters().orphans, 1);
    store.write(ino, &[(1, chunk(3, 10))], 0);
    assert_eq!(store.link(ino, ROOT, "back"), Err(FsError::NotFound));
    store.check();
    store.release(ino);
    assert_eq!(store.attr(ino), Err(FsError::Stale));
    assert_eq!((store.ns.counters().orphans, store.ns.counters().files), (0, 0));
    store.check();
    assert_eq!(store.rows(Table::Segments), 0);
}

#[test]
fn the_last_of_several_holders_frees_an_orphan() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let other = store.ns.open_session("other").unwrap();
    store.open(ino, false).unwrap();
    let origin = Origin { session: other.0, seq: 1, acked_below: 0 };
    store.send(origin, op::Kind::Open(pb::Open { ino, truncate: false })).unwrap();
    store.file(ROOT, "g");
    store.rename((ROOT, "g"), (ROOT, "f"), 0).unwrap();
    store.release(ino);
    assert_eq!(store.attr(ino).unwrap().nlink, 0);
    store.check();
    store.ns.expire_session(other).unwrap();
    assert_eq!(store.attr(ino), Err(FsError::Stale));
    store.check();
    assert_eq!(store.rows(Table::Sessions), 1);
}

#[test]
fn after_a_restart_everything_is_open_until_all_have_spoken() {
    let mut store = Store::new();
    let (kept, dropped) = (store.file(ROOT, "kept"), store.file(ROOT, "dropped"));
    let unlinked_later = store.file(ROOT, "later");
    for ino in [kept, dropped] {
        store.open(ino, false).unwrap();
    }
    store.unlink(ROOT, "kept").unwrap();
    store.unlink(ROOT, "dropped").unwrap();
    store.ns.commit().unwrap();
    store.restart();
    store.unlink(ROOT, "later").unwrap();
    for ino in [kept, dropped, unlinked_later] {
        assert_eq!(store.attr(ino).unwrap().nlink, 0);
    }
    store.check();
    let next = store.seq + 1;
    assert!(store.ns.resume_session(SessionId(store.session), next, &[kept]).unwrap());
    store.ns.settle();
    store.check();
    assert_eq!(store.attr(kept).unwrap().nlink, 0);
    for ino in [dropped, unlinked_later] {
        assert_eq!(store.attr(ino), Err(FsError::Stale));
    }
    assert!(store.ns.resume_session(SessionId(store.session), next, &[]).unwrap());
    assert_eq!(store.attr(kept), Err(FsError::Stale));
    store.check();
}

#[test]
fn without_sessions_a_start_frees_all_orphans() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.open(ino, false).unwrap();
    store.unlink(ROOT, "f").unwrap();
    store.ns.commit().unwrap();
    let engine = store.engine.as_ref();
    let epoch = store.ns.incarnation();
    let mut writes: std::collections::BTreeMap<_, _> =
        (1..=store.seq).map(|seq| (crate::tables::keys::reply(store.session, seq), None)).collect();
    writes.insert(crate::tables::keys::session(store.session), None);
    engine.commit(crate::engine::Batch { writes }, epoch).unwrap();
    store.restart();
    store.check();
    assert_eq!(store.ns.counters().files, 0);
}

#[test]
fn a_failed_operation_leaves_the_others_of_its_group() {
    let mut store = Store::new();
    store.file(ROOT, "a");
    store.file(ROOT, "b");
    assert!(store.rename((ROOT, "a"), (999, "x"), 0).is_err());
    assert!(store.link(1, ROOT, "c").is_err());
    store.file(ROOT, "d");
    assert_eq!(store.names(ROOT), ["a", "b", "d"]);
    store.check();
}
