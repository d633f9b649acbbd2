//! The storage that does nothing.

use futures_executor::block_on;
use pillarbox_core::{
    Claim, Content, Destination, Error, ErrorKind, Message, Nonce, Outcomes, Storage as _, Transport,
    TransportGuarantees,
};
use pillarbox_testkit::throughput::Supply;
use std::time::Duration;

fn messages(count: usize) -> Vec<Message> {
    (0..count).map(|_| Message::to("orders").payload("").unwrap()).collect()
}

#[test]
fn a_supply_hands_out_each_message_once_and_in_runs_of_the_length_that_was_asked_for() {
    let messages = messages(9);
    let supply = Supply::new(messages.clone()).unwrap().runs_of(2);
    let claim = |limit| {
        let claim =
            Claim { limit, lease: Duration::from_secs(1), nonce: Nonce::from_words(1, 2), solo: false };
        block_on(supply.claim(claim)).unwrap()
    };
    let (first, second, third) = (claim(5), claim(5), claim(5));
    let ranges =
        |runs: &[pillarbox_core::Run]| -> Vec<_> { runs.iter().map(|run| (run.start, run.len)).collect() };
    assert_eq!(ranges(&first.runs), [(0, 2), (2, 2), (4, 1)]);
    assert_eq!(ranges(&second.runs), [(0, 2), (2, 2)]);
    assert!(third.runs.is_empty());
    let mut units: Vec<_> = first.runs.iter().chain(&second.runs).map(|run| run.token.unit).collect();
    units.dedup();
    assert_eq!(units.len(), 5, "no two runs have one token");
    let entries = first.entries.into_iter().chain(second.entries);
    let handed_out = entries.map(|entry| match entry.content {
        Content::Message(message) => message,
        Content::Undecodable(record) => panic!("{record:?}"),
    });
    assert_eq!(handed_out.collect::<Vec<_>>(), messages);
}

/// Confirms so many of each batch and rejects the others.
struct Confirms(usize);

impl Transport for Confirms {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        (0..batch.len().min(self.0)).for_each(|index| outcomes.set(index, Ok(())));
        outcomes.fill(|| Err(Error::new(ErrorKind::Rejected, "publish")));
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

#[test]
fn a_relay_of_a_supply_ends_when_all_are_published_or_one_is_not() {
    block_on(Supply::new(messages(1_234)).unwrap().relay(Confirms(usize::MAX))).unwrap();
    let error = block_on(Supply::new(messages(7)).unwrap().relay(Confirms(6))).unwrap_err();
    assert_eq!(error.to_string(), "a message was not confirmed");
}
