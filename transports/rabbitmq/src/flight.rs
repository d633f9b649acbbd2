//! One publish: its messages on their way, and what the broker says of each.
//!
//! The client attaches a returned message to whichever confirmation it handles next, which is often another message's: the
//! broker confirms many messages with one frame. So a return is matched to its message by id here, and `Ok` is written only
//! once no return can be missing:
//!
//! - The broker sends the return of a message before its confirmation, and the client hands out returns in order, one with each
//!   confirmation, until none is left. A confirmation without a return therefore says that every return before it was handed
//!   out, to messages whose confirmations were complete by then.
//! - So a message that was confirmed without a return is `Ok` as soon as all confirmations that are complete have been looked
//!   at and none brought its return. One that was confirmed with another message's return waits for a later confirmation that
//!   has none, or for the last one of the batch: by then every return has found a confirmation.

use crate::channel::ConfirmChannel;
use crate::error::Operation;
use crate::judge::{self, Ending};
use crate::properties::properties;
use crate::{RabbitMqConfig, connection};
use futures_util::Stream as _;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Confirmation};
use pillarbox_core::{Error, ErrorKind, Message, Outcomes};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::time::{Instant, sleep_until};

/// So many bytes wait to be written at most, beyond the message that passes the mark: enough to keep the connection busy, and
/// a small copy of a large batch.
const UNWRITTEN_AT_MOST: usize = 256 * 1024;

/// What one message costs beyond its payload, roughly: its properties and frames.
const OVERHEAD: usize = 256;

/// So many confirmations are taken in one turn: others on the same thread wait for less than a millisecond.
const LANDINGS_AT_ONCE: usize = 256;

/// The fate of one message.
struct Landing {
    index: usize,
    fate: Result<Confirmation, Failure>,
}

struct Failure {
    error: lapin::Error,
    /// Whether all of the message may have been written: what was not written the broker does not have.
    written: bool,
}

/// Publishes a batch on a channel of its own and writes each outcome as soon as it is certain.
pub(crate) async fn publish(
    config: &RabbitMqConfig,
    channel: &ConfirmChannel,
    batch: &[Message],
    outcomes: &mut Outcomes,
) {
    let mut flight =
        Flight { config, channel, batch, outcomes, returned: 0, held: Vec::new(), failures: Vec::new() };
    let mut landings = FuturesUnordered::new();
    let drain = Arc::new(Drain::default());
    let waker = Waker::from(drain.clone());
    let mut next = 0;
    let mut waits_until = pin!(sleep_until(Instant::now() + config.confirm_timeout));
    let (mut round, mut last_unwritten) = (Vec::new(), 0);
    std::future::poll_fn(|context| {
        drain.task.register(context.waker());
        let all_of_this_turn = round.len() + LANDINGS_AT_ONCE;
        loop {
            if round.len() >= all_of_this_turn {
                // Others have their turn. What is complete is looked at together, so not yet.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            while flight.takes(next) {
                if let Some(properties) = flight.accept(next) {
                    landings.push(send(config, channel, next, &batch[next], properties));
                }
                next += 1;
            }
            match Pin::new(&mut landings).poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(landing)) => {
                    channel.landed();
                    round.push(landing);
                }
                // Nothing is in flight, so there was room for the rest of the batch, unless something failed.
                Poll::Ready(None) => {
                    flight.look_at(round.drain(..));
                    flight.end(next);
                    return Poll::Ready(());
                }
                // Something is complete that was not looked at, or was written and made room.
                Poll::Pending if drain.woken.swap(false, Ordering::AcqRel) || flight.takes(next) => {}
                Poll::Pending => break,
            }
        }
        let unwritten = channel.unwritten();
        let progress = !round.is_empty() || unwritten != last_unwritten;
        last_unwritten = unwritten;
        flight.look_at(round.drain(..));
        if progress {
            waits_until.as_mut().reset(Instant::now() + config.confirm_timeout);
        }
        waits_until.as_mut().poll(context).map(|()| flight.give_up(next))
    })
    .await;
}

/// Hands a message to the client and waits for its confirmation.
async fn send(
    config: &RabbitMqConfig,
    channel: &ConfirmChannel,
    index: usize,
    message: &Message,
    properties: BasicProperties,
) -> Landing {
    let size = message.payload().len() + OVERHEAD;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    // The settings and the message's limits keep both within 255 bytes.
    let (exchange, topic) = (config.exchange.as_str().into(), (**message.topic()).into());
    channel.begin(size);
    let sent = channel.channel().basic_publish(exchange, topic, options, message.payload(), properties).await;
    channel.written(size);
    let fate = match sent {
        Ok(confirmation) => confirmation.await.map_err(|error| Failure { error, written: true }),
        // What is handed to TLS may be sent although the write fails.
        Err(error) => Err(Failure { error, written: config.is_encrypted() }),
    };
    Landing { index, fate }
}

struct Flight<'a> {
    config: &'a RabbitMqConfig,
    channel: &'a ConfirmChannel,
    batch: &'a [Message],
    outcomes: &'a mut Outcomes,
    /// Behind the message that came back last: messages mostly come back in order.
    returned: usize,
    /// Confirmed with another message's return.
    held: Vec<usize>,
    failures: Vec<(usize, Failure)>,
}

impl Flight<'_> {
    /// Whether the message at `next` is to be sent now.
    fn takes(&self, next: usize) -> bool {
        next < self.batch.len() && self.failures.is_empty() && self.channel.unwritten() < UNWRITTEN_AT_MOST
    }

    /// The properties of a message that can be sent; the others are rejected here, without harm to their neighbours.
    fn accept(&mut self, index: usize) -> Option<BasicProperties> {
        let message = &self.batch[index];
        match judge::check(self.config, self.channel.live(), message)
            .and_then(|()| properties(self.config, message))
        {
            Ok(properties) => Some(properties),
            Err(error) => {
                self.outcomes.set(index, Err(error));
                None
            }
        }
    }

    /// Writes the outcomes that are certain now. `landings` are all that are complete.
    fn look_at(&mut self, landings: impl Iterator<Item = Landing>) {
        let (mut plain, mut with_another) = (Vec::new(), Vec::new());
        for Landing { index, fate } in landings {
            match fate {
                Ok(Confirmation::Ack(None)) => plain.push(index),
                Ok(Confirmation::Ack(Some(returned))) => {
                    self.return_to_sender(&returned);
                    with_another.push(index);
                }
                Ok(Confirmation::Nack(returned)) => {
                    if let Some(returned) = returned {
                        self.return_to_sender(&returned);
                    }
                    self.outcomes.set(index, Err(judge::refused(self.config)));
                }
                Ok(Confirmation::NotRequested) => self.outcomes.set(index, Err(judge::not_in_confirm_mode())),
                Err(failure) => self.failures.push((index, failure)),
            }
        }
        // Those that were returned have their outcome already, and the first word stands.
        if !plain.is_empty() {
            plain.append(&mut self.held);
        }
        for index in plain {
            self.outcomes.set(index, Ok(()));
        }
        self.held.append(&mut with_another);
    }

    /// A message came back. Of several copies with one id and topic it does not matter which is meant.
    fn return_to_sender(&mut self, returned: &BasicReturnMessage) {
        let delivery = &returned.delivery;
        let id = delivery.properties.message_id().as_ref().and_then(|id| id.as_str().parse().ok());
        let is_meant = |index: &usize| {
            let message = &self.batch[*index];
            Some(message.id()) == id
                && **message.topic() == *delivery.routing_key.as_str()
                && self.outcomes.outcome(*index).is_none()
        };
        if let Some(index) = (self.returned..self.batch.len()).chain(0..self.returned).find(is_meant) {
            self.returned = index + 1;
            self.outcomes.set(index, Err(judge::unroutable(returned)));
        }
    }

    /// Nothing is in flight any more, and the messages from `next` on were not sent.
    fn end(&mut self, next: usize) {
        if self.failures.is_empty() {
            for index in std::mem::take(&mut self.held) {
                self.outcomes.set(index, Ok(()));
            }
            return;
        }
        let written = |(_, failure): &&(usize, Failure)| failure.written;
        let in_flight = self.failures.iter().filter(written).count() + self.held.len();
        let errors = self.failures.iter().map(|(_, failure)| &failure.error);
        let ending = Ending::of(errors, in_flight, self.config);
        for (index, failure) in self.failures.drain(..) {
            let error = ending.error();
            self.outcomes.set(index, Err(if failure.written { error } else { error.not_applied() }));
        }
        // Whether they came back is lost with the channel.
        for index in self.held.drain(..) {
            self.outcomes.set(index, Err(ending.error()));
        }
        for index in next..self.batch.len() {
            self.outcomes.set(index, Err(ending.error().not_applied()));
        }
    }

    /// Nothing was written or confirmed for a while.
    fn give_up(&mut self, next: usize) {
        for index in next..self.batch.len() {
            self.outcomes.set(index, Err(self.unconfirmed().not_applied()));
        }
        let error = self.unconfirmed();
        self.outcomes.fill(|| Err(judge::repeated(&error)));
    }

    fn unconfirmed(&self) -> Error {
        let live = self.channel.live();
        if live.is_blocked() {
            return connection::blocked(Operation::Publish, self.config);
        }
        let kind = if live.is_connected() { ErrorKind::Indeterminate } else { ErrorKind::Unavailable };
        let (address, after) = (self.config.address(), self.config.confirm_timeout);
        Error::new(kind, Operation::Publish.name()).describe(format!(
            "RabbitMQ at {address} did not confirm within {after:?} (`transport.confirm_timeout`)"
        ))
    }
}

/// Tells whether something became complete since it was asked last. A set of futures may say `Pending` before it has looked at
/// all that are complete, and says so by waking.
#[derive(Default)]
struct Drain {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Drain {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}
