//! Access control lists and modes, inheritance, the summary of attributes, times of reads.

use cairn_proto::xattr::{
    ACCESS_ACL, ALL, DEFAULT_ACL, HAS_ACCESS_ACL, HAS_ANY, HAS_CAPABILITY, HAS_DEFAULT_ACL,
};

use super::*;
use crate::acl::tests::{MINIMAL, NAMED, stored};

impl Store {
    fn set(&mut self, ino: u64, name: &'static [u8], value: Bytes) -> Result<(), FsError> {
        let request = pb::SetXattr { ino, name: name.into(), value, ..pb::SetXattr::default() };
        self.op(op::Kind::SetXattr(request)).map(|_| ())
    }

    fn get(&mut self, ino: u64, name: &'static [u8]) -> Result<Bytes, FsError> {
        match self.op(op::Kind::GetXattr(pb::GetXattr { ino, name: name.into() }))? {
            reply::Kind::XattrValue(value) => Ok(value.value),
            other => panic!("{other:?}"),
        }
    }

    fn remove(&mut self, ino: u64, name: &'static [u8]) -> Result<(), FsError> {
        self.op(op::Kind::RemoveXattr(pb::RemoveXattr { ino, name: name.into() })).map(|_| ())
    }

    fn make(&mut self, parent: u64, name: &'static str, mode: u32, masked: u32) -> pb::Attr {
        let request =
            pb::Create { parent, name: name.into(), mode, masked, ..pb::Create::default() };
        match self.op(op::Kind::Create(request)).unwrap() {
            reply::Kind::Entry(entry) => entry.attr.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn bits(&mut self, ino: u64) -> u32 {
        self.attr(ino).unwrap().xattrs.unwrap()
    }
}

#[test]
fn a_list_changes_the_mode_and_chmod_the_list() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.set(ino, ACCESS_ACL, stored(NAMED)).unwrap();
    assert_eq!(store.attr(ino).unwrap().mode, libc::S_IFREG | 0o670);
    assert_eq!(store.get(ino, ACCESS_ACL).unwrap(), stored(NAMED));
    let chmod = pb::SetAttr { ino, mode: Some(0o4751), ..Default::default() };
    assert_eq!(store.set_attr(chmod).unwrap().mode, libc::S_IFREG | 0o4751);
    let mut changed = NAMED.to_vec();
    (changed[0].1, changed[3].1, changed[4].1) = (7, 5, 1);
    assert_eq!(store.get(ino, ACCESS_ACL).unwrap(), stored(&changed));
    // One that says no more than a mode is the mode.
    store.set(ino, ACCESS_ACL, stored(MINIMAL)).unwrap();
    assert_eq!(store.attr(ino).unwrap().mode, libc::S_IFREG | 0o4750);
    assert_eq!(store.get(ino, ACCESS_ACL), Err(FsError::NoAttribute));
    assert_eq!(store.bits(ino), 0);
    assert_eq!(store.set(ino, ACCESS_ACL, stored(&NAMED[1..])), Err(FsError::InvalidArgument));
    assert_eq!(store.set(ino, DEFAULT_ACL, stored(MINIMAL)), Err(FsError::AccessDenied));
    store.check();
}

#[test]
fn a_caller_outside_the_group_loses_the_set_group_id_bit() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    store.set_attr(pb::SetAttr { ino, mode: Some(0o2755), ..Default::default() }).unwrap();
    store.set(ino, ACCESS_ACL, stored(MINIMAL)).unwrap();
    assert_eq!(store.attr(ino).unwrap().mode & 0o7777, 0o2750);
    let (name, value) = (Bytes::from_static(ACCESS_ACL), stored(MINIMAL));
    let request = pb::SetXattr { ino, name, value, flags: 0, kill_sgid: true };
    store.op(op::Kind::SetXattr(request)).unwrap();
    assert_eq!(store.attr(ino).unwrap().mode & 0o7777, 0o750);
}

#[test]
fn new_inodes_inherit_the_default_list_instead_of_the_umask() {
    let mut store = Store::new();
    let dir = store.mkdir(ROOT, "d");
    store.set(dir, DEFAULT_ACL, stored(NAMED)).unwrap();
    // open(2) asked for 0666 under a umask of 022.
    let file = store.make(dir, "f", libc::S_IFREG | 0o644, 0o022);
    assert_eq!(file.mode & 0o777, 0o660);
    assert_eq!(file.xattrs, Some(HAS_ANY | HAS_ACCESS_ACL));
    let mut inherited = NAMED.to_vec();
    inherited[3].1 = 6;
    assert_eq!(store.get(file.ino, ACCESS_ACL).unwrap(), stored(&inherited));
    let below = store.make(dir, "below", libc::S_IFDIR | 0o755, 0o022);
    assert_eq!(below.mode & 0o777, 0o670);
    assert_eq!(below.xattrs, Some(HAS_ANY | HAS_ACCESS_ACL | HAS_DEFAULT_ACL));
    assert_eq!(store.get(below.ino, DEFAULT_ACL).unwrap(), stored(NAMED));
    let link = store.create(dir, "link", libc::S_IFLNK | 0o777).unwrap();
    assert_eq!((link.mode & 0o777, link.xattrs), (0o777, Some(0)));
    // A default that is no more than a mode leaves no list behind.
    store.set(dir, DEFAULT_ACL, stored(MINIMAL)).unwrap();
    let plain = store.make(dir, "plain", libc::S_IFREG | 0o600, 0o066);
    assert_eq!((plain.mode & 0o777, plain.xattrs), (0o640, Some(0)));
    // Without one, the umask has been applied.
    store.remove(dir, DEFAULT_ACL).unwrap();
    assert_eq!(store.make(dir, "g", libc::S_IFREG | 0o644, 0o022).mode & 0o777, 0o644);
    store.remove(dir, DEFAULT_ACL).unwrap();
    store.check();
}

#[test]
fn the_summary_tells_what_there_may_be() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    assert_eq!(store.bits(ino), 0);
    store.set(ino, b"user.x", Bytes::new()).unwrap();
    assert_eq!(store.bits(ino), HAS_ANY);
    store.set(ino, b"security.capability", Bytes::new()).unwrap();
    assert_eq!(store.bits(ino), HAS_ANY | HAS_CAPABILITY);
    // As an older version has left it: a list, and nothing about what is in it.
    let mut inode = store.ns.inode(ino).unwrap();
    inode.row.xattrs = 0;
    store.ns.put_inode(&inode);
    assert_eq!(store.bits(ino), ALL);
    assert_eq!(store.get(ino, b"security.capability").unwrap(), Bytes::new());
    store.set(ino, b"user.y", Bytes::new()).unwrap();
    assert_eq!(store.bits(ino), HAS_ANY | HAS_CAPABILITY);
    store.remove(ino, b"security.capability").unwrap();
    assert_eq!(store.bits(ino), HAS_ANY);
    store.remove(ino, b"user.x").unwrap();
    store.remove(ino, b"user.y").unwrap();
    assert_eq!(store.bits(ino), 0);
    assert_eq!(store.set(ino, b"system.other", Bytes::new()), Err(FsError::NotSupported));
    store.check();
}

#[test]
fn noticed_reads_change_the_time_of_the_last_read_and_nothing_else() {
    let mut store = Store::new();
    let ino = store.file(ROOT, "f");
    let before = store.attr(ino).unwrap();
    let at = |seconds| Some(pb::Timestamp { seconds, nanos: 5 });
    let seconds = before.atime.unwrap().seconds;
    let mut accessed = |accesses: &[(u64, i64)]| {
        let access = |(ino, seconds): &(u64, i64)| pb::Access { ino: *ino, atime: at(*seconds) };
        let accesses = accesses.iter().map(access).collect();
        store.op(op::Kind::Accessed(pb::Accessed { accesses })).unwrap();
        store.attr(ino).unwrap()
    };
    let after = accessed(&[(9_999, seconds + 1), (0, seconds + 1), (ino, seconds + 7)]);
    assert_eq!(after, pb::Attr { atime: at(seconds + 7), ..before });
    assert_eq!(accessed(&[(ino, seconds + 2)]), after, "an earlier read was noticed later");
}
