use std::fmt;

/// Names one claim: drawn at random by the claimant, the same when it repeats the claim.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// The nonce with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for storing.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A nonce from two random words.
    pub fn from_words(high: u64, low: u64) -> Self {
        Self(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a relay holds a run by. All three parts are compared: a store that lost its last writes in a failover repeats
/// fences, and the nonce tells the two holders apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// What the store leases: a lane, a stripe, the first record of a run. Its meaning is the store's own.
    pub unit: u64,
    /// Rises at every claim of the unit, or of the messages in it.
    pub fence: u64,
    /// The nonce of the claim.
    pub nonce: Nonce,
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.unit, self.fence, self.nonce)
    }
}

/// How a store answers a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The token was current, and the change was made.
    Applied,
    /// The token was settled before; nothing changed now.
    AlreadyApplied,
    /// The token is not current; nothing changed. An outcome, not an error.
    Fenced,
}
