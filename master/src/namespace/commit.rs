//! Commit of a file: the only way data enters it. Compare and swap for each chunk and, when
//! appending, for the length; all of it or nothing.

use std::collections::BTreeMap;

use cairn_proto::{
    ChunkRef, FsError,
    limits::{COMMIT_CHANGES_MAX, FILE_SIZE_MAX, PG_BITS_MAX},
    manifest::{from_wire, to_wire},
    pb,
    range::{chunk_start, len_within},
    xattr::{CAPABILITY, HAS_CAPABILITY},
};
use pb::commit::Size;

use super::{
    Namespace,
    inodes::Inode,
    segments::{Home, Part},
    setattr::{checked, kill_suid_sgid},
};

/// One chunk's change, checked.
struct Change {
    expected: Option<ChunkRef>,
    new: Option<ChunkRef>,
}

impl Namespace {
    fn changes(&self, request: &pb::Commit) -> Result<BTreeMap<u64, Change>, FsError> {
        if request.changes.len() > COMMIT_CHANGES_MAX {
            return Err(FsError::InvalidArgument);
        }
        let chunk = |wire: &Option<pb::ChunkRef>| wire.as_ref().map_or(Ok(None), from_wire);
        let mut changes = BTreeMap::new();
        for change in &request.changes {
            let (expected, new) = (chunk(&change.expected)?, chunk(&change.new)?);
            if let Some(new) = new {
                let start = chunk_start(change.index, self.chunk_size);
                if start.saturating_add(u64::from(new.logical_len)) > FILE_SIZE_MAX {
                    return Err(FsError::TooBig);
                }
                if new.logical_len > self.chunk_size || new.stored_len > self.chunk_size {
                    return Err(FsError::InvalidArgument);
                }
            }
            if changes.insert(change.index, Change { expected, new }).is_some() {
                return Err(FsError::InvalidArgument);
            }
        }
        Ok(changes)
    }

    pub(super) fn commit_file(&mut self, request: &pb::Commit) -> Result<pb::Committed, FsError> {
        let changes = self.changes(request)?;
        let mtime = checked(request.mtime)?;
        let mut inode = self.inode(request.ino)?;
        if !inode.row.is_regular() {
            let directory = inode.row.is_directory();
            return Err(if directory { FsError::IsDirectory } else { FsError::InvalidArgument });
        }
        if changes.values().any(|change| change.new.is_some())
            && !self.accepts_stamp(request.gc_epoch)
        {
            return Ok(self.verify_again(&inode));
        }
        let Some(size) = size_after(inode.row.size, request.size)? else {
            return Ok(refused(&inode, Vec::new()));
        };
        let parts = self.parts_of(&inode, &changes)?;
        let conflicts = conflicts(&parts, &changes);
        if !conflicts.is_empty() {
            return Ok(refused(&inode, conflicts));
        }
        self.note_degraded(&request.degraded_groups)?;
        let before = (inode.row.size, inode.row.allocated);
        for (mut part, indexes) in parts {
            for index in indexes {
                // What lies beyond the end is cut as a truncation would have cut it.
                let len = len_within(index, size, self.chunk_size);
                let new = changes[&index].new.and_then(|chunk| chunk.clipped(len));
                part.slots[Home::of(index).1] = new;
            }
            self.store_part(&mut inode, &part)?;
        }
        inode.row.size = size;
        self.count_change(before, &inode.row);
        self.charge_change(before.1, &inode)?;
        let now = self.now();
        self.touch_data(&mut inode, now);
        inode.row.mtime = mtime.or(inode.row.mtime);
        if request.kill_suid_sgid {
            kill_suid_sgid(&mut inode);
        }
        // What was changed may no longer do what it was trusted with. The kernel sees to it for most
        // writes, but not for those that pass its page cache by.
        if inode.row.xattr_bits() & HAS_CAPABILITY != 0 {
            self.drop_xattr(&mut inode, CAPABILITY)?;
        }
        self.put_inode(&inode);
        Ok(pb::Committed { applied: true, attr: Some(inode.attr()), ..pb::Committed::default() })
    }

    /// The parts that hold the changed chunks, each with their indexes.
    fn parts_of(
        &mut self,
        inode: &Inode,
        changes: &BTreeMap<u64, Change>,
    ) -> Result<Vec<(Part, Vec<u64>)>, FsError> {
        let mut parts: Vec<(Part, Vec<u64>)> = Vec::new();
        for &index in changes.keys() {
            let (home, _) = Home::of(index);
            match parts.last_mut() {
                Some((part, indexes)) if part.home == home => indexes.push(index),
                _ => parts.push((self.load_part(inode, home)?, vec![index])),
            }
        }
        Ok(parts)
    }

    /// Groups that were written to fewer nodes than wanted.
    pub fn note_degraded(&mut self, groups: &[u32]) -> Result<(), FsError> {
        if groups.iter().any(|group| *group >= 1 << PG_BITS_MAX) {
            return Err(FsError::InvalidArgument);
        }
        groups.iter().for_each(|group| self.add_degraded(*group));
        Ok(())
    }
}

/// The length after the commit; `None` when somebody else has appended meanwhile.
fn size_after(size: u64, wanted: Option<Size>) -> Result<Option<u64>, FsError> {
    let after = match wanted {
        None => size,
        Some(Size::GrowTo(to)) => size.max(to),
        Some(Size::AppendAt(append)) => {
            if append.new_size < append.expected_size {
                return Err(FsError::InvalidArgument);
            }
            if append.new_size > FILE_SIZE_MAX {
                return Err(FsError::TooBig);
            }
            if append.expected_size != size {
                return Ok(None);
            }
            append.new_size
        }
    };
    if after > FILE_SIZE_MAX { Err(FsError::TooBig) } else { Ok(Some(after)) }
}

fn conflicts(
    parts: &[(Part, Vec<u64>)],
    changes: &BTreeMap<u64, Change>,
) -> Vec<pb::ChunkConflict> {
    let mut conflicts = Vec::new();
    for (part, indexes) in parts {
        for &index in indexes {
            let current = part.slots[Home::of(index).1];
            if current != changes[&index].expected {
                conflicts.push(pb::ChunkConflict { index, current: Some(to_wire(current)) });
            }
        }
    }
    conflicts
}

fn refused(inode: &Inode, conflicts: Vec<pb::ChunkConflict>) -> pb::Committed {
    pb::Committed { attr: Some(inode.attr()), conflicts, ..pb::Committed::default() }
}
