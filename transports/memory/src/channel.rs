use async_channel::{Receiver, Sender};
use pillarbox_core::{
    Destination, Effect, Error, ErrorKind, Message, Outcomes, Transport, TransportGuarantees,
};

/// A bounded channel to consumers in the same process.
///
/// A message counts as confirmed once it is in the channel: what is in the channel when the process dies is gone with it.
#[derive(Clone, Debug)]
pub struct MemoryTransport(Sender<Message>);

/// The other end. Clones share the messages among them.
#[derive(Clone, Debug)]
pub struct MemoryConsumer(Receiver<Message>);

impl MemoryTransport {
    /// A channel with room for `capacity` messages, at least one. A publish into a full one waits, which holds the relay back.
    pub fn bounded(capacity: usize) -> (Self, MemoryConsumer) {
        let (sender, receiver) = async_channel::bounded(capacity.max(1));
        (Self(sender), MemoryConsumer(receiver))
    }
}

impl MemoryConsumer {
    /// The next message; `None` once every transport is dropped and the channel is empty.
    ///
    /// # Cancel safety
    /// Dropping the future takes no message.
    pub async fn next(&self) -> Option<Message> {
        self.0.recv().await.ok()
    }

    /// A message that is there already.
    pub fn try_next(&self) -> Option<Message> {
        self.0.try_recv().ok()
    }
}

impl Transport for MemoryTransport {
    /// Messages arrive in the order of the batch, and nothing follows a failure.
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        for (index, message) in batch.iter().enumerate() {
            if self.0.send(message.clone()).await.is_err() {
                outcomes.fill(|| Err(no_consumer("publish")));
                return;
            }
            outcomes.set(index, Ok(()));
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        if self.0.is_closed() { Err(no_consumer("probe")) } else { Ok(()) }
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

fn no_consumer(operation: &'static str) -> Error {
    let error = Error::new(ErrorKind::Unavailable, operation)
        .describe("every consumer of the channel is gone")
        .not_applied();
    debug_assert_eq!(error.effect(), Effect::NotApplied);
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_executor::block_on;
    use pillarbox_core::{MessageId, Timestamp};

    fn message(number: u8) -> Message {
        Message::given(MessageId::from_bytes([number; 16]), Timestamp::EPOCH, "topic")
            .payload(vec![number])
            .unwrap()
    }

    fn publish(transport: &MemoryTransport, batch: &[Message]) -> Outcomes {
        let mut outcomes = Outcomes::new();
        outcomes.reset(batch.len());
        block_on(transport.publish(batch, &mut outcomes));
        outcomes
    }

    #[test]
    fn what_is_published_arrives_in_order() {
        let (transport, consumer) = MemoryTransport::bounded(10);
        let batch: Vec<_> = (0..5).map(message).collect();
        let outcomes = publish(&transport, &batch);
        assert!((0..5).all(|index| matches!(outcomes.outcome(index), Some(Ok(())))));
        for expected in batch {
            assert_eq!(block_on(consumer.next()), Some(expected));
        }
        drop(transport);
        assert_eq!(block_on(consumer.next()), None);
    }

    #[test]
    fn a_full_channel_holds_back_and_keeps_what_was_confirmed() {
        let (transport, consumer) = MemoryTransport::bounded(2);
        let batch: Vec<_> = (0..3).map(message).collect();
        let mut outcomes = Outcomes::new();
        outcomes.reset(3);
        {
            let publish = std::pin::pin!(transport.publish(&batch, &mut outcomes));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(publish.poll(&mut context).is_pending());
        }
        assert!(outcomes.outcome(1).is_some() && outcomes.outcome(2).is_none(), "cut off");
        assert!(
            consumer.try_next().is_some() && consumer.try_next().is_some() && consumer.try_next().is_none()
        );
        assert!(
            matches!(publish(&transport, &batch[..1]).outcome(0), Some(Ok(()))),
            "usable after a dropped publish"
        );
    }

    #[test]
    fn without_a_consumer_it_is_unavailable() {
        let (transport, consumer) = MemoryTransport::bounded(2);
        assert!(block_on(transport.probe(Destination::ONLY)).is_ok());
        drop(consumer);
        let outcomes = publish(&transport, &[message(1)]);
        let Some(Err(error)) = outcomes.outcome(0) else {
            panic!("expected an error, there is {outcomes:?}")
        };
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
        assert!(block_on(transport.probe(Destination::ONLY)).is_err());
    }
}
