//! Random bits that depend on where they go, not on when they are drawn.

/// The increment of splitmix64: 2^64 over the golden ratio, odd.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// splitmix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014): the numbers are
/// a hash of a counter, so a stream can begin anywhere without what comes before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of unit `unit` of the tensor with `key`.
    pub(super) fn new(key: u64, unit: u64) -> Self {
        // Hashed once more, so that the streams of neighbours are no shifted copies of each other.
        Stream(mix(key ^ mix(unit.wrapping_add(GAMMA))))
    }

    /// 64 random bits.
    #[inline(always)]
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// Fills `out` with random bytes.
    #[inline(always)]
    pub(super) fn fill(&mut self, out: &mut [u8]) {
        let (words, rest) = out.as_chunks_mut::<8>();
        words.iter_mut().for_each(|word| *word = self.bits().to_le_bytes());
        if !rest.is_empty() {
            rest.iter_mut().zip(self.bits().to_le_bytes()).for_each(|(byte, random)| *byte = random);
        }
    }
}

/// The key of a tensor: of its name and the seed alone, so that a tensor is the same however many others there are.
pub(super) fn key(seed: u64, tensor: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(tensor.as_bytes());
    let hash = hasher.finalize();
    hash.as_bytes().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// The finalizer of splitmix64 (D. Stafford's variant 13 of MurmurHash3's).
#[inline(always)]
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers from state 1234567, as published with other implementations of splitmix64 (Rosetta Code).
    #[test]
    fn the_stream_is_splitmix64() {
        let mut stream = Stream(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| stream.bits()), expected);
    }

    #[test]
    fn neighbours_seeds_and_names_give_other_streams() {
        let first = |seed, tensor, unit| Stream::new(key(seed, tensor), unit).bits();
        let all = [first(1, "a", 0), first(1, "a", 1), first(1, "b", 0), first(2, "a", 0)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| (a ^ b).count_ones() > 10), "{all:x?}");
        }
        assert_eq!(first(1, "a", 0), first(1, "a", 0));
    }
}
