//! One publish on its way.

use crate::connection::{Connector, Link};
use crate::{judge, properties};
use futures_util::stream::{self, StreamExt as _};
use pillarbox_core::{Error, Message, Outcomes};
use std::collections::HashMap;
use std::sync::Mutex;

/// So many keys, and messages without one, are in flight at once: far more than a round trip needs to be hidden, and few enough
/// that the client's queue of 2048 never blocks one publish for another.
const IN_FLIGHT: usize = 512;

/// Sends a batch, and writes each outcome when its acknowledgement is there.
pub(crate) async fn publish(connector: &Connector, link: &Link, batch: &[Message], outcomes: &mut Outcomes) {
    // Each chain writes when its answer is there: nothing is awaited while the lock is held.
    let outcomes = Mutex::new(outcomes);
    let write = |index: usize, outcome: Result<(), Error>| {
        if let Ok(mut outcomes) = outcomes.lock() {
            outcomes.set(index, outcome);
        }
    };
    let (write, chains) = (&write, chains(batch));
    stream::iter(chains)
        .for_each_concurrent(IN_FLIGHT, |chain| async move {
            send_chain(connector, link, batch, &chain, write).await;
        })
        .await;
}

/// The messages of each key by their places, and each message without a key for itself.
fn chains(batch: &[Message]) -> Vec<Vec<usize>> {
    let mut of_key: HashMap<&str, usize> = HashMap::new();
    let mut chains: Vec<Vec<usize>> = Vec::with_capacity(batch.len());
    for (index, message) in batch.iter().enumerate() {
        let place = match message.key() {
            Some(key) => *of_key.entry(&**key).or_insert(chains.len()),
            None => chains.len(),
        };
        match chains.get_mut(place) {
            Some(chain) => chain.push(index),
            None => chains.push(vec![index]),
        }
    }
    chains
}

/// One message after the other, each only when the one before was acknowledged.
async fn send_chain(
    connector: &Connector,
    link: &Link,
    batch: &[Message],
    chain: &[usize],
    write: &(impl Fn(usize, Result<(), Error>) + Sync),
) {
    for (place, &index) in chain.iter().enumerate() {
        let outcome = send(connector, link, &batch[index]).await;
        let Err(error) = outcome else {
            write(index, Ok(()));
            continue;
        };
        for &index in &chain[place + 1..] {
            write(index, Err(judge::behind(&error)));
        }
        write(index, Err(error));
        return;
    }
}

async fn send(connector: &Connector, link: &Link, message: &Message) -> Result<(), Error> {
    let config = connector.config();
    let (headers, size) = properties::headers(config, message)?;
    judge::check(message, size, connector.max_payload(), connector.max_message())?;
    let payload = message.payload().clone();
    match link.request(message.topic(), Some(headers), payload, config.confirm_timeout).await {
        Ok(answer) => judge::acknowledged(config, &answer.payload),
        Err(reason) => Err(judge::unanswered(config, message, &reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageId, Timestamp};

    #[test]
    fn a_key_is_a_chain() {
        let message = |key: Option<&str>| {
            let message = Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "t");
            match key {
                Some(key) => message.key(key.to_owned()).payload("").unwrap(),
                None => message.payload("").unwrap(),
            }
        };
        let batch: Vec<_> =
            [Some("a"), None, Some("b"), Some("a"), None, Some("a")].into_iter().map(message).collect();
        assert_eq!(chains(&batch), [vec![0, 3, 5], vec![1], vec![2], vec![4]]);
        assert!(chains(&[]).is_empty());
    }
}
