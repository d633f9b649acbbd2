//! What the cases do with a transport and its broker, and how they look at the result.

use super::violation::{CONFIRMED, Demand, PER_MESSAGE, RECOVERY, ensure};
use super::{Received, TransportHarness, Violation};
use pillarbox_core::{
    Destination, Effect, Error, Limits, Message, MessageBuilder, MessageId, Outcomes, Timestamp, Transport,
};
use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::task::Poll;

/// How often a broker that comes back is looked at.
const LOOKS: u32 = 200;

/// A transport, its broker, and a record of what was done.
pub(super) struct World<'a, H: TransportHarness> {
    pub(super) harness: &'a H,
    pub(super) transport: H::Transport,
    steps: &'a RefCell<Vec<String>>,
    made: &'a Cell<u32>,
}

impl<'a, H: TransportHarness> World<'a, H> {
    pub(super) async fn open(
        harness: &'a H,
        steps: &'a RefCell<Vec<String>>,
        made: &'a Cell<u32>,
    ) -> Result<Self, Violation> {
        let transport = harness.connect().await?;
        Ok(Self { harness, transport, steps, made })
    }

    pub(super) fn note(&self, step: impl Into<String>) {
        self.steps.borrow_mut().push(step.into());
    }

    /// The next message to the harness's topic.
    pub(super) fn message(&self) -> MessageBuilder {
        let number = self.made.get() + 1;
        self.made.set(number);
        let mut id = [0x70; 16];
        id[12..].copy_from_slice(&number.to_be_bytes());
        let created_at = Timestamp::from_millis(1_700_000_000_000 + i64::from(number));
        Message::given(MessageId::from_bytes(id), created_at, self.harness.topic()).limits(Limits::highest())
    }

    /// The next `count` messages, without a key.
    pub(super) fn messages(&self, count: u32) -> Result<Vec<Message>, Violation> {
        (0..count).map(|number| Ok(self.message().payload(format!("payload {number}"))?)).collect()
    }

    /// The next message to a topic that leads nowhere.
    pub(super) async fn unroutable(&self) -> Result<Message, Violation> {
        let topic = self.harness.unroutable_topic().await?;
        let message = self.message().payload("to nowhere")?;
        let lost = Message::given(message.id(), message.created_at(), topic);
        Ok(lost.payload(message.payload().clone())?)
    }

    /// Publishes to the end.
    pub(super) async fn publish(&self, batch: &[Message]) -> Outcomes {
        let mut outcomes = room_for(batch);
        self.transport.publish(batch, &mut outcomes).await;
        self.note(format!("published {}: {}", names(batch), shown(&outcomes)));
        outcomes
    }

    /// Publishes until a number of polls is reached, then drops the future. Whether it had ended by then is told too.
    pub(super) async fn publish_for(&self, batch: &[Message], polls: u32) -> (Outcomes, bool) {
        let mut outcomes = room_for(batch);
        let ended = polled(pin!(self.transport.publish(batch, &mut outcomes)), polls).await.is_some();
        self.note(format!("published {}, dropped after {polls} polls: {}", names(batch), shown(&outcomes)));
        (outcomes, ended)
    }

    /// Publishes, and expects `Ok` for every message.
    pub(super) async fn publish_all(&self, batch: &[Message], demand: Demand) -> Result<(), Violation> {
        let outcomes = self.publish(batch).await;
        for (index, message) in batch.iter().enumerate() {
            let outcome = outcomes.outcome(index);
            ensure!(
                matches!(outcome, Some(Ok(()))),
                demand,
                format!("`Ok` for {}", name(message.id())),
                "{outcome:?}"
            );
        }
        Ok(())
    }

    /// Everything that has arrived, by the harness's word.
    pub(super) async fn received(&self) -> Result<Vec<Received>, Violation> {
        let received = self.harness.received().await?;
        self.note(format!("received so far: {}", list(received.iter().map(|message| name(message.id)))));
        Ok(received)
    }

    /// Every message that has the outcome `Ok` has arrived.
    pub(super) async fn confirmed_have_arrived(
        &self,
        batch: &[Message],
        outcomes: &Outcomes,
    ) -> Result<(), Violation> {
        let received = self.received().await?;
        for (index, message) in batch.iter().enumerate() {
            let lost = matches!(outcomes.outcome(index), Some(Ok(()))) && times(&received, message) == 0;
            ensure!(
                !lost,
                CONFIRMED,
                format!("{}, whose outcome was `Ok`, to arrive", name(message.id())),
                "it never arrived"
            );
        }
        Ok(())
    }

    /// Each message has arrived exactly once.
    pub(super) async fn arrived_once(&self, batch: &[Message], demand: Demand) -> Result<(), Violation> {
        let received = self.received().await?;
        for message in batch {
            let times = times(&received, message);
            ensure!(
                times == 1,
                demand,
                format!("{} to arrive once", name(message.id())),
                "it arrived {times} times"
            );
        }
        Ok(())
    }

    /// Waits until the probe is answered.
    pub(super) async fn is_back(&self) -> Result<(), Violation> {
        let mut last = None;
        for _ in 0..LOOKS {
            match self.transport.probe(Destination::ONLY).await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
            self.harness.moment().await;
        }
        Err(Violation::Broken {
            demand: RECOVERY,
            expected: format!("a probe to succeed among {LOOKS}, after the broker came back"),
            seen: last.map_or_else(String::new, |error| error.report()),
        })
    }

    /// The broker goes away.
    pub(super) async fn stop(&self) -> Result<(), Violation> {
        self.harness.stop().await?;
        self.note("the broker went away");
        Ok(())
    }

    /// The broker comes back, and the transport notices by itself.
    pub(super) async fn start(&self) -> Result<(), Violation> {
        self.harness.start().await?;
        self.note("the broker came back");
        self.is_back().await
    }
}

/// Outcomes with room for a batch.
pub(super) fn room_for(batch: &[Message]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    outcomes.reset(batch.len());
    outcomes
}

/// An outcome for every message: the publish has ended.
pub(super) fn complete(batch: &[Message], outcomes: &Outcomes) -> Result<(), Violation> {
    for (index, message) in batch.iter().enumerate() {
        ensure!(
            outcomes.outcome(index).is_some(),
            PER_MESSAGE,
            format!("an outcome for {} when the publish has ended", name(message.id())),
            "none was written"
        );
    }
    Ok(())
}

/// The error at `index`, if there is one.
pub(super) fn error_at(outcomes: &Outcomes, index: usize) -> Option<&Error> {
    outcomes.outcome(index).and_then(|outcome| outcome.as_ref().err())
}

/// Whether the outcome at `index` says that nothing happened.
pub(super) fn is_not_applied(outcomes: &Outcomes, index: usize) -> bool {
    error_at(outcomes, index).is_some_and(|error| error.effect() == Effect::NotApplied)
}

/// How often a message has arrived.
pub(super) fn times(received: &[Received], message: &Message) -> usize {
    received.iter().filter(|received| received.id == message.id()).count()
}

/// A short name of a message that a case made.
pub(super) fn name(id: MessageId) -> String {
    let [.., a, b, c, d] = id.to_bytes();
    format!("m{}", u32::from_be_bytes([a, b, c, d]))
}

pub(super) fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [first, .., last] if names.len() > 20 => format!("{first} … {last} ({} messages)", names.len()),
        _ => names.join(" "),
    }
}

fn names(batch: &[Message]) -> String {
    list(batch.iter().map(|message| name(message.id())))
}

/// How many outcomes there are of each sort.
fn shown(outcomes: &Outcomes) -> String {
    let mut sorts: Vec<(String, u32)> = Vec::new();
    for index in 0..outcomes.len() {
        let sort = match outcomes.outcome(index) {
            None => "no outcome".to_owned(),
            Some(Ok(())) => "Ok".to_owned(),
            Some(Err(error)) => format!("{} {:?}", error.kind().name(), error.effect()),
        };
        match sorts.iter_mut().find(|(known, _)| *known == sort) {
            Some((_, count)) => *count += 1,
            None => sorts.push((sort, 1)),
        }
    }
    let sorts: Vec<_> = sorts.into_iter().map(|(sort, count)| format!("{count} × {sort}")).collect();
    sorts.join(", ")
}

/// Polls a future so many times; `None` if it had not ended by then.
pub(super) async fn polled<F: Future>(mut future: Pin<&mut F>, polls: u32) -> Option<F::Output> {
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll was this one: what follows happens while its answer is on its way.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
