//! The root of a backup: what it is of, when it was taken, and where the list of its chunks lies.

use cairn_proto::{ChunkId, pb};
use prost::Message;

/// Version of the format that is written, and the newest that is read.
pub(crate) const VERSION: u32 = 1;

/// As nodes keep it.
pub(crate) fn seal(root: &pb::BackupRoot) -> pb::SealedBackup {
    let bytes = root.encode_to_vec();
    let sha256 = ChunkId::of(&bytes).to_wire();
    pb::SealedBackup { generation: root.generation, root: bytes.into(), sha256 }
}

/// What a node has kept, checked.
///
/// # Errors
/// A reason when it cannot be used.
pub(crate) fn open(sealed: &pb::SealedBackup) -> Result<pb::BackupRoot, String> {
    if ChunkId::of(&sealed.root).as_bytes()[..] != sealed.sha256[..] {
        return Err("its checksum does not match".to_owned());
    }
    let root = pb::BackupRoot::decode(sealed.root.clone()).map_err(|e| e.to_string())?;
    if root.version > VERSION {
        return Err(format!(
            "it has format version {}, this release reads versions up to {VERSION}: \
             use the newer release that wrote it",
            root.version
        ));
    }
    if root.generation != sealed.generation {
        return Err("it is of another generation than it says".to_owned());
    }
    Ok(root)
}

/// A list of ids as the bytes of chunks, each of at most `chunk_size` bytes.
pub(crate) fn index_chunks(ids: &[ChunkId], chunk_size: u32) -> Vec<bytes::Bytes> {
    let ids_each = (chunk_size as usize / ChunkId::LEN).max(1);
    let chunk = |ids: &[ChunkId]| {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        bytes.into()
    };
    ids.chunks(ids_each).map(chunk).collect()
}

/// Such bytes as ids again.
///
/// # Errors
/// When they are none.
pub(crate) fn ids(bytes: &[u8]) -> Result<Vec<ChunkId>, String> {
    let (ids, rest) = bytes.as_chunks::<{ ChunkId::LEN }>();
    match rest {
        [] => Ok(ids.iter().map(|id| ChunkId::from_bytes(*id)).collect()),
        _ => Err("a list of chunks has a length that none has".to_owned()),
    }
}

/// The start of the master that made this generation.
pub(crate) const fn incarnation_of(generation: u64) -> u64 {
    generation >> 32
}

/// How people write a generation: start of the master, number within it.
pub(crate) fn name(generation: u64) -> String {
    format!("{}.{}", incarnation_of(generation), generation & u64::from(u32::MAX))
}

/// What [`name`] has written.
///
/// # Errors
/// A sentence.
pub(crate) fn parse_name(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no generation: give one as --list shows it, like 3.12");
    let (incarnation, number) = text.split_once('.').ok_or_else(wrong)?;
    let incarnation: u32 = incarnation.parse().map_err(|_| wrong())?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(u64::from(incarnation) << 32 | u64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_sealed_and_opened() {
        let root = pb::BackupRoot { version: 1, generation: 7, rows: 3, ..Default::default() };
        let sealed = seal(&root);
        assert_eq!(open(&sealed).unwrap(), root);
        let mut changed = sealed.clone();
        changed.root = [&sealed.root[..], b"x"].concat().into();
        assert!(open(&changed).unwrap_err().contains("checksum"));
        let newer = seal(&pb::BackupRoot { version: 2, ..root });
        assert!(open(&newer).unwrap_err().contains("newer release"));
        assert!(open(&pb::SealedBackup { generation: 8, ..sealed }).is_err());
    }

    #[test]
    fn generations_and_lists_come_back() {
        let generation = 3 << 32 | 12;
        assert_eq!((name(generation).as_str(), parse_name("3.12")), ("3.12", Ok(generation)));
        assert!(parse_name("12").is_err() && parse_name("1.x").is_err());
        let all: Vec<_> = (0..300u32).map(|i| ChunkId::of(&i.to_be_bytes())).collect();
        let chunks = index_chunks(&all, 4096);
        assert_eq!(chunks.len(), 3);
        let back: Vec<_> = chunks.iter().flat_map(|chunk| ids(chunk).unwrap()).collect();
        assert_eq!(back, all);
        assert!(ids(&[0; 33]).is_err());
    }
}
