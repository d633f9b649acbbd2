/// Choices, the same on every machine.
#[derive(Clone, Debug)]
pub(crate) enum Random {
    /// A seed decides: splitmix64.
    Seeded(u64),
    /// These, one after the other, the last one first; then always 0.
    #[cfg(feature = "proptest")]
    Given(Vec<u16>),
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self::Seeded(seed)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        let state = match self {
            Self::Seeded(state) => state,
            #[cfg(feature = "proptest")]
            Self::Given(words) => return words.pop().map_or(0, u64::from),
        };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The remainder is below `bound`, so it fits.
        usize::try_from(self.draw() % bound as u64).unwrap_or(0)
    }

    /// True in `percent` of a hundred draws.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
