//! What this handle holds, since the table has no room for it.

use pillarbox_core::{Nonce, Outcome, Timestamp, Token};
use std::collections::{HashMap, VecDeque};
use uuid::Uuid;

/// The last runs, so that repeated settlements are recognised. A relay repeats at once, so what is older is `Fenced`.
const REMEMBERED: usize = 16_384;

/// The messages of one claim.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) ids: Vec<Uuid>,
    /// What this handle has written into `claimed_at`, in microseconds. Two if it is not known which of them was committed.
    pub(super) claimed_at: Vec<i64>,
    pub(super) lease_until: Timestamp,
    pub(super) since: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Runs {
    known: HashMap<u64, (Token, Option<Held>)>,
    order: VecDeque<u64>,
    last: u64,
}

impl Runs {
    /// Notes a claim, and gives it its token.
    pub(super) fn note(&mut self, nonce: Nonce, held: Held) -> Token {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.last += 1;
        let token = Token { unit: self.last, fence: held.since.as_micros().cast_unsigned(), nonce };
        self.known.insert(self.last, (token, Some(held)));
        self.order.push_back(self.last);
        token
    }

    /// The last run of a claim that was not settled.
    pub(super) fn of_nonce(&self, nonce: Nonce) -> Option<(Token, Held)> {
        let mut newest = self.order.iter().rev().filter_map(|unit| self.known.get(unit)).take(64);
        let (token, held) = newest.find(|(token, _)| token.nonce == nonce)?;
        Some((*token, held.clone()?))
    }

    /// The run of a token, or how the token stands.
    pub(super) fn of_token(&self, token: Token) -> Result<Held, Outcome> {
        match self.known.get(&token.unit) {
            Some((known, Some(held))) if *known == token => Ok(held.clone()),
            Some((known, None)) if *known == token => Err(Outcome::AlreadyApplied),
            _ => Err(Outcome::Fenced),
        }
    }

    /// Notes a renewal before it is committed.
    pub(super) fn renewed(&mut self, token: Token, claimed_at: i64, lease_until: Timestamp) {
        if let Some((_, Some(held))) = self.known.get_mut(&token.unit) {
            let before = held.claimed_at.last().copied();
            held.claimed_at = before.into_iter().chain([claimed_at]).collect();
            held.lease_until = lease_until;
        }
    }

    pub(super) fn settled(&mut self, token: Token) {
        if let Some((_, held)) = self.known.get_mut(&token.unit) {
            *held = None;
        }
    }
}
