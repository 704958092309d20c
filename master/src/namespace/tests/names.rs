//! Create, link, unlink, rmdir, listings, attributes.

use std::time::Duration;

use super::*;

#[test]
fn a_new_store_has_an_empty_root() {
    let mut store = Store::new();
    let root = store.attr(ROOT).unwrap();
    assert_eq!((root.nlink, root.mode & libc::S_IFMT), (2, libc::S_IFDIR));
    assert!(store.names(ROOT).is_empty());
    store.check();
}

#[test]
fn creating_makes_every_kind() {
    let mut store = Store::new();
    for (name, kind) in [
        ("file", libc::S_IFREG),
        ("dir", libc::S_IFDIR),
        ("link", libc::S_IFLNK),
        ("fifo", libc::S_IFIFO),
        ("socket", libc::S_IFSOCK),
        ("char", libc::S_IFCHR),
        ("block", libc::S_IFBLK),
    ] {
        let made = store.create(ROOT, name, kind | 0o640).unwrap();
        assert_eq!(made, store.lookup(ROOT, name).unwrap());
        assert_eq!((made.mode, made.uid, made.gid), (kind | 0o640, 1000, 100));
        assert_eq!(made.nlink, if kind == libc::S_IFDIR { 2 } else { 1 });
        assert_eq!(store.create(ROOT, name, kind), Err(FsError::Exists));
    }
    let counters = store.ns.counters();
    assert_eq!((counters.files, counters.directories, counters.other), (1, 2, 5));
    let link = store.lookup(ROOT, "link").unwrap().ino;
    match store.op(op::Kind::ReadLink(pb::ReadLink { ino: link })).unwrap() {
        reply::Kind::LinkTarget(target) => assert_eq!(target.target, "target"),
        other => panic!("{other:?}"),
    }
    let file = store.lookup(ROOT, "file").unwrap().ino;
    let wrong = store.op(op::Kind::ReadLink(pb::ReadLink { ino: file }));
    assert_eq!(wrong, Err(FsError::InvalidArgument));
    store.check();
}

#[test]
fn create_without_exclusive_opens_what_is_there() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.mkdir(ROOT, "d");
    let mut create = |name: &'static str, mode| {
        let request = pb::Create {
            parent: ROOT,
            name: name.into(),
            mode,
            open: true,
            ..pb::Create::default()
        };
        store.op(op::Kind::Create(request))
    };
    match create("f", FILE).unwrap() {
        reply::Kind::Entry(entry) => {
            assert!(!entry.created && entry.manifest.unwrap().end);
            assert_eq!(entry.attr.unwrap().ino, ino);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(create("d", FILE), Err(FsError::IsDirectory));
    assert_eq!(create("f", DIR), Err(FsError::Exists));
}

#[test]
fn bad_names_and_targets_are_refused() {
    let mut store = Store::new();
    let long = "x".repeat(256);
    for (name, error) in [
        ("", FsError::NotFound),
        (".", FsError::InvalidArgument),
        ("..", FsError::InvalidArgument),
        ("a/b", FsError::InvalidArgument),
        ("a\0", FsError::InvalidArgument),
        (long.as_str(), FsError::NameTooLong),
    ] {
        assert_eq!(store.create(ROOT, name, FILE), Err(error));
        assert_eq!(store.lookup(ROOT, name), Err(error));
        assert_eq!(store.rename((ROOT, name), (ROOT, "x"), 0), Err(error));
    }
    assert_eq!(store.create(ROOT, "x", 0o644), Err(FsError::InvalidArgument), "no type");
    for (target, error) in
        [(Bytes::new(), FsError::NotFound), (vec![b'x'; 4096].into(), FsError::NameTooLong)]
    {
        let request = pb::Create {
            parent: ROOT,
            name: "s".into(),
            mode: libc::S_IFLNK | 0o777,
            target,
            ..pb::Create::default()
        };
        assert_eq!(store.op(op::Kind::Create(request)), Err(error));
    }
    assert_eq!(store.names(ROOT), Vec::<String>::new());
}

#[test]
fn wrong_kinds_of_parents() {
    let mut store = Store::new();
    let file = store.file(ROOT, "f");
    assert_eq!(store.create(file, "x", FILE), Err(FsError::NotDirectory));
    assert_eq!(store.lookup(file, "x"), Err(FsError::NotDirectory));
    assert_eq!(store.lookup(999, "x"), Err(FsError::Stale));
    assert_eq!(store.attr(999), Err(FsError::Stale));
    assert_eq!(store.attr(0), Err(FsError::InvalidArgument));
    assert_eq!(store.lookup(ROOT, "absent"), Err(FsError::NotFound));
}

#[test]
fn a_setgid_directory_passes_its_group_on() {
    let mut store = Store::new();
    let dir = store.mkdir(ROOT, "d");
    let mode = Some(0o2775);
    store.set_attr(pb::SetAttr { ino: dir, mode, gid: Some(7), ..Default::default() }).unwrap();
    let file = store.create(dir, "f", FILE).unwrap();
    let sub = store.create(dir, "s", DIR).unwrap();
    assert_eq!((file.gid, file.mode), (7, FILE));
    assert_eq!((sub.gid, sub.mode), (7, DIR | libc::S_ISGID));
}

#[test]
fn links_count_names() {
    let mut store = Store::new();
    let dir = store.mkdir(ROOT, "d");
    let ino = store.file(ROOT, "a");
    assert_eq!(store.link(ino, dir, "b").unwrap().nlink, 2);
    assert_eq!(store.link(ino, dir, "b"), Err(FsError::Exists));
    assert_eq!(store.link(dir, ROOT, "x"), Err(FsError::NotPermitted));
    store.clock.advance(Duration::from_secs(5));
    let before = store.attr(ino).unwrap();
    store.unlink(ROOT, "a").unwrap();
    let after = store.attr(ino).unwrap();
    assert_eq!(after.nlink, 1);
    assert!(after.ctime.unwrap().seconds > before.ctime.unwrap().seconds, "ctime moves");
    assert!(after.version > before.version && after.data_version == before.data_version);
    store.check();
    store.unlink(dir, "b").unwrap();
    assert_eq!(store.attr(ino), Err(FsError::Stale));
    store.check();
}

#[test]
fn removing_checks_what_it_removes() {
    let mut store = Store::new();
    let dir = store.mkdir(ROOT, "d");
    store.file(ROOT, "f");
    store.file(dir, "inside");
    assert_eq!(store.unlink(ROOT, "d"), Err(FsError::IsDirectory));
    assert_eq!(store.rmdir(ROOT, "f"), Err(FsError::NotDirectory));
    assert_eq!(store.rmdir(ROOT, "d"), Err(FsError::NotEmpty));
    assert_eq!(store.rmdir(ROOT, "x"), Err(FsError::NotFound));
    assert_eq!(store.attr(ROOT).unwrap().nlink, 3);
    store.unlink(dir, "inside").unwrap();
    store.rmdir(ROOT, "d").unwrap();
    assert_eq!(store.attr(ROOT).unwrap().nlink, 2);
    assert_eq!(store.names(ROOT), ["f"]);
    store.check();
}

#[test]
fn a_removed_directory_that_is_open_takes_no_names() {
    let mut store = Store::new();
    let dir = store.mkdir(ROOT, "d");
    let other = store.file(ROOT, "f");
    store.open(dir, false).unwrap();
    store.rmdir(ROOT, "d").unwrap();
    assert_eq!(store.attr(dir).unwrap().nlink, 0);
    assert!(store.names(dir).is_empty());
    assert_eq!(store.create(dir, "x", FILE), Err(FsError::NotFound));
    assert_eq!(store.link(other, dir, "x"), Err(FsError::NotFound));
    assert_eq!(store.rename((ROOT, "f"), (dir, "x"), 0), Err(FsError::NotFound));
    store.check();
    store.release(dir);
    assert_eq!(store.attr(dir), Err(FsError::Stale));
    store.check();
}

#[test]
fn the_parent_shows_every_change() {
    let mut store = Store::new();
    let mut before = store.attr(ROOT).unwrap();
    let mut changed = |store: &mut Store, what: &str| {
        let after = store.attr(ROOT).unwrap();
        assert!(after.version > before.version, "{what}");
        assert!(after.data_version > before.data_version, "{what}");
        assert!(after.mtime.unwrap().seconds > before.mtime.unwrap().seconds, "{what}");
        assert_eq!(after.mtime, after.ctime, "{what}");
        before = after;
        store.clock.advance(Duration::from_secs(1));
    };
    store.clock.advance(Duration::from_secs(1));
    let ino = store.file(ROOT, "a");
    changed(&mut store, "create");
    store.link(ino, ROOT, "b").unwrap();
    changed(&mut store, "link");
    store.rename((ROOT, "b"), (ROOT, "c"), 0).unwrap();
    changed(&mut store, "rename");
    store.unlink(ROOT, "a").unwrap();
    changed(&mut store, "unlink");
    store.mkdir(ROOT, "d");
    changed(&mut store, "mkdir");
    store.rmdir(ROOT, "d").unwrap();
    changed(&mut store, "rmdir");
}

#[test]
fn a_listing_survives_changes_of_the_directory() {
    let mut store = Store::new();
    for i in 0..100 {
        store.file(ROOT, &format!("stays{i}"));
        store.file(ROOT, &format!("goes{i}"));
    }
    let mut seen = Vec::new();
    let (mut cookie, mut round) = (0, 0);
    loop {
        let page = store.read_dir(ROOT, cookie, 7);
        seen.extend(page.entries.iter().map(|entry| entry.name.clone()));
        cookie = page.entries.last().map_or(cookie, |entry| entry.cookie);
        if page.end {
            break;
        }
        store.unlink(ROOT, &format!("goes{}", 99 - round)).unwrap();
        store.rename((ROOT, &format!("goes{round}")), (ROOT, &format!("stays{round}")), 0).unwrap();
        round += 1;
        if round % 3 == 0 {
            store.ns.commit().unwrap();
        }
    }
    let stays = seen.iter().filter(|name| name.starts_with(b"stays")).count();
    assert_eq!(stays, 100, "none is lost, none shown twice");
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all);
    store.check();
}

#[test]
fn set_attr_changes_what_it_names() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let before = store.attr(ino).unwrap();
    store.clock.advance(Duration::from_secs(9));
    let now = Some(pb::Timestamp { seconds: 1_000_009, nanos: 0 });
    let old = Some(pb::Timestamp { seconds: -5, nanos: 3 });
    let request = pb::SetAttr { ino, mode: Some(0o106755), ..Default::default() };
    let after = store.set_attr(request).unwrap();
    assert_eq!(after.mode, libc::S_IFREG | 0o6755, "the type stays");
    assert_eq!((after.ctime, after.mtime), (now, before.mtime));
    let request =
        pb::SetAttr { ino, uid: Some(5), kill_suid_sgid: true, mtime: old, ..Default::default() };
    let after = store.set_attr(request).unwrap();
    assert_eq!((after.mode, after.uid, after.gid), (FILE & !0o777 | 0o755, 5, 100));
    assert_eq!((after.mtime, after.atime), (old, before.atime));
    let request = pb::SetAttr { ino, atime_now: true, mtime_now: true, ..Default::default() };
    let after = store.set_attr(request).unwrap();
    assert_eq!((after.mtime, after.atime), (now, now));
    let bad = Some(pb::Timestamp { seconds: 0, nanos: 1_000_000_000 });
    let request = pb::SetAttr { ino, atime: bad, ..Default::default() };
    assert_eq!(store.set_attr(request), Err(FsError::InvalidArgument));
}

#[test]
fn extended_attributes() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let set = |store: &mut Store, name: &str, value: Vec<u8>, flags| {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let value = value.into();
        store.op(op::Kind::SetXattr(pb::SetXattr { ino, name, value, flags, kill_sgid: false }))
    };
    let get = |store: &mut Store, name: &'static str| match store
        .op(op::Kind::GetXattr(pb::GetXattr { ino, name: name.into() }))?
    {
        reply::Kind::XattrValue(value) => Ok(value.value),
        other => panic!("{other:?}"),
    };
    assert_eq!(get(&mut store, "user.a"), Err(FsError::NoAttribute));
    assert_eq!(set(&mut store, "user.a", vec![1], 2), Err(FsError::NoAttribute));
    set(&mut store, "user.a", vec![1], 1).unwrap();
    assert_eq!(set(&mut store, "user.a", vec![2], 1), Err(FsError::Exists));
    set(&mut store, "user.a", vec![3], 2).unwrap();
    set(&mut store, "user.b", Vec::new(), 0).unwrap();
    assert_eq!(get(&mut store, "user.a").unwrap(), vec![3]);
    assert_eq!(get(&mut store, "user.b").unwrap(), Bytes::new());
    assert_eq!(set(&mut store, "user.c", vec![0; 65_537], 0), Err(FsError::ArgumentTooBig));
    assert_eq!(set(&mut store, &"n".repeat(256), vec![], 0), Err(FsError::OutOfRange));
    match store.op(op::Kind::ListXattr(pb::ListXattr { ino })).unwrap() {
        reply::Kind::XattrNames(names) => assert_eq!(names.names, ["user.a", "user.b"]),
        other => panic!("{other:?}"),
    }
    store.check();
    let remove = pb::RemoveXattr { ino, name: "user.b".into() };
    store.op(op::Kind::RemoveXattr(remove.clone())).unwrap();
    assert_eq!(store.op(op::Kind::RemoveXattr(remove)), Err(FsError::NoAttribute));
    for i in 0..300 {
        let result = set(&mut store, &format!("user.{i:0>245}"), vec![], 0);
        assert_eq!(result.err(), (i >= 261).then_some(FsError::NoSpace), "{i}");
    }
    store.check();
    store.unlink(ROOT, "f").unwrap();
    store.check();
    assert_eq!(store.rows(crate::tables::keys::Table::Xattrs), 0);
    assert_eq!(store.rows(crate::tables::keys::Table::Dead), 0);
}

#[test]
fn statfs_counts() {
    let mut store = Store::new();
    store.file(ROOT, "f");
    store.ns.set_capacity(1000, 900);
    let stat = match store.op(op::Kind::StatFs(pb::StatFs::default())).unwrap() {
        reply::Kind::StatFs(stat) => stat,
        other => panic!("{other:?}"),
    };
    assert_eq!((stat.total_bytes, stat.free_bytes, stat.inodes, stat.files), (1000, 900, 2, 1));
}

#[test]
fn an_inode_has_no_more_names_than_it_may_have() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let mut inode = store.ns.inode(ino).unwrap();
    inode.row.nlink = cairn_proto::limits::LINK_MAX - 1;
    store.ns.put_inode(&inode);
    let mut link = |name: &'static str| {
        store.op(op::Kind::Link(pb::Link { ino, parent: ROOT, name: name.into() })).map(|_| ())
    };
    assert_eq!(link("last"), Ok(()));
    assert_eq!(link("one too many"), Err(FsError::TooManyLinks));
    assert_eq!(link("last"), Err(FsError::Exists));
}
