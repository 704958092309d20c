//! Seeded random numbers for tests: the same seed gives the same run, on every machine.
//!
//! `CAIRN_TEST_SEED` fixes the seed of a run; otherwise each run has a new one and prints it.

/// SplitMix64: small, fast, good enough to choose moments, sizes and names.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of this run; prints its seed with `what` so that a failure can be repeated.
    pub fn of_run(what: &str) -> Self {
        let seed = std::env::var("CAIRN_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |d| u64::from(d.subsec_nanos()) ^ d.as_secs())
        });
        eprintln!("{what}: CAIRN_TEST_SEED={seed}");
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// An index into something with `len` elements, which is not 0.
    #[expect(clippy::cast_possible_truncation, reason = "below len, a usize")]
    pub const fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// `len` random bytes: no two chunks alike.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// How much longer than usual the random suites run: `CAIRN_TEST_SCALE`, 1 when it is not set.
pub fn scale() -> u64 {
    std::env::var("CAIRN_TEST_SCALE").ok().and_then(|s| s.parse().ok()).unwrap_or(1).max(1)
}
