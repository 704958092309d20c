//! [`Acl`]: a POSIX access control list, as acl(5) describes it. Pure.
//!
//! Stored and sent as Linux has it in `system.posix_acl_access` and `system.posix_acl_default`: a header
//! with version 2, then entries of tag, permissions and id, little endian. The kernel of a mount checks
//! accesses; what is here keeps list and mode in step and lets new inodes inherit.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_proto::FsError;

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// Id of the entries that have none.
const NO_ID: u32 = u32::MAX;
const ALL: u16 = 7;

/// Whom an entry is about, with the number that the format has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Owner = 1,
    User = 2,
    OwningGroup = 4,
    Group = 8,
    Mask = 16,
    Other = 32,
}

impl Tag {
    const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Owner,
            2 => Self::User,
            4 => Self::OwningGroup,
            8 => Self::Group,
            16 => Self::Mask,
            32 => Self::Other,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    permissions: u16,
    id: u32,
}

/// Entries in the order of their tags: one for the owner, for the owning group and for others, any number
/// for named users and groups, and a mask when there are such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads a list; `None`: it has no entries, which means that there shall be none.
    ///
    /// # Errors
    /// `NotSupported` for another version, `InvalidArgument` for what is no list.
    pub(crate) fn read(mut value: Bytes) -> Result<Option<Self>, FsError> {
        if value.len() < HEADER || !(value.len() - HEADER).is_multiple_of(ENTRY) {
            return Err(FsError::InvalidArgument);
        }
        if value.get_u32_le() != VERSION {
            return Err(FsError::NotSupported);
        }
        if value.is_empty() {
            return Ok(None);
        }
        let mut entries = Vec::with_capacity(value.len() / ENTRY);
        while value.has_remaining() {
            let (tag, permissions, id) =
                (value.get_u16_le(), value.get_u16_le(), value.get_u32_le());
            let tag = Tag::from_number(tag).ok_or(FsError::InvalidArgument)?;
            let id = if matches!(tag, Tag::User | Tag::Group) { id } else { NO_ID };
            entries.push(Entry { tag, permissions, id });
        }
        let list = Self(entries);
        if list.is_valid() { Ok(Some(list)) } else { Err(FsError::InvalidArgument) }
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let named = count(Tag::User) + count(Tag::Group);
        let masks = count(Tag::Mask);
        self.0.is_sorted_by_key(|entry| entry.tag)
            && [Tag::Owner, Tag::OwningGroup, Tag::Other].iter().all(|tag| count(*tag) == 1)
            && (masks == 1 || masks == 0 && named == 0)
            && self.0.iter().all(|entry| {
                let is_named = matches!(entry.tag, Tag::User | Tag::Group);
                entry.permissions & !ALL == 0 && (!is_named || entry.id != NO_ID)
            })
    }

    /// The list as it is stored.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(HEADER + ENTRY * self.0.len());
        value.put_u32_le(VERSION);
        for entry in &self.0 {
            value.put_u16_le(entry.tag as u16);
            value.put_u16_le(entry.permissions);
            value.put_u32_le(entry.id);
        }
        value.freeze()
    }

    /// Whether it says nothing that a mode does not say.
    pub(crate) fn is_minimal(&self) -> bool {
        !self.0.iter().any(|entry| matches!(entry.tag, Tag::User | Tag::Group | Tag::Mask))
    }

    /// `mode` with the permissions that an inode with this access list shows: the mask takes the
    /// group's place.
    pub(crate) fn shown_in(&self, mode: u32) -> u32 {
        let of = |tag| u32::from(self.permissions(tag).unwrap_or(0));
        let group = self.permissions(Tag::Mask).map_or_else(|| of(Tag::OwningGroup), u32::from);
        mode & !0o777 | of(Tag::Owner) << 6 | group << 3 | of(Tag::Other)
    }

    /// The list after chmod(2) to `mode`.
    #[must_use]
    pub(crate) fn after_chmod(mut self, mode: u32) -> Self {
        self.change(|permissions, wanted| *permissions = wanted, mode);
        self
    }

    /// The access list of a new inode for which open(2) or mkdir(2) asked for `mode`, in a directory
    /// whose default list this is.
    #[must_use]
    pub(crate) fn inherited(mut self, mode: u32) -> Self {
        self.change(|permissions, wanted| *permissions &= wanted, mode);
        self
    }

    /// Lets `mode` change the entries that it stands for: owner, others, and the mask or else the group.
    fn change(&mut self, how: impl Fn(&mut u16, u16), mode: u32) {
        let masked = self.permissions(Tag::Mask).is_some();
        for entry in &mut self.0 {
            let shift = match entry.tag {
                Tag::Owner => 6,
                Tag::Mask => 3,
                Tag::OwningGroup if !masked => 3,
                Tag::Other => 0,
                Tag::User | Tag::Group | Tag::OwningGroup => continue,
            };
            #[expect(clippy::cast_possible_truncation, reason = "three bits")]
            how(&mut entry.permissions, (mode >> shift) as u16 & ALL);
        }
    }

    fn permissions(&self, tag: Tag) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A list in its stored form.
    pub(crate) fn stored(entries: &[(u16, u16, u32)]) -> Bytes {
        let mut value = BytesMut::new();
        value.put_u32_le(2);
        for (tag, permissions, id) in entries {
            value.put_u16_le(*tag);
            value.put_u16_le(*permissions);
            value.put_u32_le(*id);
        }
        value.freeze()
    }

    /// `u::rw-,u:1000:rwx,g::r--,m::rwx,o::---`
    pub(crate) const NAMED: &[(u16, u16, u32)] =
        &[(1, 6, NO_ID), (2, 7, 1000), (4, 4, NO_ID), (16, 7, NO_ID), (32, 0, NO_ID)];
    /// `u::rwx,g::r-x,o::---`
    pub(crate) const MINIMAL: &[(u16, u16, u32)] = &[(1, 7, NO_ID), (4, 5, NO_ID), (32, 0, NO_ID)];

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::read(stored(entries)).unwrap().unwrap()
    }

    #[test]
    fn the_form_of_linux_comes_back() {
        for entries in [NAMED, MINIMAL] {
            assert_eq!(acl(entries).to_bytes(), stored(entries));
        }
        assert_eq!(Acl::read(stored(&[])), Ok(None));
        // Ids where there are none are not looked at.
        assert_eq!(acl(&[(1, 7, 5), (4, 5, 5), (32, 0, 5)]), acl(MINIMAL));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let refused = |entries: &[(u16, u16, u32)]| Acl::read(stored(entries)).unwrap_err();
        let invalid: [&[(u16, u16, u32)]; 9] = [
            &NAMED[1..],
            &NAMED[..4],
            &[(1, 7, NO_ID), (32, 0, NO_ID)],
            &[(4, 5, NO_ID), (1, 7, NO_ID), (32, 0, NO_ID)],
            &[(1, 8, NO_ID), (4, 5, NO_ID), (32, 0, NO_ID)],
            &[(1, 7, NO_ID), (1, 7, NO_ID), (4, 5, NO_ID), (32, 0, NO_ID)],
            &[(1, 7, NO_ID), (2, 7, 1), (4, 5, NO_ID), (32, 0, NO_ID)],
            &[(1, 7, NO_ID), (2, 7, NO_ID), (4, 5, NO_ID), (16, 7, NO_ID), (32, 0, NO_ID)],
            &[(1, 7, NO_ID), (4, 5, NO_ID), (64, 0, NO_ID)],
        ];
        for entries in invalid {
            assert_eq!(refused(entries), FsError::InvalidArgument, "{entries:?}");
        }
        let whole = stored(NAMED);
        for len in [0, 3, 5, whole.len() - 1] {
            assert_eq!(Acl::read(whole.slice(..len)), Err(FsError::InvalidArgument));
        }
        let other = Bytes::from_static(&[1, 0, 0, 0]);
        assert_eq!(Acl::read(other), Err(FsError::NotSupported));
    }

    #[test]
    fn the_mask_stands_for_the_group() {
        assert_eq!(acl(NAMED).shown_in(0o104_000), 0o104_670);
        assert_eq!(acl(MINIMAL).shown_in(0o100_777), 0o100_750);
        assert!(acl(MINIMAL).is_minimal() && !acl(NAMED).is_minimal());
        let masked = [(1, 6, NO_ID), (4, 4, NO_ID), (16, 7, NO_ID), (32, 0, NO_ID)];
        assert!(!acl(&masked).is_minimal(), "a mask is more than a mode says");
    }

    #[test]
    fn chmod_sets_owner_mask_and_others() {
        let changed = acl(NAMED).after_chmod(0o751);
        assert_eq!(changed.shown_in(0), 0o751);
        assert_eq!(changed.permissions(Tag::OwningGroup), Some(4), "the mask is changed instead");
        assert_eq!(changed.permissions(Tag::User), Some(7));
        assert_eq!(acl(MINIMAL).after_chmod(0o624).shown_in(0), 0o624);
    }

    #[test]
    fn new_inodes_have_what_both_the_default_and_the_mode_allow() {
        let file = acl(NAMED).inherited(0o666);
        assert_eq!(file.shown_in(0), 0o660);
        assert_eq!(
            file.permissions(Tag::User),
            Some(7),
            "named entries stay, the mask limits them"
        );
        assert_eq!(file.permissions(Tag::Mask), Some(6));
        assert_eq!(acl(NAMED).inherited(0o777).shown_in(0), 0o670);
        assert_eq!(acl(MINIMAL).inherited(0o604).shown_in(0), 0o600);
    }
}
