//! Randomness without a dependency: jitter and nonces need spread, not secrecy.

/// SplitMix64 (Steele, Lea, Flood 2014: "Fast splittable pseudorandom number generators", figure 17).
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the reference implementation in C (Vigna, 2015).
    #[test]
    fn draws_what_the_reference_draws() {
        let mut zero = SplitMix64::seeded(0);
        assert_eq!(
            [zero.draw(), zero.draw(), zero.draw()],
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]
        );
    }
}
