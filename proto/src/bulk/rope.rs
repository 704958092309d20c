//! [`Rope`]: buffers in a row, read as one.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// See the module. None of its parts is empty.
#[derive(Debug, Default)]
pub(super) struct Rope {
    parts: VecDeque<Bytes>,
    len: usize,
}

impl Rope {
    pub(super) fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push_back(part);
        }
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], AsRef::as_ref)
    }

    fn advance(&mut self, mut by: usize) {
        assert!(by <= self.len, "cannot go {by} bytes on: {} are left", self.len);
        self.len -= by;
        while let Some(part) = self.parts.front_mut() {
            if by < part.len() {
                part.advance(by);
                return;
            }
            by -= part.len();
            self.parts.pop_front();
        }
    }

    /// Within one part that is not much longer: a slice of it. Otherwise a copy, which keeps no more alive
    /// than it is long.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.len, "{len} bytes are wanted: {} are left", self.len);
        if let Some(part) = self.parts.front_mut()
            && len < part.len()
            && part.len() <= len.saturating_mul(2)
        {
            self.len -= len;
            return part.split_to(len);
        }
        if let Some(part) = self.parts.pop_front_if(|part| part.len() == len) {
            self.len -= len;
            return part;
        }
        let mut copy = BytesMut::with_capacity(len);
        while copy.len() < len {
            let part = self.chunk();
            let n = part.len().min(len - copy.len());
            copy.extend_from_slice(&part[..n]);
            self.advance(n);
        }
        copy.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_as_one_buffer(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
            takes in prop::collection::vec((0usize..30, any::<bool>()), 0..30),
        ) {
            let mut rope = Rope::default();
            parts.iter().for_each(|part| rope.push(part.clone().into()));
            let mut flat = Bytes::from(parts.concat());
            for (len, skip) in takes {
                let len = len.min(flat.len());
                if skip {
                    rope.advance(len);
                    flat.advance(len);
                } else {
                    prop_assert_eq!(rope.copy_to_bytes(len), flat.split_to(len));
                }
                prop_assert_eq!(rope.remaining(), flat.len());
            }
        }
    }

    #[test]
    fn most_of_a_part_is_not_copied() {
        let part = Bytes::from(vec![5; 100]);
        let mut rope = Rope::default();
        rope.push(Bytes::from_static(b"head"));
        rope.push(part.clone());
        rope.advance(6);
        assert_eq!(rope.copy_to_bytes(60).as_ptr(), part[2..].as_ptr());
        assert_eq!(rope.copy_to_bytes(38).as_ptr(), part[62..].as_ptr());
        assert!(!rope.has_remaining());
    }

    #[test]
    fn a_little_of_a_part_does_not_keep_all_of_it() {
        let part = Bytes::from(vec![5; 100]);
        let mut rope = Rope::default();
        rope.push(part.clone());
        let little = rope.copy_to_bytes(10);
        assert_eq!(little, part[..10]);
        assert_ne!(little.as_ptr(), part.as_ptr());
        assert_eq!(rope.remaining(), 90);
    }
}
