//! Round trips, what does not shrink, and stored bytes that lie.

use cairn_proto::compression::ZSTD_LEVEL_MAX;
use proptest::prelude::*;

use super::*;

const CHUNK: usize = 64 * 1024;

/// Bytes without any pattern, the same in every run.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

fn text(len: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| format!("line {n} of a log file\n").into_bytes()).take(len).collect()
}

fn all() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::Lz4), (1..=12u8).prop_map(Compression::Zstd)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_packed_comes_back(
        how in all(),
        pieces in prop::collection::vec((any::<u8>(), 1usize..4000, any::<bool>()), 1..20),
    ) {
        let codecs = Codecs::default();
        let mut content = Vec::new();
        for (byte, len, pattern) in pieces {
            match pattern {
                true => content.extend(vec![byte; len]),
                false => content.extend(noise(len, byte.into())),
            }
        }
        content.truncate(CHUNK);
        if let Some((codec, stored)) = codecs.pack(&content, how) {
            prop_assert!(stored.len() <= content.len() - content.len() / GAIN);
            prop_assert_ne!(codec, Codec::Plain);
            let back = codecs.unpack(codec, stored.clone(), CHUNK).unwrap();
            prop_assert_eq!(&back[..], &content[..]);
            // A bound that is too small is kept.
            prop_assert_eq!(codecs.unpack(codec, stored, content.len() - 1), Err(Undecodable));
        }
    }

    #[test]
    fn any_bytes_are_decoded_within_the_bound_or_refused(
        stored in prop::collection::vec(any::<u8>(), 0..2000),
        bound in 0usize..3000,
    ) {
        let codecs = Codecs::default();
        for codec in [Codec::Plain, Codec::Lz4, Codec::Zstd] {
            if let Ok(content) = codecs.unpack(codec, stored.clone().into(), bound) {
                prop_assert!(content.len() <= bound);
            }
        }
    }

    #[test]
    fn damage_is_found_or_stays_within_the_bound(
        how in all(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
        cut in any::<bool>(),
    ) {
        let codecs = Codecs::default();
        let (codec, stored) = codecs.pack(&text(CHUNK), how).unwrap();
        let mut stored = stored.to_vec();
        let at = at.index(stored.len());
        stored[at] ^= flip;
        if cut {
            stored.truncate(at);
        }
        if let Ok(content) = codecs.unpack(codec, stored.into(), CHUNK) {
            prop_assert!(content.len() <= CHUNK);
        }
    }
}

#[test]
fn text_shrinks_and_noise_stays_as_it_is() {
    let codecs = Codecs::default();
    for how in [Compression::Lz4, Compression::Zstd(3), Compression::Zstd(ZSTD_LEVEL_MAX)] {
        let (codec, stored) = codecs.pack(&text(CHUNK), how).expect("text shrinks");
        assert!(stored.len() < CHUNK / 3, "{how}: {}", stored.len());
        let back = codecs.unpack(codec, stored.clone(), CHUNK).unwrap();
        assert_eq!(&back[..], &text(CHUNK)[..]);
        let again = codecs.pack(&text(CHUNK), how).expect("as before");
        assert_eq!(again, (codec, stored), "the same content has to get the same id");
        assert_eq!(codecs.pack(&noise(CHUNK, 7), how), None);
        assert_eq!(codecs.pack(&text(LEAST - 1), how), None);
        // A gain of one part in twenty is not enough.
        let mut little = noise(CHUNK, 9);
        little[..CHUNK / 20].fill(0);
        assert_eq!(codecs.pack(&little, how), None);
    }
    assert_eq!(codecs.pack(&text(CHUNK), Compression::Off), None);
}

#[test]
fn a_bomb_is_refused_at_the_bound() {
    let codecs = Codecs::default();
    let bomb = vec![0; 64 << 20];
    let zstd = zstd::bulk::compress(&bomb, 19).unwrap();
    let lz4 = lz4_flex::block::compress(&bomb);
    assert!(zstd.len() < CHUNK);
    assert_eq!(codecs.unpack(Codec::Zstd, zstd.into(), CHUNK), Err(Undecodable));
    assert_eq!(codecs.unpack(Codec::Lz4, lz4.into(), CHUNK), Err(Undecodable));
    // The header of a frame that claims 2^63 bytes.
    let liar = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80, 1, 0, 0];
    assert_eq!(codecs.unpack(Codec::Zstd, liar.to_vec().into(), CHUNK), Err(Undecodable));
    assert_eq!(codecs.unpack(Codec::Plain, vec![1; 5].into(), 4), Err(Undecodable));
}
