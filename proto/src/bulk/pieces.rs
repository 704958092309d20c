//! [`Pieces`]: an encoded message as a row of buffers. Small fields share one; a payload is a piece itself.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message,
    encoding::{self, WireType, encode_key, encode_varint},
};

use super::PREFIX;
use crate::pb;

/// A payload up to this length is copied: a piece of its own would cost more.
const COPIED: usize = 4096;
/// Room for the small fields of a batch.
const SMALL: usize = 2048;

/// Buffers to be sent one after the other.
#[derive(Debug, Default)]
pub struct Pieces {
    done: Vec<Bytes>,
    small: BytesMut,
}

impl Pieces {
    /// A message with its gRPC prefix; `None` when it is longer than gRPC can say.
    pub fn of(message: &impl Weighty) -> Option<Vec<Bytes>> {
        let len = u32::try_from(message.encoded_len()).ok()?;
        let mut pieces = Self { done: Vec::new(), small: BytesMut::with_capacity(SMALL + PREFIX) };
        pieces.small.put_u8(0);
        pieces.small.put_u32(len);
        message.lay_out(&mut pieces);
        pieces.cut();
        Some(pieces.done)
    }

    fn cut(&mut self) {
        if !self.small.is_empty() {
            self.done.push(self.small.split().freeze());
        }
    }

    /// Field `tag` with bytes in it, unless there are none.
    fn payload(&mut self, tag: u32, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.begin(tag, bytes.len());
        if bytes.len() <= COPIED {
            self.small.put_slice(bytes);
        } else {
            self.cut();
            self.done.push(bytes.clone());
        }
    }

    fn begin(&mut self, tag: u32, len: usize) {
        encode_key(tag, WireType::LengthDelimited, &mut self.small);
        encode_varint(len as u64, &mut self.small);
    }

    fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            encoding::uint64::encode(tag, &value, &mut self.small);
        }
    }
}

/// A message of a stream of chunks.
pub trait Weighty: Message + Default {
    /// Its fields, in the order of their tags. One that carries no chunks is encoded as ever.
    fn lay_out(&self, pieces: &mut Pieces) {
        self.encode(&mut pieces.small).expect("a growing buffer has room");
    }
}

impl Weighty for pb::PutBatchReply {}

impl Weighty for pb::GetBatch {}

impl Weighty for pb::PutBatch {
    fn lay_out(&self, pieces: &mut Pieces) {
        let Self { seq, map_epoch, chunks } = self;
        pieces.number(1, *seq);
        pieces.number(2, *map_epoch);
        for chunk in chunks {
            let pb::PutChunkItem { id, data } = chunk;
            pieces.begin(3, chunk.encoded_len());
            pieces.payload(1, id);
            pieces.payload(2, data);
        }
    }
}

impl Weighty for pb::GetBatchReply {
    fn lay_out(&self, pieces: &mut Pieces) {
        let Self { seq, items } = self;
        pieces.number(1, *seq);
        for item in items {
            let pb::GetItem { data, error, place } = item;
            pieces.begin(2, item.encoded_len());
            pieces.payload(1, data);
            if let Some(error) = error {
                encoding::message::encode(2, error, &mut pieces.small);
            }
            if let Some(place) = place {
                encoding::message::encode(3, place, &mut pieces.small);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(message: &impl Weighty) {
        let pieces = Pieces::of(message).unwrap();
        let sent: Vec<u8> = pieces.concat();
        let mut expected = vec![0];
        expected.put_u32(u32::try_from(message.encoded_len()).unwrap());
        expected.extend(message.encode_to_vec());
        assert!(sent == expected);
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop_oneof![Just(0usize), 1..100usize, COPIED - 2..COPIED + 3, Just(70_000)]
            .prop_map(|len| Bytes::from(vec![7; len]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_put_is_encoded_as_the_generated_code_does(
            seq: u64, map_epoch: u64, chunks in prop::collection::vec((bytes(), bytes()), 0..5),
        ) {
            let chunks = chunks.into_iter().map(|(id, data)| pb::PutChunkItem { id, data });
            same(&pb::PutBatch { seq, map_epoch, chunks: chunks.collect() });
        }

        #[test]
        fn a_reply_is_encoded_as_the_generated_code_does(
            seq: u64,
            items in prop::collection::vec((bytes(), any::<(Option<u32>, Option<u64>)>()), 0..5),
        ) {
            let items = items.into_iter().map(|(data, (code, offset))| pb::GetItem {
                data,
                place: offset.map(|offset| pb::Place { file: "/x".into(), offset, length: 7 }),
                error: code.map(|code| pb::ErrorDetail {
                    fs_error: 0,
                    chunk_error: code,
                    message: "why".into(),
                }),
            });
            same(&pb::GetBatchReply { seq, items: items.collect() });
        }
    }

    #[test]
    fn a_payload_goes_as_it_is() {
        let data = Bytes::from(vec![1; 65_536]);
        let items = vec![pb::GetItem { data: data.clone(), ..pb::GetItem::default() }];
        let pieces = Pieces::of(&pb::GetBatchReply { seq: 1, items }).unwrap();
        assert!(pieces.len() == 2 && pieces[1].as_ptr() == data.as_ptr());
    }
}
