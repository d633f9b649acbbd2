//! One publish on its way.

use crate::client::Sending;
use crate::connection::{Connector, FIRST_LIMIT, Link};
use crate::error::{self, Operation};
use crate::{judge, properties};
use futures_util::future::join_all;
use futures_util::task::AtomicWaker;
use pillarbox_core::{Error, Message, Outcomes};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::BaseRecord;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// librdkafka looks for messages that timed out once a second, and reports them. So much later nothing will come any more.
const OVERDUE: Duration = Duration::from_secs(3);

/// So many delivery reports are looked at together: to be woken for each one costs as much as to send it.
const AT_ONCE: usize = 128;

/// So often the queue of librdkafka is asked again when it was full: a message leaves it a moment after its report, and nothing tells.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(2);

/// So long a producer that was given up may take to report what it held.
const REPORTING: Duration = Duration::from_secs(3);

/// Where delivery reports arrive.
#[derive(Debug, Default)]
struct Landings {
    landed: Mutex<Vec<Landing>>,
    /// So many have to be there until the publish is woken.
    enough: AtomicUsize,
    task: AtomicWaker,
}

impl Landings {
    fn lock(&self) -> MutexGuard<'_, Vec<Landing>> {
        self.landed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has landed. Nothing may have, and then it wakes when `enough` have.
    fn poll(&self, context: &Context<'_>, enough: usize) -> Vec<Landing> {
        self.task.register(context.waker());
        self.enough.store(enough, Ordering::Release);
        std::mem::take(&mut *self.lock())
    }
}

#[derive(Debug)]
struct Landing {
    index: usize,
    fate: Fate,
}

/// A failure has the partition that the message was for.
type Fate = Result<(), (RDKafkaErrorCode, i32)>;

/// Travels with a message through the client, and brings its delivery report back.
#[derive(Debug)]
pub(crate) struct Ticket {
    landings: Arc<Landings>,
    index: usize,
}

impl Ticket {
    pub(crate) fn land(self, fate: Fate) {
        let landed = {
            let mut landed = self.landings.lock();
            landed.push(Landing { index: self.index, fate });
            landed.len()
        };
        if landed >= self.landings.enough.load(Ordering::Acquire) {
            self.landings.task.wake();
        }
    }
}

/// Sends a batch, and writes each outcome when its delivery report is there.
pub(crate) async fn publish(connector: &Connector, batch: &[Message], outcomes: &mut Outcomes) {
    let mut queue = Queue::new(batch);
    for sending in [Sending::Batched, Sending::Single] {
        if queue.ready.is_empty() {
            return;
        }
        match connector.link(Operation::Publish, sending).await {
            Ok(link) => {
                let refused = Flight::new(connector, &link, sending, batch, outcomes, &mut queue).run().await;
                queue.ready.extend(refused);
            }
            Err(error) => return outcomes.fill(|| Err(error::repeated(&error))),
        }
    }
}

/// What is to be sent: the first message of each key, and behind each one its next.
struct Queue {
    ready: VecDeque<usize>,
    next: Vec<Option<usize>>,
}

impl Queue {
    fn new(batch: &[Message]) -> Self {
        let mut last: HashMap<&str, usize> = HashMap::new();
        let mut queue = Self { ready: VecDeque::with_capacity(batch.len()), next: vec![None; batch.len()] };
        for (index, message) in batch.iter().enumerate() {
            match message.key().and_then(|key| last.insert(key, index)) {
                Some(before) => queue.next[before] = Some(index),
                None => queue.ready.push_back(index),
            }
        }
        queue
    }
}

struct Flight<'a> {
    connector: &'a Connector,
    link: &'a Link,
    sending: Sending,
    batch: &'a [Message],
    outcomes: &'a mut Outcomes,
    queue: &'a mut Queue,
    landings: Arc<Landings>,
    in_the_air: usize,
    /// How many of them have a next message that waits for them.
    awaited: usize,
    /// Refused with others in one request: each has to be asked about alone.
    refused: Vec<usize>,
    /// Of topics that were not there when the producer asked last.
    astray: Vec<usize>,
    asked: BTreeSet<&'a str>,
    /// Not confirmed in time, with their partitions.
    late: Vec<(usize, i32)>,
    /// How many connections had failed before.
    failures: u64,
    /// librdkafka's queue takes no more for now.
    is_full: bool,
}

impl<'a> Flight<'a> {
    fn new(
        connector: &'a Connector,
        link: &'a Link,
        sending: Sending,
        batch: &'a [Message],
        outcomes: &'a mut Outcomes,
        queue: &'a mut Queue,
    ) -> Self {
        Self {
            connector,
            link,
            sending,
            batch,
            outcomes,
            queue,
            landings: Arc::default(),
            in_the_air: 0,
            awaited: 0,
            refused: Vec::new(),
            astray: Vec::new(),
            asked: BTreeSet::new(),
            late: Vec::new(),
            failures: link.signs().failures(),
            is_full: false,
        }
    }

    /// To the end. Gives the messages that must be sent again one by one.
    async fn run(mut self) -> Vec<usize> {
        let link = self.link;
        let mut lost = pin!(link.signs().lost());
        let limit = self.connector.config().confirm_timeout + OVERDUE;
        let mut overdue = pin!(sleep_until(Instant::now() + limit));
        loop {
            self.take_off();
            if !self.astray.is_empty() {
                self.look_for_topics().await;
                continue;
            }
            if self.in_the_air == 0 && self.queue.ready.is_empty() {
                self.judge_late().await;
                return std::mem::take(&mut self.refused);
            }
            let mut room = pin!(sleep(LOOK_FOR_ROOM));
            let is_full = self.is_full;
            let (landings, enough) = (self.landings.clone(), self.enough());
            let event = std::future::poll_fn(|context| {
                let landed = landings.poll(context, enough);
                if !landed.is_empty() {
                    return Poll::Ready(Event::Landed(landed));
                }
                if lost.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Event::Lost);
                }
                if is_full && room.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Event::Room);
                }
                overdue.as_mut().poll(context).map(|()| Event::Overdue)
            });
            match event.await {
                Event::Landed(landed) => {
                    overdue.as_mut().reset(Instant::now() + limit);
                    self.is_full = false;
                    for Landing { index, fate } in landed {
                        self.land(index, fate);
                    }
                }
                Event::Room => self.is_full = false,
                Event::Lost => return self.give_up().await,
                Event::Overdue => {
                    // Nothing can be said of such a producer.
                    link.signs().lose(error::Loss::Silent);
                    let error = judge::unreported(self.connector.config());
                    self.end(&error);
                    link.purge();
                    return Vec::new();
                }
            }
        }
    }

    /// How many reports are worth being woken for: each one that lets another message go, else many at once.
    fn enough(&self) -> usize {
        let waits = self.awaited > 0 || !self.queue.ready.is_empty();
        if waits { 1 } else { self.in_the_air.min(AT_ONCE) }
    }

    /// Hands over what may be sent now.
    fn take_off(&mut self) {
        while !self.is_full
            && let Some(index) = self.queue.ready.pop_front()
        {
            match self.send(index) {
                Ok(()) => {
                    self.in_the_air += 1;
                    self.awaited += usize::from(self.queue.next[index].is_some());
                }
                Err(Refusal::Full) => {
                    self.queue.ready.push_front(index);
                    self.is_full = true;
                }
                Err(Refusal::Topic) => self.astray.push(index),
                Err(Refusal::Of(error)) => self.fail(index, error),
            }
        }
    }

    fn send(&mut self, index: usize) -> Result<(), Refusal> {
        let (config, message) = (self.connector.config(), &self.batch[index]);
        judge::check(config, message).map_err(Refusal::Of)?;
        let (headers, _) = properties::headers(config, message).map_err(Refusal::Of)?;
        let ticket = Box::new(Ticket { landings: self.landings.clone(), index });
        let record = BaseRecord::with_opaque_to(message.topic(), ticket)
            .payload(&message.payload()[..])
            .headers(headers);
        let record = match message.key() {
            Some(key) => record.key((**key).as_bytes()),
            None => record,
        };
        self.link.send(record).map_err(|code| {
            // A refusal that is about the topic may be as old as the last look at it.
            let topic: &str = message.topic();
            match code {
                RDKafkaErrorCode::QueueFull => Refusal::Full,
                RDKafkaErrorCode::MessageSizeTooLarge => Refusal::Of(judge::not_taken(config, message, code)),
                _ if !self.asked.contains(topic) => Refusal::Topic,
                _ => Refusal::Of(judge::not_taken(config, message, code)),
            }
        })
    }

    /// Asks whether topics are there by now, each once, and gives their messages another chance.
    async fn look_for_topics(&mut self) {
        let (config, batch) = (self.connector.config(), self.batch);
        let topics: BTreeSet<&str> = self.astray.iter().map(|index| &**batch[*index].topic()).collect();
        let topics: Vec<_> = topics.into_iter().collect();
        for some in topics.chunks(16) {
            // Whatever comes of it, the next try tells.
            join_all(some.iter().map(|topic| self.link.ask(topic, config.connect_timeout))).await;
        }
        self.asked.extend(topics);
        for index in self.astray.drain(..).rev() {
            self.queue.ready.push_front(index);
        }
    }

    fn land(&mut self, index: usize, fate: Fate) {
        self.in_the_air -= 1;
        self.awaited -= usize::from(self.queue.next[index].is_some());
        match fate {
            Ok(()) => {
                self.outcomes.set(index, Ok(()));
                self.queue.ready.extend(self.queue.next[index]);
            }
            Err((code, _)) if self.sending == Sending::Batched && error::is_of_one_record(code) => {
                self.refused.push(index);
            }
            Err((RDKafkaErrorCode::MessageTimedOut, partition)) if self.is_settled() => {
                self.late.push((index, partition));
            }
            Err((code, _)) => {
                if error::is_of_the_producer(code) {
                    self.link.signs().lose(error::Loss::Fatal(code.to_string()));
                }
                let (config, message) = (self.connector.config(), &self.batch[index]);
                let error = match self.link.loss() {
                    Some(loss) if !error::is_refusal(code) => loss.error(Operation::Publish, &config.place()),
                    _ => judge::failed(config, message, code, !self.is_settled()),
                };
                self.fail(index, error);
            }
        }
    }

    /// Whether no connection failed since this began, so that each message was sent once at most.
    fn is_settled(&self) -> bool {
        self.link.loss().is_none() && self.link.signs().failures() == self.failures
    }

    /// Messages were not confirmed in time while all connections lived: the brokers tell whether their partitions have leaders at all.
    async fn judge_late(&mut self) {
        let (config, batch) = (self.connector.config(), self.batch);
        let topics: BTreeSet<&str> = self.late.iter().map(|(index, _)| &**batch[*index].topic()).collect();
        let mut leaderless = BTreeSet::new();
        for topic in topics {
            // Without an answer nothing more is known, and a relay asks for a sign of life next.
            let Ok(partitions) = self.link.ask(topic, FIRST_LIMIT).await else { break };
            leaderless.extend(partitions.into_iter().map(|partition| (topic, partition)));
        }
        for (index, partition) in std::mem::take(&mut self.late) {
            let message = &batch[index];
            let code = if leaderless.contains(&(&**message.topic(), partition)) {
                RDKafkaErrorCode::LeaderNotAvailable
            } else {
                RDKafkaErrorCode::MessageTimedOut
            };
            self.fail(index, judge::failed(config, message, code, false));
        }
    }

    /// A message failed, and with it those behind it.
    fn fail(&mut self, index: usize, error: Error) {
        let mut next = self.queue.next[index];
        while let Some(behind) = next {
            self.outcomes.set(behind, Err(judge::behind(&error)));
            next = self.queue.next[behind];
        }
        self.outcomes.set(index, Err(error));
    }

    /// The producer was lost: nothing more is sent, and what it holds is thrown away.
    async fn give_up(mut self) -> Vec<usize> {
        self.link.purge();
        let landings = self.landings.clone();
        let mut deadline = pin!(sleep_until(Instant::now() + REPORTING));
        // What was confirmed before is still in the reports.
        while self.in_the_air > 0 {
            let landed = std::future::poll_fn(|context| {
                let landed = landings.poll(context, 1);
                if !landed.is_empty() {
                    return Poll::Ready(landed);
                }
                deadline.as_mut().poll(context).map(|()| Vec::new())
            });
            let landed = landed.await;
            if landed.is_empty() {
                break;
            }
            for Landing { index, fate } in landed {
                self.land(index, fate);
            }
        }
        let loss = self.link.loss().unwrap_or(error::Loss::Silent);
        let error = loss.error(Operation::Publish, &self.connector.config().place());
        self.end(&error);
        Vec::new()
    }

    /// Nothing more comes: `error` for what is in the air, and, certainly not applied, for what was not sent.
    fn end(&mut self, error: &Error) {
        for (index, _) in std::mem::take(&mut self.late) {
            self.fail(index, error::repeated(error));
        }
        for index in
            std::mem::take(&mut self.queue.ready).into_iter().chain(std::mem::take(&mut self.refused))
        {
            self.fail(index, error::repeated(error).not_applied());
        }
        // Behind what is in the air nothing was sent either; but which it is need not be known to be careful.
        self.outcomes.fill(|| Err(error::repeated(error)));
    }
}

impl Drop for Flight<'_> {
    /// A publish that is cut off keeps what was confirmed and not looked at yet.
    fn drop(&mut self) {
        for Landing { index, fate } in self.landings.lock().drain(..) {
            if fate.is_ok() {
                self.outcomes.set(index, Ok(()));
            }
        }
    }
}

enum Event {
    Landed(Vec<Landing>),
    Lost,
    Room,
    Overdue,
}

enum Refusal {
    /// The queue of librdkafka.
    Full,
    /// The topic, as far as the producer knew.
    Topic,
    Of(Error),
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
        let queue = Queue::new(&batch);
        assert_eq!(queue.ready, [0, 1, 2, 4]);
        assert_eq!(queue.next, [Some(3), None, None, Some(5), None, None]);
        assert!(Queue::new(&[]).ready.is_empty());
    }
}
