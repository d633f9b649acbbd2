//! The order of keys, held against what was seen.

use super::{Hold, Observed, Settling, Span};
use crate::storage::Violation;
use crate::storage::rule::{DEAD_HEAD, KEY_ORDER, ensure};
use crate::storage::world::name;
use pillarbox_core::{HeadPolicy, MessageId, Text, Verdict};
use std::collections::HashMap;

/// A message of a key whose place in it is known.
struct Placed {
    id: MessageId,
    span: Span,
    /// Its place in its transaction.
    place: usize,
}

impl Placed {
    /// Whether it surely stands before `other` in their key.
    fn precedes(&self, other: &Self) -> bool {
        self.span.precedes(other.span) || (self.span.began == other.span.began && self.place < other.place)
    }
}

impl Observed {
    /// What is handed out of a key comes after everything that precedes it: that is over, or in the same claim before it.
    pub(super) fn keys_are_in_order(&self) -> Result<(), Violation> {
        let keys = self.keys();
        let mut places = HashMap::new();
        for of_key in keys.values() {
            places.extend(of_key.iter().map(|placed| (placed.id, (placed, of_key))));
        }
        let over = self.reports_of_ends();
        for hold in &self.holds {
            for (at, (message, _)) in hold.entries.iter().enumerate() {
                let Some((this, of_key)) = places.get(message) else { continue };
                for earlier in of_key.iter().filter(|earlier| earlier.precedes(this)) {
                    let ends = over.get(&earlier.id).into_iter().flatten();
                    let mut ends = ends.filter(|(settling, _)| settling.span.began < hold.span.ended);
                    let blocks = self.policy == HeadPolicy::Block;
                    let is_over = ends.clone().any(|(_, is_burial)| !(blocks && *is_burial));
                    let rule = if ends.any(|(_, is_burial)| *is_burial) { DEAD_HEAD } else { KEY_ORDER };
                    ensure!(
                        is_over || self.stands_before(hold, at, earlier.id),
                        rule,
                        format!("{} not before {} of the same key", name(*message), name(earlier.id)),
                        "handed out as {:?} at {:?}{}",
                        hold.token,
                        hold.claimed_at,
                        self.story(&[*message, earlier.id])
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether the same claim has `message` before this place, or in another run.
    fn stands_before(&self, hold: &Hold, at: usize, message: MessageId) -> bool {
        if let Some(place) = hold.entries.iter().position(|(id, _)| *id == message) {
            return place < at;
        }
        self.holds.iter().any(|other| {
            other.token.nonce == hold.token.nonce && other.entries.iter().any(|(id, _)| *id == message)
        })
    }

    /// The messages of each key whose place is known: those that are not scheduled, of acknowledged transactions.
    fn keys(&self) -> HashMap<Text, Vec<Placed>> {
        let mut keys: HashMap<Text, Vec<Placed>> = HashMap::new();
        for commit in self.commits.iter().filter(|commit| commit.acknowledged) {
            for (place, message) in commit.messages.iter().enumerate() {
                if let Some(key) = message.key().filter(|_| message.deliver_at().is_none()) {
                    let placed = Placed { id: message.id(), span: commit.span, place };
                    keys.entry(key.clone()).or_default().push(placed);
                }
            }
        }
        keys
    }

    /// The settlements that have, or may have, ended each message, and whether they bury it.
    fn reports_of_ends(&self) -> HashMap<MessageId, Vec<(&Settling, bool)>> {
        let mut ends: HashMap<MessageId, Vec<(&Settling, bool)>> = HashMap::new();
        for settling in self.settlings.iter().filter(|settling| settling.may_have_applied()) {
            for (message, verdict) in self.verdicts_of(settling) {
                match verdict {
                    Verdict::Published => ends.entry(message).or_default().push((settling, false)),
                    Verdict::Bury { .. } => ends.entry(message).or_default().push((settling, true)),
                    Verdict::Retry { .. } | Verdict::Release { .. } => {}
                }
            }
        }
        ends
    }
}
