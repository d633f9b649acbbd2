//! What was sent, held against what arrived.

use super::watch::Watch;
use crate::transport::Received;
use pillarbox_core::{Message, MessageId};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// What a relay did while its broker was harmed.
#[derive(Clone, Debug)]
pub struct Relayed {
    /// The messages in the order in which they were enqueued; each has its place as its payload.
    messages: Vec<(MessageId, Option<String>)>,
    charges: Vec<String>,
    outages: u32,
    interrupted: u32,
    in_part: u32,
}

impl Relayed {
    pub(super) fn new(messages: &[Message], watch: &Watch, outages: u32) -> Self {
        let identity = |message: &Message| (message.id(), message.key().map(ToString::to_string));
        Self {
            messages: messages.iter().map(identity).collect(),
            charges: watch.charges(),
            outages,
            interrupted: watch.interrupted(),
            in_part: watch.in_part(),
        }
    }

    /// Holds what arrived, in the order of its arrival (of each key at least), against what was sent.
    pub fn totals(&self, received: &[Received]) -> Totals {
        let places: HashMap<_, _> =
            self.messages.iter().zip(0usize..).map(|((id, _), at)| (*id, at)).collect();
        let (mut seen, mut last) = (HashSet::new(), HashMap::<&str, usize>::new());
        let (mut unexpected, mut reordered) = (0, 0);
        for received in received {
            let Some(&place) = places.get(&received.id) else {
                unexpected += 1;
                continue;
            };
            if seen.insert(place)
                && let Some(key) = &self.messages[place].1
            {
                let before = last.insert(key, place);
                reordered += usize::from(before > Some(place));
            }
        }
        Totals {
            attempted: self.messages.len(),
            delivered: seen.len(),
            duplicated: received.len() - unexpected - seen.len(),
            lost: self.messages.len() - seen.len(),
            unexpected,
            reordered,
            charges: self.charges.clone(),
            outages: self.outages,
            interrupted: self.interrupted,
            in_part: self.in_part,
        }
    }
}

/// The totals of a run. Every message was acknowledged by the storage, and settled as published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Messages that were enqueued.
    pub attempted: usize,
    /// Those of them that arrived.
    pub delivered: usize,
    /// Arrivals beyond the first of a message: allowed, since a lost confirmation leaves no choice.
    pub duplicated: usize,
    /// Messages that never arrived.
    pub lost: usize,
    /// Arrivals of what nobody enqueued.
    pub unexpected: usize,
    /// First arrivals behind that of a later message of their key.
    pub reordered: usize,
    /// Why attempts were charged, or messages buried or suspected.
    pub charges: Vec<String>,
    /// How often the broker was harmed while a publish was on its way.
    pub outages: u32,
    /// Publishes that failed, as a whole or in part.
    pub interrupted: u32,
    /// Those of them that had confirmed a part.
    pub in_part: u32,
}

impl Totals {
    /// The promise.
    ///
    /// # Panics
    /// If a message is lost, came out of order, was charged or comes from nowhere, or if no publish was interrupted.
    pub fn assert_nothing_is_lost(&self) {
        assert!(self.charges.is_empty(), "an outage was charged to messages: {:?}", self.charges);
        assert_eq!((self.lost, self.unexpected, self.reordered), (0, 0, 0), "{self}");
        assert!(self.outages > 0 && self.interrupted > 0, "nothing was in the way of any publish: {self}");
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempted, delivered, duplicated, lost, unexpected, reordered, .. } = self;
        write!(
            formatter,
            "attempted {attempted} acknowledged {attempted} delivered {delivered} duplicated {duplicated} recovered 0 lost {lost} \
             unexpected {unexpected} reordered {reordered} charged {} (outages {}, publishes interrupted {}, in part {})",
            self.charges.len(),
            self.outages,
            self.interrupted,
            self.in_part
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::Timestamp;

    fn sent() -> Vec<Message> {
        let message = |number: u8| {
            let message = Message::given(MessageId::from_bytes([number; 16]), Timestamp::EPOCH, "t");
            let message = if number < 2 { message } else { message.key("k") };
            message.payload("").unwrap()
        };
        (0..5).map(message).collect()
    }

    fn totals(arrivals: &[u8]) -> Totals {
        let relayed = Relayed::new(&sent(), &Watch::default(), 1);
        let received = |number: &u8| Received {
            id: MessageId::from_bytes([*number; 16]),
            topic: "t".to_owned(),
            key: None,
            headers: Vec::new(),
            payload: Vec::new(),
            content_type: None,
        };
        relayed.totals(&arrivals.iter().map(received).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_counted() {
        for (arrivals, expected) in [
            (&[0, 1, 2, 3, 4][..], (5, 0, 0, 0, 0)),
            // Unkeyed messages have no order, and repetitions break none.
            (&[1, 0, 2, 3, 2, 3, 4], (5, 2, 0, 0, 0)),
            (&[0, 1, 2, 4], (4, 0, 1, 0, 0)),
            (&[0, 1, 2, 3, 4, 9], (5, 0, 0, 1, 0)),
            (&[0, 1, 3, 2, 4], (5, 0, 0, 0, 1)),
            (&[], (0, 0, 5, 0, 0)),
        ] {
            let Totals { delivered, duplicated, lost, unexpected, reordered, .. } = totals(arrivals);
            assert_eq!((delivered, duplicated, lost, unexpected, reordered), expected, "{arrivals:?}");
        }
    }

    #[test]
    #[should_panic(expected = "nothing was in the way of any publish")]
    fn a_run_without_an_interruption_shows_nothing() {
        totals(&[0, 1, 2, 3, 4]).assert_nothing_is_lost();
    }

    #[test]
    #[should_panic(expected = "lost 1")]
    fn a_lost_message_is_found() {
        totals(&[0, 1, 2, 3]).assert_nothing_is_lost();
    }
}
