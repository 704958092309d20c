//! The only place where the bytes of a key exist.
//!
//! One byte says the kind, numbers are big-endian, names come last:
//!
//! | kind | rest | value |
//! |---|---|---|
//! | `A` | | [`SchemaRow`](super::rows::SchemaRow) |
//! | `M` | mark(1) | high-water mark: 8 bytes |
//! | `C` | | [`CountersRow`](super::rows::CountersRow) |
//! | `i` | ino(8) | [`InodeRow`](super::rows::InodeRow) |
//! | `d` | directory(8) name | [`DentryRow`](super::rows::DentryRow) |
//! | `e` | directory(8) cookie(8) | [`CookieRow`](super::rows::CookieRow): the same entry by cookie |
//! | `l` | ino(8) list index(8) | [`ListRow`](super::rows::ListRow): segments of a file |
//! | `s` | segment(8) | [`SegmentRow`](super::rows::SegmentRow) |
//! | `h` | segment(8) | [`ShareRow`](super::rows::ShareRow): only of segments with two or more users |
//! | `x` | ino(8) name | value of an extended attribute |
//! | `o` | ino(8) | nothing: an inode without a name |
//! | `z` | ino(8) | nothing: an inode that is gone, its lists and attributes are still to be freed |
//! | `q` | number(8) | [`ReclaimRow`](super::rows::ReclaimRow): segments cut off a file, still to be freed |
//! | `S` | session(8) | [`SessionRow`](super::rows::SessionRow) |
//! | `r` | session(8) seq(8) | the stored `Reply` |
//! | `P` | | [`ClusterRow`](super::rows::ClusterRow): what people decided about the cluster |
//! | `n` | node UUID(16) | a `Node` message |
//! | `k` | ino(8) session(8) owner(8) space(1) | [`LocksRow`](super::rows::LocksRow): locks of one owner on one file |
//! | `b` | generation(8) part(8) | [`BackupRow`](super::rows::BackupRow): chunks of a kept backup |
//! | `Q` | directory(8) | [`QuotaRow`](super::rows::QuotaRow): what counts in it and what it may hold |
//! | `g` | group(4) | nothing: a group that was written to too few nodes |

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use cairn_proto::NodeId;

use crate::engine::KeyRange;

/// Numbers that are never handed out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Inode numbers.
    Ino = 1,
    /// Manifest segments and reclaim rows.
    Segment = 2,
    /// Sessions.
    Session = 3,
    /// Cluster maps.
    MapEpoch = 4,
    /// Starts of the master.
    Incarnation = 5,
    /// Garbage collection: what nodes stamp with.
    GcEpoch = 16,
    /// Garbage collection: chunks that were stamped before may be gone.
    GcFloor = 17,
    /// Garbage collection: what files referred to, in bytes, when a cycle was last complete.
    GcReferenced = 18,
}

fn key(kind: u8, numbers: &[u64], name: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + 8 * numbers.len() + name.len());
    bytes.put_u8(kind);
    numbers.iter().for_each(|n| bytes.put_u64(*n));
    bytes.put_slice(name);
    bytes.freeze()
}

/// The format of all rows.
pub fn schema() -> Bytes {
    key(b'A', &[], &[])
}
/// A high-water mark.
pub fn mark(mark: Mark) -> Bytes {
    key(b'M', &[], &[mark as u8])
}
/// The usage counters.
pub fn counters() -> Bytes {
    key(b'C', &[], &[])
}
/// An inode.
pub fn inode(ino: u64) -> Bytes {
    key(b'i', &[ino], &[])
}
/// A name in a directory.
pub fn dentry(directory: u64, name: &[u8]) -> Bytes {
    key(b'd', &[directory], name)
}
/// A name in a directory by its cookie.
pub fn cookie(directory: u64, cookie: u64) -> Bytes {
    key(b'e', &[directory, cookie], &[])
}
/// A part of a file's list of segments.
pub fn list(ino: u64, index: u64) -> Bytes {
    key(b'l', &[ino, index], &[])
}
/// A manifest segment.
pub fn segment(id: u64) -> Bytes {
    key(b's', &[id], &[])
}
/// The number of users of a shared segment.
pub fn share(id: u64) -> Bytes {
    key(b'h', &[id], &[])
}
/// An extended attribute.
pub fn xattr(ino: u64, name: &[u8]) -> Bytes {
    key(b'x', &[ino], name)
}
/// An inode without a name.
pub fn orphan(ino: u64) -> Bytes {
    key(b'o', &[ino], &[])
}
/// An inode that is gone.
pub fn dead(ino: u64) -> Bytes {
    key(b'z', &[ino], &[])
}
/// Segments to be freed.
pub fn reclaim(number: u64) -> Bytes {
    key(b'q', &[number], &[])
}
/// A session.
pub fn session(id: u64) -> Bytes {
    key(b'S', &[id], &[])
}
/// A stored reply.
pub fn reply(session: u64, seq: u64) -> Bytes {
    key(b'r', &[session, seq], &[])
}
/// The locks of one owner on one file.
pub fn locks(ino: u64, session: u64, owner: u64, space: u8) -> Bytes {
    key(b'k', &[ino, session, owner], &[space])
}
/// A storage node.
pub fn node(id: NodeId) -> Bytes {
    key(b'n', &[], id.0.as_bytes())
}
/// A part of a backup that is kept.
pub fn backup(generation: u64, part: u64) -> Bytes {
    key(b'b', &[generation, part], &[])
}
/// What people decided about the cluster.
pub fn cluster() -> Bytes {
    key(b'P', &[], &[])
}
/// The quota of a directory.
pub fn quota(directory: u64) -> Bytes {
    key(b'Q', &[directory], &[])
}
/// A degraded placement group.
pub fn degraded(group: u32) -> Bytes {
    key(b'g', &[], &group.to_be_bytes())
}

/// Kinds of rows that are scanned as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `i`
    Inodes,
    /// `d`
    Dentries,
    /// `e`
    Cookies,
    /// `l`
    Lists,
    /// `s`
    Segments,
    /// `h`
    Shares,
    /// `x`
    Xattrs,
    /// `o`
    Orphans,
    /// `z`
    Dead,
    /// `q`
    Reclaims,
    /// `S`
    Sessions,
    /// `r`
    Replies,
    /// `n`
    Nodes,
    /// `g`
    Degraded,
    /// `k`
    Locks,
    /// `b`
    Backups,
    /// `Q`
    Quotas,
}

impl Table {
    const fn kind(self) -> u8 {
        match self {
            Self::Inodes => b'i',
            Self::Dentries => b'd',
            Self::Cookies => b'e',
            Self::Lists => b'l',
            Self::Segments => b's',
            Self::Shares => b'h',
            Self::Xattrs => b'x',
            Self::Orphans => b'o',
            Self::Dead => b'z',
            Self::Reclaims => b'q',
            Self::Sessions => b'S',
            Self::Replies => b'r',
            Self::Nodes => b'n',
            Self::Degraded => b'g',
            Self::Locks => b'k',
            Self::Backups => b'b',
            Self::Quotas => b'Q',
        }
    }

    /// All rows.
    pub fn all(self) -> KeyRange {
        prefix(key(self.kind(), &[], &[]))
    }

    /// The rows that belong to one inode, directory or session.
    pub fn of(self, owner: u64) -> KeyRange {
        prefix(key(self.kind(), &[owner], &[]))
    }

    /// The rows of `owner` whose second number is at least `from`.
    pub fn of_from(self, owner: u64, from: u64) -> KeyRange {
        KeyRange { from: Bound::Included(key(self.kind(), &[owner, from], &[])), ..self.of(owner) }
    }

    /// The rows whose first number is at least `from`.
    pub fn starting(self, from: u64) -> KeyRange {
        KeyRange { from: Bound::Included(key(self.kind(), &[from], &[])), ..self.all() }
    }
}

/// All rows of all kinds.
pub const fn everything() -> KeyRange {
    KeyRange { from: Bound::Unbounded, to: Bound::Unbounded }
}

/// Whether a row belongs to the file system rather than to the master that serves it: sessions, their
/// replies and their locks mean nothing to another master, and which backups are kept is no part of one.
pub fn is_portable(key: &[u8]) -> bool {
    !matches!(key.first(), None | Some(b'S' | b'r' | b'k' | b'b'))
}

/// Whether a row is a high-water mark.
pub fn is_mark(key: &[u8]) -> bool {
    key.first() == Some(&b'M')
}

/// What follows `range`'s row `last`.
pub fn after(range: &KeyRange, last: Bytes) -> KeyRange {
    KeyRange { from: Bound::Excluded(last), to: range.to.clone() }
}

fn prefix(prefix: Bytes) -> KeyRange {
    let mut end = prefix.to_vec();
    while end.last() == Some(&255) {
        end.pop();
    }
    let to = match end.last_mut() {
        Some(last) => {
            *last += 1;
            Bound::Excluded(end.into())
        }
        None => Bound::Unbounded,
    };
    KeyRange { from: Bound::Included(prefix), to }
}

/// The number after the kind: inode, directory, segment or session.
pub fn owner(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?))
}

/// The second number: cookie, list index or seq.
pub fn second(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?))
}

/// Session, owner and space of a row of locks.
pub fn locks_owner(key: &[u8]) -> Option<(u64, u64, u8)> {
    let owner = u64::from_be_bytes(key.get(17..25)?.try_into().ok()?);
    Some((second(key)?, owner, *key.get(25)?))
}

/// The name after the first number.
pub fn name(key: &Bytes) -> Option<Bytes> {
    (key.len() > 9).then(|| key.slice(9..))
}

/// The number of a degraded group.
pub fn group(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?))
}

/// Whether rows of this kind are read again soon and small enough to be kept in memory.
pub fn is_hot(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'i' | b'd' | b'l' | b's' | b'h' | b'x' | b'Q'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn contains(range: &KeyRange, key: &Bytes) -> bool {
        use std::ops::RangeBounds;
        (range.from.clone(), range.to.clone()).contains(key)
    }

    #[test]
    fn parts_come_back() {
        let name_bytes = b"a name \xff";
        assert_eq!(owner(&dentry(7, name_bytes)), Some(7));
        assert_eq!(name(&dentry(7, name_bytes)).as_deref(), Some(&name_bytes[..]));
        assert_eq!(name(&xattr(u64::MAX, b"user.x")).as_deref(), Some(&b"user.x"[..]));
        for row in [cookie(3, 9), list(3, 9), reply(3, 9)] {
            assert_eq!((owner(&row), second(&row)), (Some(3), Some(9)));
        }
        for row in [inode(5), segment(5), share(5), orphan(5), dead(5), reclaim(5), session(5)] {
            assert_eq!((owner(&row), second(&row)), (Some(5), None));
        }
        assert_eq!(group(&degraded(70_000)), Some(70_000));
        assert_eq!(owner(b"i"), None);
        let row = locks(5, 6, 7, 2);
        assert_eq!((owner(&row), locks_owner(&row)), (Some(5), Some((6, 7, 2))));
    }

    #[test]
    fn no_two_rows_share_a_key() {
        let id = NodeId("6a1f0e9c-3b1d-4f43-9a0e-2b6a4f0c9d11".parse().unwrap());
        let keys = [
            schema(),
            mark(Mark::Ino),
            mark(Mark::Segment),
            mark(Mark::Session),
            mark(Mark::MapEpoch),
            mark(Mark::Incarnation),
            mark(Mark::GcEpoch),
            mark(Mark::GcFloor),
            mark(Mark::GcReferenced),
            counters(),
            inode(1),
            dentry(1, b"a"),
            cookie(1, 1),
            list(1, 1),
            segment(1),
            share(1),
            xattr(1, b"a"),
            orphan(1),
            dead(1),
            reclaim(1),
            session(1),
            reply(1, 1),
            node(id),
            cluster(),
            degraded(1),
            locks(1, 1, 1, 1),
            backup(1, 1),
            quota(1),
        ];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    }

    #[test]
    fn ranges_hold_their_rows_and_no_others() {
        let range = Table::Dentries.of(255);
        assert!(contains(&range, &dentry(255, &[255; 255])));
        assert!(contains(&range, &dentry(255, b"")));
        assert!(!contains(&range, &dentry(256, b"")));
        assert!(!contains(&range, &dentry(254, &[255; 255])));
        assert!(contains(&Table::Inodes.all(), &inode(u64::MAX)));
        assert!(contains(&Table::Inodes.of(u64::MAX), &inode(u64::MAX)));
        assert!(contains(&Table::Cookies.of_from(4, 10), &cookie(4, 10)));
        assert!(!contains(&Table::Cookies.of_from(4, 10), &cookie(4, 9)));
        assert!(!contains(&Table::Cookies.of_from(4, 10), &cookie(5, 11)));
        let rest = after(&Table::Lists.of(1), list(1, 5));
        assert!(contains(&rest, &list(1, 6)) && !contains(&rest, &list(1, 5)));
    }
}
