//! Damage made on purpose, row by row: found, mended while operations go on, clean afterwards, and no
//! byte and no name of a file is lost.

use bytes::Bytes;
use cairn_proto::lock_ranges::LAST_BYTE;
use prost::Message;

use super::*;
use crate::{
    engine::Batch,
    namespace::{Finding, Remedy},
    tables::{
        keys::{self, Table},
        rows::{
            CookieRow, CountersRow, DentryRow, InodeRow, ListRow, LocksRow, ReclaimRow, ShareRow,
            SpanRow,
        },
    },
};

/// Passes after which everything that can be mended is.
const PASSES: usize = 6;

/// A store with one of everything.
struct Site {
    store: Store,
    dir: u64,
    file: u64,
    clone: u64,
    orphan: u64,
}

impl Site {
    fn new() -> Self {
        let mut store = Store::new();
        let chunks: Vec<_> = (0..300).map(|tag| chunk(tag, CHUNK)).collect();
        store.ns.announce("d/file", &chunks, &[], 1).unwrap();
        let file = store.ns.resolve("d/file").unwrap().ino.get();
        let dir = store.ns.resolve("d").unwrap().ino.get();
        let below = store.mkdir(dir, "below");
        store.file(below, "deep");
        store.link(file, ROOT, "second").unwrap();
        let clone = store.file(ROOT, "clone");
        store.clone_range((file, 0), (clone, 0), 300 * u64::from(CHUNK)).unwrap();
        let set = pb::SetXattr {
            ino: file,
            name: "user.a".into(),
            value: "v".into(),
            ..pb::SetXattr::default()
        };
        store.op(op::Kind::SetXattr(set)).unwrap();
        let orphan = store.file(ROOT, "orphan");
        store.open(orphan, false).unwrap();
        store.unlink(ROOT, "orphan").unwrap();
        store.check();
        Self { store, dir, file, clone, orphan }
    }

    /// Writes rows behind the back of the namespace, which starts again on them.
    fn damage(&mut self, writes: Vec<(Bytes, Option<Bytes>)>) {
        self.store.ns.commit().unwrap();
        let writes = writes.into_iter().collect();
        self.store.engine.commit(Batch { writes }, self.store.ns.incarnation()).unwrap();
        self.store.restart();
        let session = cairn_proto::SessionId(self.store.session);
        let held = [self.orphan];
        assert!(self.store.ns.resume_session(session, self.store.seq + 1, &held).unwrap());
        self.store.ns.settle();
    }

    fn raw(&self, key: &Bytes) -> Bytes {
        self.store.engine.get(key).unwrap().unwrap()
    }

    fn row<M: Message + Default>(&self, key: &Bytes) -> M {
        M::decode(self.raw(key)).unwrap()
    }

    fn findings(&mut self) -> Vec<Finding> {
        self.store.ns.commit().unwrap();
        let mut findings = Vec::new();
        let mut report = |progress: FsckProgress| {
            findings.extend(progress.findings);
            true
        };
        self.store.ns.view().unwrap().fsck(&mut report).unwrap();
        findings
    }

    /// Mends until a pass finds nothing. What was found and mended, as sentences.
    #[track_caller]
    fn repair(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..PASSES {
            let findings = self.findings();
            if findings.is_empty() {
                self.store.check();
                return all;
            }
            for finding in findings {
                let remedy = finding.remedy.clone();
                let done = remedy.map(|remedy| self.store.ns.repair(&remedy).unwrap());
                all.push(format!("{}: {:?}", finding.what, done.flatten()));
            }
        }
        panic!("still damaged after {PASSES} passes: {all:#?}\nleft: {:#?}", self.findings());
    }

    /// Every file has the bytes that it had, wherever it is now.
    #[track_caller]
    fn assert_content(&mut self) {
        let (file, clone) = (self.file, self.clone);
        assert_eq!(self.store.manifest(file).len(), 300);
        assert_eq!(self.store.manifest(clone).len(), 300);
    }

    fn lost(&mut self) -> Vec<String> {
        match self.store.lookup(ROOT, "lost+found") {
            Ok(attr) => self.store.names(attr.ino),
            Err(_) => Vec::new(),
        }
    }
}

fn encoded(row: &impl Message) -> Option<Bytes> {
    Some(row.encode_to_vec().into())
}

fn changed<M: Message + Default>(
    site: &Site,
    key: Bytes,
    change: impl Fn(&mut M),
) -> (Bytes, Option<Bytes>) {
    let mut row: M = site.row(&key);
    change(&mut row);
    (key, encoded(&row))
}

#[test]
fn counts_of_inodes_are_set_right() {
    let mut site = Site::new();
    let writes = vec![
        changed(&site, keys::inode(site.dir), |row: &mut InodeRow| {
            row.entries = 77;
            row.nlink = 9;
            row.next_cookie = 0;
        }),
        changed(&site, keys::inode(site.file), |row: &mut InodeRow| {
            row.nlink = 5;
            row.xattr_list = 1;
            row.allocated = 12;
        }),
        changed(&site, keys::inode(site.clone), |row: &mut InodeRow| row.nlink = 0),
        (keys::xattr(site.clone, b"security.capability"), Some(Bytes::new())),
    ];
    site.damage(writes);
    assert!(site.repair().len() >= 6);
    let (dir, file, clone) = (site.dir, site.file, site.clone);
    assert_eq!(site.store.attr(dir).unwrap().nlink, 3);
    let attr = site.store.attr(file).unwrap();
    assert_eq!((attr.nlink, attr.allocated), (2, 300 * u64::from(CHUNK)));
    assert_eq!(site.store.attr(clone).unwrap().nlink, 1);
    assert_eq!(site.lost(), Vec::<String>::new());
    site.assert_content();
}

#[test]
fn counters_are_set_right_while_files_come_and_go() {
    let mut site = Site::new();
    let before = site.store.ns.counters();
    let wrong = CountersRow {
        files: 99,
        directories: 2,
        logical_bytes: 1 << 40,
        referenced_bytes: 1 << 41,
        orphans: 7,
        other: 3,
    };
    site.damage(vec![(keys::counters(), encoded(&wrong))]);
    let findings = site.findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    // Between the check and the repair a file is made and another removed.
    site.store.file(ROOT, "new");
    site.store.mkdir(ROOT, "newdir");
    site.store.unlink(ROOT, "clone").unwrap();
    site.store.ns.repair(findings[0].remedy.as_ref().unwrap()).unwrap().unwrap();
    assert_eq!(site.findings(), Vec::new());
    let after = site.store.ns.counters();
    assert_eq!((after.files, after.directories), (before.files, before.directories + 1));
    site.store.check();
}

#[test]
fn what_lost_its_name_gets_one_in_lost_and_found() {
    let mut site = Site::new();
    let (file, dir) = (site.file, site.dir);
    let cookie = |site: &Site, directory, name: &[u8]| {
        let entry: DentryRow = site.row(&keys::dentry(directory, name));
        keys::cookie(directory, entry.cookie)
    };
    let mut writes = vec![(keys::dentry(ROOT, b"d"), None), (cookie(&site, ROOT, b"d"), None)];
    writes.push((keys::dentry(dir, b"file"), None));
    writes.push((keys::dentry(ROOT, b"second"), None));
    site.damage(writes);
    site.repair();
    let (lost_file, lost_dir) = (format!("#{file}"), format!("#{dir}"));
    let mut expected = vec![lost_file.clone(), lost_dir.clone()];
    expected.sort();
    assert_eq!(site.lost(), expected);
    let found = site.store.ns.resolve(&format!("lost+found/{lost_dir}/below/deep"));
    assert!(found.is_ok(), "{found:?}");
    assert_eq!(site.store.ns.resolve(&format!("lost+found/{lost_file}")).unwrap().nlink, 1);
    site.assert_content();
}

#[test]
fn names_that_lead_nowhere_go_and_wrong_ones_are_mended() {
    let mut site = Site::new();
    let (dir, file) = (site.dir, site.file);
    let below: DentryRow = site.row(&keys::dentry(dir, b"below"));
    let mut second: DentryRow = site.row(&keys::dentry(ROOT, b"second"));
    second.kind = libc::S_IFIFO;
    let nowhere = DentryRow { ino: 40_000, kind: libc::S_IFREG, cookie: 900 };
    let further = DentryRow { ino: below.ino, kind: libc::S_IFDIR, cookie: 901 };
    let stale = CookieRow { name: "gone".into(), ino: file, kind: libc::S_IFREG };
    let writes = vec![
        (keys::dentry(ROOT, b"nowhere"), encoded(&nowhere)),
        (keys::dentry(50_000, b"in nothing"), encoded(&DentryRow { ino: file, ..nowhere })),
        (keys::dentry(file, b"in a file"), encoded(&DentryRow { ino: file, ..nowhere })),
        (keys::dentry(ROOT, b"further"), encoded(&further)),
        (keys::dentry(ROOT, b"second"), encoded(&second)),
        (keys::cookie(dir, 5_000), encoded(&stale)),
        (keys::cookie(60_000, 3), encoded(&stale)),
    ];
    site.damage(writes);
    site.repair();
    assert_eq!(site.store.names(ROOT), ["clone", "d", "second"]);
    assert_eq!(site.store.names(dir), ["below", "file"]);
    assert_eq!(site.store.attr(file).unwrap().nlink, 2);
    site.assert_content();
}

#[test]
fn listings_show_every_name_once_again() {
    let mut site = Site::new();
    let dir = site.dir;
    let first: DentryRow = site.row(&keys::dentry(dir, b"file"));
    let other: DentryRow = site.row(&keys::dentry(dir, b"below"));
    // Both names at one place, and no row at the other.
    let shared = DentryRow { cookie: other.cookie, ..first };
    let writes = vec![
        (keys::dentry(dir, b"file"), encoded(&shared)),
        (keys::cookie(dir, first.cookie), None),
        changed(&site, keys::inode(dir), |row: &mut InodeRow| row.next_cookie = 3),
    ];
    site.damage(writes);
    site.repair();
    assert_eq!(site.store.names(dir), ["below", "file"]);
}

#[test]
fn a_loop_is_taken_apart_and_everything_in_it_kept() {
    let mut site = Site::new();
    let (dir, file) = (site.dir, site.file);
    let below: DentryRow = site.row(&keys::dentry(dir, b"below"));
    let top: DentryRow = site.row(&keys::dentry(ROOT, b"d"));
    let inside = DentryRow { ino: dir, kind: libc::S_IFDIR, cookie: 50 };
    let writes = vec![
        (keys::dentry(ROOT, b"d"), None),
        (keys::cookie(ROOT, top.cookie), None),
        (keys::dentry(below.ino, b"up"), encoded(&inside)),
        changed(&site, keys::inode(dir), |row: &mut InodeRow| row.parent = below.ino),
    ];
    site.damage(writes);
    site.repair();
    let lost = site.lost();
    assert_eq!(lost.len(), 1, "{lost:?}");
    let way = match lost[0] == format!("#{dir}") {
        true => format!("lost+found/#{dir}/below/deep"),
        false => format!("lost+found/#{}/up/file", below.ino),
    };
    assert!(site.store.ns.resolve(&way).is_ok());
    assert_eq!(site.store.attr(file).unwrap().nlink, 2);
    site.assert_content();
}

#[test]
fn parents_are_set_right() {
    let mut site = Site::new();
    let (dir, clone) = (site.dir, site.clone);
    let below: DentryRow = site.row(&keys::dentry(dir, b"below"));
    let writes = vec![
        changed(&site, keys::inode(dir), |row: &mut InodeRow| row.parent = clone),
        changed(&site, keys::inode(below.ino), |row: &mut InodeRow| row.parent = 77_777),
    ];
    site.damage(writes);
    site.repair();
    assert!(site.store.ns.resolve("d/below/deep").is_ok());
    assert_eq!(site.lost(), Vec::<String>::new());
}

#[test]
fn users_of_segments_are_set_right_and_needless_ones_go() {
    let mut site = Site::new();
    let (file, clone) = (site.file, site.clone);
    let shared = site.store.ns.list_entry(file, 1).unwrap().unwrap().segment;
    let other = site.store.ns.list_entry(file, 2).unwrap().unwrap().segment;
    let content = site.raw(&keys::segment(shared));
    let writes = vec![
        (keys::share(shared), None),
        (keys::share(other), encoded(&ShareRow { users: 9 })),
        (keys::segment(30_000), Some(content)),
        (keys::share(30_001), encoded(&ShareRow { users: 2 })),
        changed(&site, keys::list(clone, 0), |row: &mut ListRow| row.entries[0].stored += 5),
    ];
    site.damage(writes);
    site.repair();
    site.assert_content();
    // With the counts right again, the end of one file leaves the other whole.
    site.store.unlink(ROOT, "clone").unwrap();
    site.store.check();
    assert_eq!(site.store.manifest(file).len(), 300);
    site.store.unlink(ROOT, "second").unwrap();
    site.store.unlink(site.dir, "file").unwrap();
    site.store.check();
    assert_eq!(site.store.rows(Table::Segments), 0);
}

fn whole_file() -> LocksRow {
    LocksRow { spans: vec![SpanRow { start: 0, end: LAST_BYTE, write: true, pid: 1 }] }
}

#[test]
fn rows_of_what_is_gone_are_freed() {
    let mut site = Site::new();
    let (file, orphan) = (site.file, site.orphan);
    let list = site.raw(&keys::list(file, 0));
    let shared = site.store.ns.list_entry(file, 1).unwrap().unwrap().segment;
    let more = ReclaimRow { segments: vec![shared] };
    let writes = vec![
        (keys::list(20_000, 0), Some(list)),
        (keys::xattr(20_000, b"user.a"), Some(Bytes::new())),
        (keys::xattr(20_001, b"user.b"), Some(Bytes::new())),
        (keys::reply(4_242, 1), Some(Bytes::new())),
        (keys::reply(4_242, 2), Some(Bytes::new())),
        (keys::orphan(file), Some(Bytes::new())),
        (keys::orphan(20_002), Some(Bytes::new())),
        (keys::orphan(orphan), None),
        (keys::reclaim(60_000), encoded(&more)),
        (keys::locks(file, 4_242, 7, 1), encoded(&whole_file())),
    ];
    site.damage(writes);
    site.repair();
    site.assert_content();
    for row in [
        keys::xattr(20_000, b"user.a"),
        keys::reply(4_242, 2),
        keys::list(20_000, 0),
        keys::locks(file, 4_242, 7, 1),
    ] {
        assert!(site.store.engine.get(&row).unwrap().is_none(), "{}", row.escape_ascii());
    }
    assert_eq!(site.store.attr(orphan).unwrap().nlink, 0, "an open orphan stays");
    site.store.release(orphan);
    site.store.check();
    assert!(site.store.attr(orphan).is_err());
}

#[test]
fn a_living_file_is_not_freed_because_a_row_calls_it_dead() {
    let mut site = Site::new();
    site.damage(vec![(keys::dead(site.file), Some(Bytes::new()))]);
    site.repair();
    site.assert_content();
}

#[test]
fn a_remedy_does_nothing_when_things_have_changed() {
    let mut site = Site::new();
    let (file, dir) = (site.file, site.dir);
    let version = site.store.attr(file).unwrap().version;
    let stale = version - 1;
    for remedy in [
        Remedy::Reattach { ino: file, version: stale },
        Remedy::Links { ino: file, version: stale, names: 1 },
        Remedy::Allocated { ino: file, version: stale, allocated: 1 },
        Remedy::AttributeList { ino: file, version: stale, bytes: 0, bits: 0 },
        Remedy::NextCookie { ino: dir, next_cookie: 1 },
        Remedy::Entries { ino: file, stored: 1, found: 2 },
        Remedy::DirectoryLinks { ino: file, stored: 1, found: 2 },
        Remedy::NameOfNothing { directory: dir, name: "file".into() },
        Remedy::NameKind { directory: dir, name: "file".into() },
        Remedy::Parent { directory: dir, name: "below".into() },
        Remedy::Cookie { directory: dir, name: "file".into() },
        Remedy::Loop { ino: dir },
        Remedy::ListOrphan { ino: file },
        Remedy::UnlistOrphan { ino: site.orphan },
        Remedy::NotDead { ino: file },
        Remedy::Leftovers { ino: file },
        Remedy::ShareOfNothing {
            segment: site.store.ns.list_entry(file, 1).unwrap().unwrap().segment,
        },
        Remedy::RepliesOfNothing { session: site.store.session },
        Remedy::LocksOfNothing { session: site.store.session },
    ] {
        assert_eq!(site.store.ns.repair(&remedy), Ok(None), "{remedy:?}");
    }
    assert_eq!(site.store.attr(file).unwrap().version, version);
    site.store.check();
    site.assert_content();
}

#[test]
fn counts_of_a_directory_are_mended_although_it_keeps_changing() {
    let mut site = Site::new();
    let mut row: InodeRow = InodeRow::decode(site.raw(&keys::inode(ROOT))).unwrap();
    row.entries += 7;
    row.nlink += 2;
    site.damage(vec![(keys::inode(ROOT), encoded(&row))]);
    let findings = site.findings();
    // What a program does between the finding and the remedy.
    let made = site.store.mkdir(ROOT, "made meanwhile");
    for finding in &findings {
        let done = site.store.ns.repair(finding.remedy.as_ref().unwrap()).unwrap();
        assert!(done.is_some(), "{finding:?}");
    }
    assert!(made > 0 && findings.len() >= 2, "{findings:?}");
    site.store.check();
}

#[test]
fn numbers_that_would_be_given_out_again_are_found() {
    let mut site = Site::new();
    let beyond = site.raw(&keys::inode(site.clone));
    let name = DentryRow { ino: 1 << 40, kind: libc::S_IFREG, cookie: 80 };
    let writes =
        vec![(keys::inode(1 << 40), Some(beyond)), (keys::dentry(ROOT, b"beyond"), encoded(&name))];
    site.damage(writes);
    let findings = site.findings();
    assert!(findings.iter().any(|f| f.what.contains("given out again")), "{findings:?}");
}
