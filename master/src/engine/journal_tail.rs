//! Cuts the torn tail of fjall's newest journal.
//!
//! Pages that were never synced may reach the disk in any order, so after a power loss the newest
//! journal can hold a whole batch behind, or around, a page of zeros. fjall drops a tail that merely
//! ends too early but refuses to start on a checksum that does not fit. What is behind the first batch
//! that is not whole was never promised to survive: it is copied aside and cut off.
//!
//! A journal is a row of batches. Start: `1`, items u32, seqno u64. Item: `2`, type u8, compression
//! u8, key space u64, key length u16, value length u32, stored length u32, key, value. Clear: `4`, key
//! space u64. End: `3`, XXH3 of the items u64, `FJL\x03`. Numbers are little-endian.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

const TRAILER: &[u8] = b"FJL\x03";

/// Cuts `journal` behind its last whole batch. Returns the copy of what it was before, unless there
/// was nothing to cut.
pub(super) fn cut(journal: &Path, aside: &Path) -> io::Result<Option<PathBuf>> {
    let file = File::open(journal)?;
    let len = file.metadata()?.len();
    let whole = whole_batches(&mut BufReader::new(file))?;
    if whole == len {
        return Ok(None);
    }
    let name = journal.file_name().unwrap_or_default().to_string_lossy();
    let copy = aside.join(format!("torn-{name}"));
    std::fs::copy(journal, &copy)?;
    File::open(&copy)?.sync_all()?;
    let file = OpenOptions::new().write(true).open(journal)?;
    file.set_len(whole)?;
    file.sync_all()?;
    Ok(Some(copy))
}

/// Bytes of the whole batches at the beginning.
fn whole_batches(reader: &mut impl Read) -> io::Result<u64> {
    let mut whole = 0;
    let mut counted = Counted { reader, bytes: 0 };
    loop {
        match batch(&mut counted) {
            Ok(true) => whole = counted.bytes,
            Ok(false) => return Ok(whole),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(whole),
            Err(error) => return Err(error),
        }
    }
}

struct Counted<'a, R> {
    reader: &'a mut R,
    bytes: u64,
}

impl<R: Read> Counted<'_, R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.bytes += N as u64;
        Ok(bytes)
    }

    /// Reads `len` bytes into the hash; never allocates what a damaged length asks for.
    fn hash(&mut self, len: u64, hash: &mut Xxh3) -> io::Result<()> {
        let mut left = len;
        let mut buffer = [0; 4096];
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.reader.read_exact(&mut buffer[..part])?;
            hash.update(&buffer[..part]);
            left -= part as u64;
            self.bytes += part as u64;
        }
        Ok(())
    }
}

/// Reads one batch; false when it is none.
fn batch<R: Read>(reader: &mut Counted<'_, R>) -> io::Result<bool> {
    if reader.array::<1>()? != [1] {
        return Ok(false);
    }
    let items = u32::from_le_bytes(reader.array()?);
    reader.array::<8>()?;
    let mut hash = Xxh3::new();
    for _ in 0..items {
        let tag = reader.array::<1>()?;
        hash.update(&tag);
        match tag {
            [2] => {
                hash.update(&reader.array::<10>()?);
                let key_len = reader.array::<2>()?;
                hash.update(&key_len);
                hash.update(&reader.array::<4>()?);
                let value_len = reader.array::<4>()?;
                hash.update(&value_len);
                let key_len = u64::from(u16::from_le_bytes(key_len));
                reader.hash(key_len + u64::from(u32::from_le_bytes(value_len)), &mut hash)?;
            }
            [4] => hash.update(&reader.array::<8>()?),
            _ => return Ok(false),
        }
    }
    let end = reader.array::<1>()? == [3];
    let sum = u64::from_le_bytes(reader.array()?);
    let trailer = reader.array::<4>()?;
    Ok(end && sum == hash.digest() && trailer == *TRAILER)
}
