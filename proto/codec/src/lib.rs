//! [`Codecs`]: the content of a chunk as fewer stored bytes, and stored bytes as content again. Pure but for
//! memory that is used again.
//!
//! For the programs that know files: mounts, commands, the master. Storage nodes do without: to them a
//! chunk is bytes with a name.
//!
//! - [`pack`](Codecs::pack) gives up early on what does not shrink; measured costs are with the constants.
//! - [`unpack`](Codecs::unpack) believes nothing: whatever the stored bytes say, no more than the bound is
//!   written or allocated for the content, and it never panics.
//!
//! One lock each around the spare contexts, held to take one out or put one back.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use cairn_proto::{Codec, Compression};
use zstd::bulk::{Compressor, Decompressor};

/// Less is not worth a codec.
const LEAST: usize = 256;
/// A chunk is stored as it is unless it shrinks by at least one part in so many.
const GAIN: usize = 16;
/// Up to this level Zstandard itself passes over incompressible bytes at 1.5 GB/s and more; above, it takes
/// up to a hundred times as long. There the lowest level, at 7.8 GB/s, has to find some gain first.
const QUICK_LEVEL: u8 = 9;
const PROBE_LEVEL: u8 = 1;

/// Stored bytes are not what their codec makes, or become more than a chunk may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

/// See the head of this file. As many contexts are kept as were ever in use at the same time; callers
/// bound that.
#[derive(Default)]
pub struct Codecs {
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl Codecs {
    /// `content` in the way that was asked for; `None` when it is to be stored as it is.
    pub fn pack(&self, content: &[u8], how: Compression) -> Option<(Codec, Bytes)> {
        if content.len() < LEAST {
            return None;
        }
        let most = content.len() - content.len() / GAIN;
        match how {
            Compression::Off => None,
            Compression::Lz4 => {
                // Its compressor wants room for the worst case.
                let mut stored = vec![0; lz4_flex::block::get_maximum_output_size(content.len())];
                let len = lz4_flex::block::compress_into(content, &mut stored).ok()?;
                stored.truncate(len);
                (len <= most).then(|| (Codec::Lz4, stored.into()))
            }
            Compression::Zstd(level) => {
                let mut compressor = take(&self.compressors);
                let stored = zstd_within(&mut compressor, content, level, most);
                give_back(&self.compressors, compressor);
                stored.map(|stored| (Codec::Zstd, stored.into()))
            }
        }
    }

    /// The content that `stored` was made from; at most `bound` bytes.
    ///
    /// # Errors
    /// When it is not what `codec` makes, or would be more than `bound`.
    pub fn unpack(&self, codec: Codec, stored: Bytes, bound: usize) -> Result<Bytes, Undecodable> {
        let mut content = match codec {
            Codec::Plain if stored.len() > bound => return Err(Undecodable),
            Codec::Plain => return Ok(stored),
            Codec::Lz4 => {
                let mut content = vec![0; bound];
                let len = lz4_flex::block::decompress_into(&stored, &mut content);
                content.truncate(len.map_err(|_| Undecodable)?);
                content
            }
            Codec::Zstd => {
                let mut content = Vec::with_capacity(bound);
                let mut decompressor = take(&self.decompressors);
                let made = decompressor.decompress_to_buffer(&stored, &mut content);
                give_back(&self.decompressors, decompressor);
                made.map_err(|_| Undecodable)?;
                content
            }
        };
        // Caches count bytes of content: none are kept beside it.
        content.shrink_to_fit();
        Ok(content.into())
    }
}

impl fmt::Debug for Codecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codecs").finish_non_exhaustive()
    }
}

/// A frame of at most `most` bytes.
fn zstd_within(
    compressor: &mut Compressor<'static>,
    content: &[u8],
    level: u8,
    most: usize,
) -> Option<Vec<u8>> {
    let mut stored = Vec::with_capacity(most);
    let mut at_level = |level: u8| {
        stored.clear();
        compressor.set_compression_level(level.into()).ok()?;
        // No room is the usual way to learn that it does not shrink.
        compressor.compress_to_buffer(content, &mut stored).ok()
    };
    if level > QUICK_LEVEL {
        at_level(PROBE_LEVEL)?;
    }
    let len = at_level(level)?;
    // The capacity may be more than was asked for.
    (len <= most).then_some(stored)
}

fn take<C: Default>(spare: &Mutex<Vec<C>>) -> C {
    let context = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
    context.unwrap_or_default()
}

fn give_back<C>(spare: &Mutex<Vec<C>>, context: C) {
    spare.lock().unwrap_or_else(PoisonError::into_inner).push(context);
}

#[cfg(test)]
mod tests;
