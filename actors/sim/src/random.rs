//! Random numbers that a seed decides.

use std::ops::Range;

/// A SplitMix64 generator (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
///
/// Written out here because seeds are written down: the same seed has to give the same numbers
/// with every release of every library.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator, which follows from this one's state and `name`.
    ///
    /// Each part of a simulation has its own, so that one more draw in one part leaves the others
    /// as they were.
    pub fn fork(&self, name: &str) -> Self {
        let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let mut forked = Self(name.bytes().fold(self.0 ^ 0xcbf2_9ce4_8422_2325, fnv));
        forked.next_u64();
        forked
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product: a bias below 2^-40 for the small limits used here.
        ((u128::from(self.next_u64()) * u128::from(limit)) >> 64) as u64
    }

    /// A number of the range, which is not empty.
    pub fn within(&mut self, range: &Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// Whether something happens that happens `permille` times in a thousand.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1_000) < u64::from(permille)
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next_u64() as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_numbers() {
        let mut random = Random::new(1_234_567);
        let numbers = [random.next_u64(), random.next_u64(), random.next_u64()];
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(numbers, published);
    }

    #[test]
    fn forks_differ_by_name_and_are_repeatable() {
        let random = Random::new(7);
        let (mut a, mut b) = (random.fork("network"), random.fork("faults"));
        assert_ne!(a.next_u64(), b.next_u64());
        assert_eq!(random.fork("network").next_u64(), random.fork("network").next_u64());
    }

    #[test]
    fn chances_come_out_about_right() {
        let mut random = Random::new(1);
        let hits = (0..100_000).filter(|_| random.chance(100)).count();
        assert!((9_500..10_500).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| (3..9).contains(&random.within(&(3..9)))));
    }
}
