use pillarbox_core::Token;
use std::collections::{HashSet, VecDeque};

/// The last settled tokens, so that a repeated settlement is recognised. A relay repeats at once: the last thousands are
/// many, and what is older is `Fenced`.
#[derive(Debug, Default)]
pub(super) struct SettledTokens {
    known: HashSet<Token>,
    order: VecDeque<Token>,
}

impl SettledTokens {
    const REMEMBERED: usize = 16_384;

    pub(super) fn note(&mut self, token: Token) {
        if self.order.len() == Self::REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(token);
        self.order.push_back(token);
    }

    pub(super) fn contains(&self, token: &Token) -> bool {
        self.known.contains(token)
    }
}
